"""The training loop on a tiny network: trained and frozen blocks, budgets, interruptions, resuming, learning rates."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from automl_tl.contracts import Situation
from automl_tl.errors import TrainingError
from automl_tl.models.heads import HeadShape, TrainedHead
from automl_tl.runtime.budget import Deadline, OutOfTime
from automl_tl.runtime.progress import QUIET
from automl_tl.testing import ToyBackbone
from automl_tl.training.checkpoints import Checkpoints
from automl_tl.training.class_weights import class_weights
from automl_tl.training.loop import (
    PhaseTrainer,
    lr_factor,
    make_optimizer,
    train,
    validation_row,
)
from automl_tl.training.run import TrainingRun, TrainingState
from automl_tl.training.views import Prefix
from automl_tl.training.workspace import Workspace
from automl_tl.values import Constraints, Head, Metric, Phase, Recipe
from automl_tl_strategies.discriminative_lr import DiscriminativeLr
from automl_tl_strategies.full_finetune import FullFinetune
from tests.fakes import write_colors
from tests.training.colors import labeled_colors

EVERYTHING = Phase(name="all", epochs=3, train_blocks=(0, 1, 2), head_lr=1e-2, encoder_lr=1e-2)
TOP = Phase(name="top", epochs=3, train_blocks=(2,), head_lr=1e-2, encoder_lr=1e-2, cached_views=2)
HEAD = Phase(name="head", epochs=3, head_lr=1e-1, cached_views=2)


def make_run(place: Path, *phases: Phase, deadline: Deadline | None = None, **recipe: object) -> TrainingRun:
    """A run on colored images, always the same."""
    torch.manual_seed(0)
    backbone = ToyBackbone()
    images = labeled_colors(write_colors(place / "images", 20))
    workspace = Workspace(folder=place / "scratch", cache_dir=place / "cache", deadline=deadline or Deadline(), progress=QUIET)
    return TrainingRun(
        blocks=nn.Sequential(*backbone.cut(backbone.build(pretrained=True))),
        head=TrainedHead(HeadShape(kind="trained", feature_dim=32, num_classes=2)),
        recipe=Recipe(phases=phases, batch_size=8, **recipe),
        preprocessing=backbone.card.preprocessing,
        train=images.at(range(0, 40, 2)),
        validation=images.at(range(1, 40, 2)),
        num_classes=2,
        flips=True,
        seed=5,
        workspace=workspace,
        checkpoints=Checkpoints(place / "cache", "run", every_s=0),
    )


def before_epoch(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[PhaseTrainer], object]) -> None:
    """Call ``act`` before the epoch with this number, counted from 1 over all runs."""
    real_epoch, calls = PhaseTrainer.train_epoch, []

    def epoch(self: PhaseTrainer, *arguments: object) -> float:
        calls.append(arguments)
        if len(calls) == number:
            act(self)
        return real_epoch(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(PhaseTrainer, "train_epoch", epoch)


def press_ctrl_c(_: PhaseTrainer) -> NoReturn:
    """Raise what Ctrl-C raises."""
    raise KeyboardInterrupt


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("phase", [EVERYTHING, TOP, HEAD], ids=lambda phase: phase.name)
def test_train_learns_colors(tmp_path: Path, phase: Phase) -> None:
    run = make_run(tmp_path, phase.model_copy(update={"epochs": 8}))

    progress = train(run)

    assert progress.logits is not None
    assert run.validation is not None
    assert (progress.logits.argmax(axis=1) == run.validation.labels).mean() >= 0.9
    assert len(progress.curves) == 8


def test_train_changes_trained_blocks_only(tmp_path: Path) -> None:
    run = make_run(tmp_path, TOP)
    before = [weights(block) for block in run.blocks]

    train(run)

    assert [same(old, weights(block)) for old, block in zip(before, run.blocks, strict=True)] == [True, True, False]


@pytest.mark.parametrize(("mode", "moves"), [("frozen", False), ("training", True)])
def test_train_updates_batch_norm_statistics_only_if_the_phase_does(tmp_path: Path, mode: str, moves: bool) -> None:
    run = make_run(tmp_path, EVERYTHING.model_copy(update={"batch_norm": mode}))
    before = weights(run.blocks)["0.1.running_mean"]

    train(run)

    assert torch.equal(before, weights(run.blocks)["0.1.running_mean"]) is not moves


def test_train_norm_only_changes_affine_parameters_of_norm_layers(tmp_path: Path) -> None:
    run = make_run(tmp_path, EVERYTHING.model_copy(update={"parameters": "norm"}))
    before = weights(run.blocks)

    train(run)

    changed = {name for name, tensor in weights(run.blocks).items() if not torch.equal(tensor, before[name])}
    assert changed
    assert changed <= {f"{block}.1.{name}" for block in range(3) for name in ("weight", "bias")}


def test_train_can_train_a_block_in_front_of_frozen_ones(tmp_path: Path) -> None:
    run = make_run(tmp_path, EVERYTHING.model_copy(update={"train_blocks": (0,)}))
    before = [weights(block) for block in run.blocks]

    train(run)

    assert [same(old, weights(block)) for old, block in zip(before, run.blocks, strict=True)] == [False, True, True]


@pytest.mark.parametrize("phase", [EVERYTHING, TOP], ids=lambda phase: phase.name)
def test_train_resumed_equals_uninterrupted(tmp_path: Path, phase: Phase, monkeypatch: pytest.MonkeyPatch) -> None:
    straight = make_run(tmp_path / "straight", HEAD, phase)
    train(straight)
    interrupted = make_run(tmp_path / "cut", HEAD, phase)

    def fail(_: PhaseTrainer) -> NoReturn:
        raise RuntimeError("power cut")

    before_epoch(monkeypatch, 5, fail)
    with pytest.raises(RuntimeError, match="power cut"):
        train(interrupted)

    resumed = make_run(tmp_path / "cut", HEAD, phase)
    progress = train(resumed)

    assert len(progress.curves) == 6
    assert same(weights(straight.blocks), weights(resumed.blocks))
    assert same(weights(straight.head), weights(resumed.head))


def test_train_resumes_after_kill_9(tmp_path: Path) -> None:
    straight = make_run(tmp_path / "straight", EVERYTHING)
    train(straight)
    program = [sys.executable, "-m", "tests.training.killed_run", str(tmp_path / "cut")]

    killed = subprocess.run(program, check=False, capture_output=True, text=True)
    resumed = make_run(tmp_path / "cut", EVERYTHING)
    progress = train(resumed)

    assert killed.returncode == -9, killed.stderr
    assert len(progress.curves) == 3
    assert same(weights(straight.blocks), weights(resumed.blocks))


def test_train_out_of_memory_halves_the_micro_batch_with_the_same_result(tmp_path: Path) -> None:
    phase = EVERYTHING.model_copy(update={"epochs": 1})
    roomy = make_run(tmp_path / "roomy", phase)
    train(roomy)
    tight = make_run(tmp_path / "tight", phase)

    def allocate(_: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if torch.is_grad_enabled() and len(inputs[0]) > 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    tight.head.register_forward_pre_hook(allocate)
    train(tight)

    for name, tensor in weights(roomy.blocks).items():
        assert torch.allclose(tensor, weights(tight.blocks)[name], atol=2e-3), name


def test_train_shortens_to_the_budget(tmp_path: Path) -> None:
    class Clock:
        now_s = 0.0

        def __call__(self) -> float:
            self.now_s += 1.0
            return self.now_s

    run = make_run(tmp_path, EVERYTHING.model_copy(update={"epochs": 50}), deadline=Deadline(3.0, Clock()))

    progress = train(run)

    assert 1 <= len(progress.curves) < 50
    assert any("the budget end" in note for note in progress.notes)


def test_train_interrupted_keeps_the_best_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path, EVERYTHING)
    before_epoch(monkeypatch, 3, press_ctrl_c)

    progress = train(run)

    assert isinstance(progress, TrainingState)
    assert progress.stopped
    assert any("Ctrl-C" in note for note in progress.notes)


def test_train_interrupted_in_the_first_epoch_ends_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path, EVERYTHING)
    before_epoch(monkeypatch, 1, press_ctrl_c)

    progress = train(run)

    assert (progress.epochs, progress.stopped, progress.logits) == (0, True, None)
    assert run.workspace.deadline.left_s == 0


def test_train_epoch_ends_with_the_budget(tmp_path: Path) -> None:
    now_s = 0.0
    run = make_run(tmp_path, EVERYTHING, deadline=Deadline(5.0, lambda: now_s))
    seen = []

    def advance(count: int) -> None:
        nonlocal now_s
        seen.append(count)
        now_s += 6.0

    work = PhaseTrainer(run, 0, _network(run))
    work.train_epoch(0, 3, advance)

    assert sum(seen) < len(run.train)


def test_train_stops_without_time_for_cached_views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_time(*_: object, **__: object) -> None:
        raise OutOfTime

    run = make_run(tmp_path, TOP)
    monkeypatch.setattr(Prefix, "view", no_time)

    progress = train(run)

    assert (progress.epochs, progress.stopped) == (0, True)
    assert progress.notes == ["the budget ended after epoch 0"]


def test_train_counts_patience_per_phase(tmp_path: Path) -> None:
    hopeless = HEAD.model_copy(update={"head_lr": 1e-12, "epochs": 6})
    run = make_run(tmp_path, hopeless, EVERYTHING.model_copy(update={"epochs": 6}), patience_epochs=3)

    progress = train(run)

    phases = [row["phase"] for row in progress.curves]
    assert phases.count("head") < 6
    assert phases.count("all") >= 3


@pytest.mark.parametrize(("validation", "done"), [(1, 0), (2, 1)])
def test_train_interrupted_during_validation_records_whole_epochs_only(tmp_path: Path, validation: int, done: int) -> None:
    run, calls = make_run(tmp_path, EVERYTHING), []

    def interrupt(*_: object) -> None:
        if not torch.is_grad_enabled():  # one forward pass per validation
            calls.append(1)
            if len(calls) == validation:
                raise KeyboardInterrupt

    run.head.register_forward_pre_hook(interrupt)

    progress = train(run)

    assert (progress.epochs, progress.stopped, progress.logits is not None) == (done, True, bool(done))


def test_train_rejects_nan_validation_logits(tmp_path: Path) -> None:
    run = make_run(tmp_path, EVERYTHING)
    run.head.register_forward_hook(lambda *call: call[-1] if torch.is_grad_enabled() else call[-1] * torch.nan)

    with pytest.raises(TrainingError, match="logits are NaN or infinite in phase 'all'"):
        train(run)


def test_train_does_not_resume_a_phase_stopped_early(tmp_path: Path) -> None:
    hopeless = HEAD.model_copy(update={"head_lr": 1e-12, "epochs": 6})
    first = train(make_run(tmp_path, hopeless, patience_epochs=3))

    again = train(make_run(tmp_path, hopeless, patience_epochs=3))

    assert first.epochs < 6
    assert again.curves == first.curves


@pytest.mark.parametrize(
    ("losses", "best", "kept"),
    [
        ([0.9, 0.5, 0.28, 0.45, 0.30, 0.29], 3, 6),  # as good as the best: the schedule that ended there is the one to repeat
        ([0.9, 0.5, 0.28, 0.45, 0.33, 0.60], 3, 5),
        ([0.9, 0.5, 0.28, 0.70, 0.80, 0.90], 3, 3),
        ([0.9], 1, 1),
    ],
)
def test_kept_epoch_is_the_last_within_one_standard_error(losses: list[float], best: int, kept: int) -> None:
    progress = TrainingState(curves=[{"validation_loss": loss, "standard_error": 0.05} for loss in losses])

    assert (progress.best_epoch, progress.kept_epoch) == (best, kept)


@pytest.mark.parametrize(("metric", "kept"), [("accuracy", 2), ("log_loss", 2), ("balanced_accuracy", 1), ("macro_f1", 1)])
def test_kept_epoch_is_the_best_by_the_metric_that_is_asked_for(metric: Metric, kept: int) -> None:
    """The first epoch finds the rare class and 85% of the frequent one, the second only the frequent one."""
    labels = np.repeat([0, 1], [180, 20])
    first, second = np.where(np.arange(200) < 27, 1, labels), np.zeros_like(labels)
    weights = class_weights(Constraints(metric=metric), ("frequent", "rare"), labels)
    of_images = None if weights is None else weights[labels]

    rows = [validation_row(4 * np.eye(2, dtype=np.float32)[predicted], labels, of_images) for predicted in (first, second)]

    assert TrainingState(curves=rows).kept_epoch == kept


def test_validation_row_ignores_confidence() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 80)
    logits = (4 * np.eye(3)[labels] + rng.normal(size=(80, 3))).astype(np.float32)

    sure, unsure = validation_row(3 * logits, labels), validation_row(logits, labels)

    assert sure["validation_loss"] == pytest.approx(unsure["validation_loss"], rel=1e-3)
    assert sure["standard_error"] == pytest.approx(unsure["standard_error"], rel=1e-3)


def test_train_returns_weights_and_logits_of_the_kept_epoch(tmp_path: Path) -> None:
    run = make_run(tmp_path, EVERYTHING)
    assert run.validation is not None

    progress = train(run)

    assert progress.logits is not None
    kept = progress.curves[progress.kept_epoch - 1]
    right = progress.logits.argmax(axis=1) == run.validation.labels
    assert right.mean() == kept["validation_accuracy"]
    weights = {name: tensor for name, tensor in progress.kept_weights.items() if name.startswith("blocks.")}
    assert all(torch.equal(tensor, run.blocks.state_dict()[name.removeprefix("blocks.")]) for name, tensor in weights.items())


def test_inputs_cached_equal_running_the_frozen_blocks(tmp_path: Path) -> None:
    plain = {"augmentation": "none"}
    cached = make_run(tmp_path / "cached", TOP.model_copy(update=plain))
    whole = make_run(tmp_path / "whole", TOP.model_copy(update=plain | {"train_blocks": (0, 1, 2), "encoder_lr": 1e-2}))
    images = cached.train

    rows = PhaseTrainer(cached, 0, _network(cached)).inputs(np.arange(4), 0)
    pixels = PhaseTrainer(whole, 0, _network(whole)).inputs(np.arange(4), 0)

    with torch.no_grad():
        assert torch.allclose(rows, whole.blocks[:2].eval()(pixels), atol=2e-3), "half precision on disk"
    assert len(images) == 20


@pytest.mark.parametrize(
    "option",
    [
        {"weight_decay": 0.5},
        {"label_smoothing": 0.3},
        {"gradient_clip": 1e-3},
        {"batch_size": 5},
    ],
    ids=str,
)
def test_train_applies_every_recipe_option(tmp_path: Path, option: dict[str, object]) -> None:
    default = make_run(tmp_path / "default", EVERYTHING)
    other = make_run(tmp_path / "other", EVERYTHING)
    default, other = (replace(run, validation=None, checkpoints=None) for run in (default, other))
    other = replace(other, recipe=Recipe.model_validate(other.recipe.model_dump() | option))

    train(default)
    train(other)

    assert not same(weights(default.head), weights(other.head))


def _network(run: TrainingRun) -> nn.ModuleDict:
    return nn.ModuleDict({"blocks": run.blocks, "head": run.head})


SITUATION = Situation(
    num_images=100,
    num_classes=2,
    min_images_per_class=50,
    imbalance=1.0,
    num_blocks=9,
    feature_dim=8,
    image_side_px=32,
    similarity=1.0,
)


def learning_rates(phase: Phase, num_blocks: int) -> list[float]:
    """Learning rates of the head and of each block in the optimizer."""
    blocks, head = nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(num_blocks))), nn.Linear(2, 2, bias=False)
    recipe = Recipe(head=Head(), phases=(phase,))
    optimizer = make_optimizer(blocks, head, phase, recipe)
    return [group["lr"] for group in optimizer.param_groups]


def test_make_optimizer_applies_block_factors() -> None:
    phase = Phase(name="all", epochs=1, train_blocks=(0, 1, 2), head_lr=1.0, encoder_lr=0.5, block_factors=(0.01, 0.1, 1.0))

    assert learning_rates(phase, 3) == pytest.approx([1.0, 0.005, 0.05, 0.5])


def test_phase_rejects_block_factors_of_another_length() -> None:
    with pytest.raises(ValidationError, match="2 block_factors for 3 train_blocks"):
        Phase(name="all", epochs=1, train_blocks=(0, 1, 2), block_factors=(0.1, 1.0))


def test_discriminative_lr_gives_each_layer_group_one_rate() -> None:
    phase = DiscriminativeLr(groups=3, lr=1e-2, spread=1e4).recipe(SITUATION).phases[-1]

    assert learning_rates(phase, 9)[1:] == pytest.approx([1e-6] * 3 + [1e-4] * 3 + [1e-2] * 3)


def test_discriminative_lr_without_groups_gives_each_block_its_own_rate() -> None:
    whole, single = (DiscriminativeLr(groups=groups).recipe(SITUATION).phases[-1].block_factors for groups in (1, 0))

    assert whole == (1.0,) * 9
    assert single is not None
    assert sorted(set(single)) == pytest.approx([10 ** (-exponent / 4) for exponent in range(8, -1, -1)])


def test_full_finetune_scales_the_head_rate() -> None:
    phase = FullFinetune(lr=1e-3, head_factor=10, block_decay=1).recipe(SITUATION).phases[0]

    assert learning_rates(phase, 9) == pytest.approx([1e-2] + [1e-3] * 9)


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
def test_lr_factor_warms_up_peaks_at_one_and_decays(schedule: str) -> None:
    phase = Phase.model_validate({"name": "p", "epochs": 1, "schedule": schedule})
    factors = [lr_factor(phase, progress) for progress in np.linspace(0, 0.999, 200)]

    assert factors[0] < 0.1
    assert max(factors) == pytest.approx(1, abs=0.02)
    assert factors[-1] == pytest.approx(0, abs=0.02)
