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
from automl_tl.planning import make_plan, make_profile
from automl_tl.plugin_host import Catalog
from automl_tl.runtime.progress import QUIET
from automl_tl.training import fit, trial
from automl_tl.training.fit import Fitted
from automl_tl.training.phase import PhaseTrainer
from automl_tl.training.run import TrainingState
from automl_tl.values import Constraints
from automl_tl.workflows.dataset import Dataset, load_dataset
from tests.fakes import TinyBackbone, write_colors
from tests.planning.test_planner import WHOLE, Solved, Trained, catalog_of, found, lab_of  # noqa: F401 - found is a fixture
from tests.training.test_loop import before_epoch, press_ctrl_c


@pytest.fixture
def catalog() -> Catalog:
    return catalog_of([TinyBackbone()], [Solved(), Trained()])


def fitted(found: Dataset, place: Path, catalog: Catalog, **constraints: object) -> Fitted:  # noqa: F811
    """Fit what was asked for: training, if nothing else was."""
    asked = Constraints.model_validate({"strategies": ("somebodys",), "backbones": ("tiny/three_blocks",)} | constraints)
    lab = lab_of(found, place, asked)
    plan = make_plan(make_profile(found.parts, found.report), catalog, asked, lab)
    return fit(plan, catalog.backbone(plan.backbone), found.index.classes, found.images, lab.workspace)


def test_fit_interrupted_in_the_first_epoch_keeps_the_linear_probe(
    found: Dataset,  # noqa: F811
    tmp_path: Path,
    catalog: Catalog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before_epoch(monkeypatch, 1, press_ctrl_c)

    result = fitted(found, tmp_path, catalog).result

    assert any("keeping the linear probe" in note for note in result.notes)
    assert result.validation_accuracy is not None


def test_fit_interrupted_during_the_refit_keeps_the_first_model(
    found: Dataset,  # noqa: F811
    tmp_path: Path,
    catalog: Catalog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before_epoch(monkeypatch, WHOLE.epochs + 1, press_ctrl_c)

    given = fitted(found, tmp_path, catalog)

    assert any("keeping the model fitted on the training images" in note for note in given.result.notes)
    predicted = given.probabilities(found.images["validation"]).argmax(axis=1)
    assert (predicted == found.images["validation"].labels).mean() == given.result.validation_accuracy


def test_fit_keeps_the_first_model_if_the_refit_fails(
    found: Dataset,  # noqa: F811
    tmp_path: Path,
    catalog: Catalog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: PhaseTrainer) -> NoReturn:
        raise TrainingError("The loss became nan.")

    before_epoch(monkeypatch, WHOLE.epochs + 1, fail)

    given = fitted(found, tmp_path, catalog)

    assert (
        "refitting on all images failed: The loss became nan. Keeping the model fitted on the training images."
        in given.result.notes
    )
    predicted = given.probabilities(found.images["validation"]).argmax(axis=1)
    assert (predicted == found.images["validation"].labels).mean() == given.result.validation_accuracy


def test_fit_keeps_the_probe_over_a_worse_requested_linear_head(
    found: Dataset,  # noqa: F811
    tmp_path: Path,
) -> None:
    result = fitted(found, tmp_path, catalog_of([TinyBackbone()], [Idle()]), hidden_dims=()).result

    assert any("the linear probe is kept" in note for note in result.notes)


def test_fit_after_ctrl_c_extracts_features_of_timed_images_only(
    found: Dataset,  # noqa: F811
    tmp_path: Path,
    catalog: Catalog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("automl_tl.training.budget.NUM_TIMED_IMAGES", 30)
    asked = Constraints(strategies=("solved",))
    plan = make_plan(make_profile(found.parts, found.report), catalog, asked, lab_of(found, tmp_path, asked))
    (tmp_path / "anew").mkdir()
    workspace = lab_of(found, tmp_path / "anew", asked).workspace
    workspace.deadline.end()

    result = fit(plan, catalog.backbone(plan.backbone), found.index.classes, found.images, workspace).result

    assert result.notes[0].startswith("learned from 30 of ")


def test_fit_after_ctrl_c_during_planning_returns_a_working_model(
    found: Dataset,  # noqa: F811
    tmp_path: Path,
    catalog: Catalog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before_epoch(monkeypatch, 2, press_ctrl_c)
    constraints = Constraints(strategies=("solved", "somebodys"))
    lab = lab_of(found, tmp_path, constraints)

    plan = make_plan(make_profile(found.parts, found.report), catalog, constraints, lab, races=True)
    given = fit(plan, catalog.backbone(plan.backbone), found.index.classes, found.images, lab.workspace)

    assert lab.workspace.deadline.is_ended
    assert len(given.result.curves) <= 1
    assert (given.probabilities(found.images["test"]).argmax(axis=1) == found.images["test"].labels).mean() > 0.5


def test_fit_without_time_keeps_the_linear_probe(
    found: Dataset,  # noqa: F811
    tmp_path: Path,
    catalog: Catalog,
) -> None:
    result = fitted(found, tmp_path, catalog, budget_s=0.001).result

    assert not result.curves
    assert any("keeping the linear probe" in note for note in result.notes)


def test_fit_discards_a_refit_cut_by_the_budget(
    found: Dataset,  # noqa: F811
    tmp_path: Path,
    catalog: Catalog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def cut(work: PhaseTrainer) -> None:
        work.is_cut = True

    before_epoch(monkeypatch, WHOLE.epochs + 1, cut)  # training again has begun

    assert any(
        "keeping the model fitted on the training images" in note for note in fitted(found, tmp_path, catalog).result.notes
    )


class Idle(Trained):
    """Learns next to nothing."""

    def recipe(self, situation: Situation) -> Recipe:
        """The same epochs with hardly a step."""
        return Recipe(phases=(WHOLE.model_copy(update={"head_lr": 1e-9, "encoder_lr": 1e-9}),), batch_size=8)


@pytest.mark.parametrize("strategy", [Trained(), Idle()], ids=lambda each: type(each).__name__)
def test_trial_agrees_with_fit_on_kept_epoch_and_probe(
    found: Dataset,  # noqa: F811
    tmp_path: Path,
    strategy: Strategy,
) -> None:
    catalog, constraints = catalog_of([TinyBackbone()], [strategy]), Constraints(strategies=("somebodys",))
    lab = lab_of(found, tmp_path, constraints)
    plan = make_plan(make_profile(found.parts, found.report), catalog, constraints, lab)
    backbone = catalog.backbone(plan.backbone)

    tried = trial(plan, backbone, found.index.classes, found.images, lab.workspace, epochs=WHOLE.epochs)
    result = fit(plan, backbone, found.index.classes, found.images, lab.workspace).result

    is_probe_kept = any("the linear probe is kept" in note for note in result.notes)
    assert tried is not None
    assert tried.is_worse == is_probe_kept == isinstance(strategy, Idle)
    assert tried.kept_share == TrainingState(curves=list(result.curves)).kept_epoch / WHOLE.epochs


def test_trial_worse_than_the_probe_is_not_chosen(
    found: Dataset,  # noqa: F811
    tmp_path: Path,
) -> None:
    catalog, constraints = catalog_of([TinyBackbone()], [Solved(), Idle()]), Constraints(strategies=("solved", "somebodys"))

    plan = make_plan(
        make_profile(found.parts, found.report), catalog, constraints, lab_of(found, tmp_path, constraints), races=True
    )

    reasons = {each.strategy: each.reason for each in plan.candidates}
    assert plan.strategy == "solved"
    assert "the linear probe has the lower validation log loss" in reasons["somebodys"]


def test_fit_with_other_weights_does_not_resume_the_checkpoint(
    found: Dataset,  # noqa: F811
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


@pytest.mark.parametrize("strategy", ["solved", "somebodys"])
def test_fit_accepts_a_class_with_two_images(tmp_path: Path, catalog: Catalog, strategy: str) -> None:
    write_colors(tmp_path / "images", 30, classes=("red",))
    write_colors(tmp_path / "images", 2, classes=("green",))
    few = load_dataset(tmp_path / "images", seed=0, progress=QUIET)

    given = fitted(few, tmp_path, catalog, strategies=(strategy,))

    assert np.isfinite(given.probabilities(few.images["test"])).all()
