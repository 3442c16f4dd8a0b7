"""``fit`` and ``trial`` under short budgets, interruptions, failures and unusual data."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from safetensors.torch import save_file

from automl_tl.contracts import Recipe, Situation, Strategy
from automl_tl.errors import TrainingError
from automl_tl.planning import make_plan
from automl_tl.plugin_host import Catalog
from automl_tl.runtime.progress import QUIET
from automl_tl.training import fit, trial
from automl_tl.training.fit import Fitted
from automl_tl.training.phase import PhaseTrainer
from automl_tl.training.run import TrainingState
from automl_tl.values import Constraints
from automl_tl.workflows.dataset import Dataset, load_dataset
from tests.fakes import TinyBackbone, write_colors
from tests.planning.fake_plugins import ALL_BLOCKS, ClosedForm, FineTuned, catalog_of, evidence_of
from tests.training.test_loop import before_epoch, press_ctrl_c


@pytest.fixture
def found(tmp_path: Path) -> Dataset:
    return load_dataset(write_colors(tmp_path / "images", 40, classes=("blue", "green", "red")), seed=0, progress=QUIET)


@pytest.fixture
def catalog() -> Catalog:
    return catalog_of([TinyBackbone()], [ClosedForm(), FineTuned()])


def fitted(found: Dataset, place: Path, catalog: Catalog, **constraints: object) -> Fitted:
    """Fit what was asked for: training, if nothing else was."""
    asked = Constraints.model_validate({"strategies": ("fine_tuned",), "backbones": ("tiny/three_blocks",)} | constraints)
    evidence = evidence_of(found, place, asked)
    plan = make_plan(catalog, evidence)
    return fit(plan, catalog.backbone(plan.backbone), found.index.classes, found.images, evidence.workspace)


def test_fit_interrupted_in_the_first_epoch_keeps_the_linear_probe(
    found: Dataset,
    tmp_path: Path,
    catalog: Catalog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before_epoch(monkeypatch, 1, press_ctrl_c)

    result = fitted(found, tmp_path, catalog).result

    assert any("keeping the linear probe" in note for note in result.notes)
    assert result.validation_accuracy is not None


def test_fit_interrupted_during_the_refit_keeps_the_first_model(
    found: Dataset,
    tmp_path: Path,
    catalog: Catalog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before_epoch(monkeypatch, ALL_BLOCKS.epochs + 1, press_ctrl_c)

    given = fitted(found, tmp_path, catalog)

    assert any("keeping the model fitted on the training images" in note for note in given.result.notes)
    predicted = given.probabilities(found.images["validation"]).argmax(axis=1)
    assert (predicted == found.images["validation"].labels).mean() == given.result.validation_accuracy


def test_fit_keeps_the_first_model_if_the_refit_fails(
    found: Dataset,
    tmp_path: Path,
    catalog: Catalog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: PhaseTrainer) -> NoReturn:
        raise TrainingError("The loss became nan.")

    before_epoch(monkeypatch, ALL_BLOCKS.epochs + 1, fail)

    given = fitted(found, tmp_path, catalog)

    assert (
        "refitting on all images failed: The loss became nan. Keeping the model fitted on the training images."
        in given.result.notes
    )
    predicted = given.probabilities(found.images["validation"]).argmax(axis=1)
    assert (predicted == found.images["validation"].labels).mean() == given.result.validation_accuracy


def test_fit_keeps_the_probe_over_a_worse_requested_linear_head(
    found: Dataset,
    tmp_path: Path,
) -> None:
    result = fitted(found, tmp_path, catalog_of([TinyBackbone()], [Idle()]), hidden_dims=()).result

    assert any("the linear probe is kept" in note for note in result.notes)


def test_fit_after_ctrl_c_extracts_features_of_timed_images_only(
    found: Dataset,
    tmp_path: Path,
    catalog: Catalog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("automl_tl.training.budget.NUM_TIMED_IMAGES", 30)
    asked = Constraints(strategies=("closed_form",))
    plan = make_plan(catalog, evidence_of(found, tmp_path, asked))
    (tmp_path / "anew").mkdir()
    workspace = evidence_of(found, tmp_path / "anew", asked).workspace
    workspace.deadline.end()

    result = fit(plan, catalog.backbone(plan.backbone), found.index.classes, found.images, workspace).result

    assert result.notes[0].startswith("learned from 30 of ")


def test_fit_after_ctrl_c_during_planning_returns_a_working_model(
    found: Dataset,
    tmp_path: Path,
    catalog: Catalog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before_epoch(monkeypatch, 2, press_ctrl_c)
    constraints = Constraints(strategies=("closed_form", "fine_tuned"))
    evidence = evidence_of(found, tmp_path, constraints)

    plan = make_plan(catalog, evidence)
    given = fit(plan, catalog.backbone(plan.backbone), found.index.classes, found.images, evidence.workspace)

    assert evidence.workspace.deadline.is_ended
    assert len(given.result.curves) <= 1
    assert (given.probabilities(found.images["test"]).argmax(axis=1) == found.images["test"].labels).mean() > 0.5


def test_fit_without_time_keeps_the_linear_probe(
    found: Dataset,
    tmp_path: Path,
    catalog: Catalog,
) -> None:
    result = fitted(found, tmp_path, catalog, budget_s=0.001).result

    assert not result.curves
    assert any("keeping the linear probe" in note for note in result.notes)


def test_fit_discards_a_refit_cut_by_the_budget(
    found: Dataset,
    tmp_path: Path,
    catalog: Catalog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def cut(work: PhaseTrainer) -> None:
        work.is_cut = True

    before_epoch(monkeypatch, ALL_BLOCKS.epochs + 1, cut)  # training again has begun

    assert any(
        "keeping the model fitted on the training images" in note for note in fitted(found, tmp_path, catalog).result.notes
    )


class Idle(FineTuned):
    """Learns next to nothing."""

    def recipe(self, situation: Situation) -> Recipe:
        """The same epochs with hardly a step."""
        return Recipe(phases=(ALL_BLOCKS.model_copy(update={"head_lr": 1e-9, "encoder_lr": 1e-9}),), batch_size=8)


@pytest.mark.parametrize("strategy", [FineTuned(), Idle()], ids=lambda each: type(each).__name__)
def test_trial_agrees_with_fit_on_kept_epoch_and_probe(
    found: Dataset,
    tmp_path: Path,
    strategy: Strategy,
) -> None:
    catalog, constraints = catalog_of([TinyBackbone()], [strategy]), Constraints(strategies=("fine_tuned",))
    evidence = evidence_of(found, tmp_path, constraints)
    plan = make_plan(catalog, evidence)
    backbone = catalog.backbone(plan.backbone)

    tried = trial(plan, backbone, found.index.classes, found.images, evidence.workspace, epochs=ALL_BLOCKS.epochs)
    result = fit(plan, backbone, found.index.classes, found.images, evidence.workspace).result

    is_probe_kept = any("the linear probe is kept" in note for note in result.notes)
    assert tried is not None
    assert tried.is_worse == is_probe_kept == isinstance(strategy, Idle)
    assert tried.kept_share == TrainingState(curves=list(result.curves)).kept_epoch / ALL_BLOCKS.epochs


def test_trial_worse_than_the_probe_is_not_chosen(
    found: Dataset,
    tmp_path: Path,
) -> None:
    catalog, constraints = (
        catalog_of([TinyBackbone()], [ClosedForm(), Idle()]),
        Constraints(strategies=("closed_form", "fine_tuned")),
    )

    plan = make_plan(catalog, evidence_of(found, tmp_path, constraints))

    reasons = {each.strategy: each.reason for each in plan.candidates}
    assert plan.strategy == "closed_form"
    assert "the linear probe has the lower validation log loss" in reasons["fine_tuned"]


def test_fit_with_other_weights_does_not_resume_the_checkpoint(
    found: Dataset,
    tmp_path: Path,
    catalog: Catalog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a killed process left of a run from other weights must not be taken up."""

    def killed(*_: object) -> None:
        raise RuntimeError("killed")

    monkeypatch.setattr(import_module("automl_tl.training.fit"), "_probe_is_better", killed)  # the first training is done then

    for shift in (0.0, 0.1):
        weights = {name: tensor + shift for name, tensor in TinyBackbone().build(pretrained=True).state_dict().items()}
        save_file(weights, tmp_path / "weights.safetensors")
        with pytest.raises(RuntimeError, match="killed"):
            fitted(found, tmp_path, catalog, weights=str(tmp_path / "weights.safetensors"))

    assert len(list((tmp_path / "cache" / "runs").iterdir())) == 2


@pytest.mark.parametrize("strategy", ["closed_form", "fine_tuned"])
def test_fit_accepts_a_class_with_two_images(tmp_path: Path, catalog: Catalog, strategy: str) -> None:
    write_colors(tmp_path / "images", 30, classes=("red",))
    write_colors(tmp_path / "images", 2, classes=("green",))
    few = load_dataset(tmp_path / "images", seed=0, progress=QUIET)

    given = fitted(few, tmp_path, catalog, strategies=(strategy,))

    assert np.isfinite(given.probabilities(few.images["test"])).all()
