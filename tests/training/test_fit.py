"""``fit`` and ``trial`` under short budgets, interruptions, failures and unusual data."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from automl_tl.contracts import Recipe, Situation, Strategy
from automl_tl.errors import TrainingError
from automl_tl.models.bundle import load_bundle
from automl_tl.planning import make_plan
from automl_tl.plugin_host import Catalog
from automl_tl.plugin_host.ensemble import Ensemble
from automl_tl.runtime.progress import QUIET
from automl_tl.testing import ToyBackbone
from automl_tl.training import TrainingTask, Workspace, fit, trial
from automl_tl.training.fit import Fitted
from automl_tl.training.loop import PhaseTrainer
from automl_tl.training.run import TrainingState
from automl_tl.values import Constraints, Plan
from automl_tl.workflows.dataset import Dataset, load_dataset
from tests.fakes import write_colors
from tests.planning.fake_plugins import ALL_BLOCKS, ClosedForm, FineTuned, Renamed, catalog_of, evidence_of
from tests.training.test_loop import before_epoch, press_ctrl_c


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = write_colors(tmp_path_factory.mktemp("images"), 24, classes=("blue", "green", "red"))
    return load_dataset(folder, seed=0, progress=QUIET)


@pytest.fixture
def catalog() -> Catalog:
    return catalog_of([ToyBackbone()], [ClosedForm(), FineTuned()])


def task_of(plan: Plan, catalog: Catalog, dataset: Dataset, workspace: Workspace) -> TrainingTask:
    return TrainingTask(plan, catalog.backbone(plan.backbone), dataset.index.classes, dataset.images, workspace)


def fit_plan(dataset: Dataset, place: Path, catalog: Catalog, **constraints: object) -> Fitted:
    """Fit under ``constraints``; unless they say otherwise, by training."""
    defaults = {"strategies": ("fine_tuned",), "backbones": ("toy/three_blocks",)}
    evidence = evidence_of(dataset, place, Constraints.model_validate(defaults | constraints))
    plan = make_plan(catalog, evidence)
    return fit(task_of(plan, catalog, dataset, evidence.workspace))


def test_fit_interrupted_in_the_first_epoch_keeps_the_linear_probe(
    dataset: Dataset,
    tmp_path: Path,
    catalog: Catalog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before_epoch(monkeypatch, 1, press_ctrl_c)

    result = fit_plan(dataset, tmp_path, catalog).result

    assert any("keeping the linear probe" in note for note in result.notes)
    assert result.validation_accuracy is not None


def test_fit_interrupted_during_the_refit_keeps_the_first_model(
    dataset: Dataset,
    tmp_path: Path,
    catalog: Catalog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before_epoch(monkeypatch, ALL_BLOCKS.epochs + 1, press_ctrl_c)

    model = fit_plan(dataset, tmp_path, catalog)

    assert any("keeping the model fitted on the training images" in note for note in model.result.notes)
    predicted = model.probabilities(dataset.images["validation"]).argmax(axis=1)
    assert (predicted == dataset.images["validation"].labels).mean() == model.result.validation_accuracy


def test_fit_keeps_the_first_model_if_the_refit_fails(
    dataset: Dataset,
    tmp_path: Path,
    catalog: Catalog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: PhaseTrainer) -> NoReturn:
        raise TrainingError("The loss became nan.")

    before_epoch(monkeypatch, ALL_BLOCKS.epochs + 1, fail)

    model = fit_plan(dataset, tmp_path, catalog)

    assert (
        "refitting on all images failed: The loss became nan. Keeping the model fitted on the training images."
        in model.result.notes
    )
    predicted = model.probabilities(dataset.images["validation"]).argmax(axis=1)
    assert (predicted == dataset.images["validation"].labels).mean() == model.result.validation_accuracy


def test_fit_keeps_the_probe_over_a_worse_requested_linear_head(
    dataset: Dataset,
    tmp_path: Path,
) -> None:
    result = fit_plan(dataset, tmp_path, catalog_of([ToyBackbone()], [Idle()]), hidden_dims=()).result

    assert any("the linear probe is kept" in note for note in result.notes)


def averaged_task(dataset: Dataset, place: Path, catalog: Catalog) -> TrainingTask:
    """Train the backbone, averaged with a closed-form head on another."""
    constraints = Constraints(strategies=("fine_tuned",), backbones=("toy/three_blocks",))
    evidence = evidence_of(dataset, place, constraints)
    plan = make_plan(catalog, evidence)
    backbone = Ensemble(list(catalog.backbones.values()))
    catalog.backbones = {**catalog.backbones, backbone.card.name: backbone}
    update = {"backbone": backbone.card.name, "preprocessing": backbone.card.preprocessing, "averaged": True}
    return task_of(plan.model_copy(update=update), catalog, dataset, evidence.workspace)


@pytest.fixture
def pair() -> Catalog:
    return catalog_of([ToyBackbone(), Renamed(name="toy/other")], [ClosedForm(), FineTuned()])


def test_fit_averages_the_trained_model_with_a_closed_form_head(dataset: Dataset, tmp_path: Path, pair: Catalog) -> None:
    task = averaged_task(dataset, tmp_path, pair)
    members = task.on(pair.backbone("toy/three_blocks"), task.plan.recipe), task.on(pair.backbone("toy/other"), Recipe())

    images = dataset.images["test"]

    averaged = fit(task)
    loaded = load_bundle(averaged.result.encoder_file, averaged.result.head_file, pair)
    trained, frozen = (fit(each) for each in members)

    probabilities = averaged.probabilities(images)
    assert averaged.classifier.facts.backbone == "toy/three_blocks+toy/other"
    assert averaged.result.curves == trained.result.curves
    mean = np.mean([each.probabilities(images) for each in (trained, frozen)], axis=0)
    assert np.abs(probabilities - mean).max() < 0.1  # but for a temperature of its own
    assert np.allclose(loaded.probabilities(torch.from_numpy(averaged.features(images))), probabilities)


def test_fit_of_an_average_without_an_epoch_keeps_the_closed_form_head(
    dataset: Dataset, tmp_path: Path, pair: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = averaged_task(dataset, tmp_path, pair)
    before_epoch(monkeypatch, 1, press_ctrl_c)

    model = fit(task)

    assert model.classifier.facts.backbone == "toy/other"
    assert any("keeping the linear probe" in note for note in model.result.notes)


def test_fit_after_ctrl_c_extracts_features_of_timed_images_only(
    dataset: Dataset,
    tmp_path: Path,
    catalog: Catalog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("automl_tl.training.speed.NUM_TIMED_IMAGES", 30)
    constraints = Constraints(strategies=("closed_form",))
    plan = make_plan(catalog, evidence_of(dataset, tmp_path, constraints))
    (tmp_path / "second").mkdir()
    workspace = evidence_of(dataset, tmp_path / "second", constraints).workspace
    workspace.deadline.end()

    result = fit(task_of(plan, catalog, dataset, workspace)).result

    assert result.notes[0].startswith("learned from 30 of ")


def test_fit_after_ctrl_c_during_planning_returns_a_working_model(
    dataset: Dataset,
    tmp_path: Path,
    catalog: Catalog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before_epoch(monkeypatch, 2, press_ctrl_c)
    constraints = Constraints(strategies=("closed_form", "fine_tuned"))
    evidence = evidence_of(dataset, tmp_path, constraints)

    plan = make_plan(catalog, evidence)
    model = fit(task_of(plan, catalog, dataset, evidence.workspace))

    assert evidence.workspace.deadline.is_ended
    assert len(model.result.curves) <= 1
    assert (model.probabilities(dataset.images["test"]).argmax(axis=1) == dataset.images["test"].labels).mean() > 0.5


def test_fit_without_time_keeps_the_linear_probe(
    dataset: Dataset,
    tmp_path: Path,
    catalog: Catalog,
) -> None:
    result = fit_plan(dataset, tmp_path, catalog, budget_s=0.001).result

    assert not result.curves
    assert any("keeping the linear probe" in note for note in result.notes)


def test_fit_discards_a_refit_cut_by_the_budget(
    dataset: Dataset,
    tmp_path: Path,
    catalog: Catalog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def cut(work: PhaseTrainer) -> None:
        work.is_cut = True

    before_epoch(monkeypatch, ALL_BLOCKS.epochs + 1, cut)  # training again has begun

    assert any(
        "keeping the model fitted on the training images" in note for note in fit_plan(dataset, tmp_path, catalog).result.notes
    )


class Idle(FineTuned):
    """Learns next to nothing."""

    def recipe(self, situation: Situation) -> Recipe:
        """The same epochs with hardly a step."""
        return Recipe(phases=(ALL_BLOCKS.model_copy(update={"head_lr": 1e-9, "encoder_lr": 1e-9}),), batch_size=8)


@pytest.mark.parametrize("strategy", [FineTuned(), Idle()], ids=lambda strategy: type(strategy).__name__)
def test_trial_agrees_with_fit_on_kept_epoch_and_probe(
    dataset: Dataset,
    tmp_path: Path,
    strategy: Strategy,
) -> None:
    catalog, constraints = catalog_of([ToyBackbone()], [strategy]), Constraints(strategies=("fine_tuned",))
    evidence = evidence_of(dataset, tmp_path, constraints)
    plan = make_plan(catalog, evidence)
    task = task_of(plan, catalog, dataset, evidence.workspace)

    tried = trial(task, epochs=ALL_BLOCKS.epochs)
    result = fit(task).result

    is_probe_kept = any("the linear probe is kept" in note for note in result.notes)
    assert tried is not None
    assert tried.is_worse == is_probe_kept == isinstance(strategy, Idle)
    assert tried.kept_share == TrainingState(curves=list(result.curves)).kept_epoch / ALL_BLOCKS.epochs


def test_trial_worse_than_the_probe_is_not_chosen(
    dataset: Dataset,
    tmp_path: Path,
) -> None:
    catalog, constraints = (
        catalog_of([ToyBackbone()], [ClosedForm(), Idle()]),
        Constraints(strategies=("closed_form", "fine_tuned")),
    )

    plan = make_plan(catalog, evidence_of(dataset, tmp_path, constraints))

    reasons = {candidate.strategy: candidate.reason for candidate in plan.candidates}
    assert plan.strategy == "closed_form"
    assert "the linear probe has the lower validation log loss" in reasons["fine_tuned"]


def test_trial_with_other_weights_does_not_resume_the_checkpoint(dataset: Dataset, tmp_path: Path, catalog: Catalog) -> None:
    file = tmp_path / "weights.safetensors"
    constraints = Constraints(strategies=("fine_tuned",), backbones=("toy/three_blocks",), weights=str(file))

    for shift in (0.0, 0.1):
        save_file({k: tensor + shift for k, tensor in ToyBackbone().build(pretrained=True).state_dict().items()}, file)
        evidence = evidence_of(dataset, tmp_path, constraints)
        plan = make_plan(catalog, evidence)
        trial(task_of(plan, catalog, dataset, evidence.workspace), epochs=1)

    assert len(list((tmp_path / "cache" / "runs").iterdir())) == 2


@pytest.mark.parametrize("strategy", ["closed_form", "fine_tuned"])
def test_fit_accepts_a_class_with_two_images(tmp_path: Path, catalog: Catalog, strategy: str) -> None:
    write_colors(tmp_path / "images", 30, classes=("red",))
    write_colors(tmp_path / "images", 2, classes=("green",))
    dataset = load_dataset(tmp_path / "images", seed=0, progress=QUIET)

    model = fit_plan(dataset, tmp_path, catalog, strategies=(strategy,))

    assert np.isfinite(model.probabilities(dataset.images["test"])).all()


def test_fit_adjusts_trained_head_and_held_out_probabilities_alike_for_imbalanced_classes(
    tmp_path: Path, catalog: Catalog
) -> None:
    write_colors(tmp_path / "images", 60, classes=("red",))
    write_colors(tmp_path / "images", 5, classes=("green",))
    dataset = load_dataset(tmp_path / "images", seed=0, progress=QUIET)
    constraints = Constraints(strategies=("fine_tuned",), backbones=("toy/three_blocks",), hidden_dims=(8,))
    evidence = evidence_of(dataset, tmp_path, constraints)
    plan = make_plan(catalog, evidence)
    plan = plan.model_copy(update={"recipe": plan.recipe.model_copy(update={"refit": False})})

    model = fit(task_of(plan, catalog, dataset, evidence.workspace))

    assert "logits adjusted for imbalanced classes" in model.result.notes
    labels, probabilities = model.held_out
    assert np.array_equal(labels, dataset.images["validation"].labels)
    assert model.probabilities(dataset.images["validation"]) == pytest.approx(probabilities, abs=1e-4)
