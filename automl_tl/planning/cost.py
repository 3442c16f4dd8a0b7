"""Predict what a recipe costs before it is run: seconds and memory, from measured speeds; and cheaper variants of a recipe.

``Workload`` holds the numbers of images, ``TrainingCost`` the seconds of a recipe. No image and no network is touched here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil, inf
from typing import Final, NamedTuple

from automl_tl.contracts import Expectation
from automl_tl.models.engines import best_device
from automl_tl.training.closed_form import MAX_RANK, solving_s
from automl_tl.training.loop import MICRO_BATCH_ON_CPU
from automl_tl.training.speed import Speed, TrainingSpeed
from automl_tl.training.workspace import MIB_PER_PARAMETER
from automl_tl.values import Phase, Recipe

TIMING_S: Final = 2.5  # to load a network, compile it and time it, or its training steps
AUGMENT_S: Final = 0.003  # one augmented view of a 224 px image, on two cores
PROCESS_MIB: Final = 1150.0  # torch and OpenVINO imported, features extracted, a head fitted
LEVELS_MIB: Final = (
    170.0  # per backbone with multi-level features: its engine's outputs and rows; fitted to sign_digits (decision 65)
)
FEATURES_COPIES: Final = 2  # of wide features, in memory while their head is fitted
SPAN_COPIES: Final = 3  # of up to MAX_RANK rows of them, in float64: landmarks, basis, product
STEP_COPIES: Final = 2  # activations of a step and their gradients (benchmarks/results/strategies.md)
ADAM_COPIES: Final = 3  # gradients, two moments
AVERAGE_MIB: Final = 350.0  # a trained network and its partner compiled after training; measured on pacs_cartoon
STARTUP_S: Final = 5.0  # of a training process, if importing torch was not timed: torch and CUDA on an H200 (decision 44)
SYNC_MIB_PER_S: Final = 2000.0  # gradients added up over PCI Express, at a fifth of its bandwidth; NVLink is faster
MAX_SHARE: Final = 0.9  # of a fit's seconds that several processes may take: each holds a GPU and a copy of the network


@dataclass(frozen=True)
class Workload:
    """Numbers of images per split, and of classes."""

    num_train: int
    num_validation: int
    num_test: int
    num_classes: int

    @property
    def num_learning(self) -> int:
        """Images that the final model learns from."""
        return self.num_train + self.num_validation


@dataclass(frozen=True)
class TrainingCost:
    """Seconds of a recipe."""

    trial_s: float  # until it is evaluated on the validation images
    refit_s: float  # to train again on training and validation images; skipped if time is short
    finish_s: float  # to evaluate and publish
    steps_s: float = 0.0  # part of the trial that several processes could share
    processes: int = 1  # that train
    processes_reason: str = ""  # why so many, where there is a choice

    @property
    def min_s(self) -> float:
        """Seconds without the refit."""
        return self.trial_s + self.finish_s

    def within(self, left_s: float) -> float:
        """Seconds with the refit if it fits into ``left_s``, else without it."""
        total_s = self.min_s + self.refit_s
        return total_s if total_s <= left_s else self.min_s


class ProbeCost(NamedTuple):
    """Predicted seconds to probe one more backbone."""

    features_s: float  # of the features of the sample
    total_s: float  # until the backbone is published with a closed-form head
    budget_s: float  # from now, that has time for it


def time_short(needed_s: float, left_s: float) -> str:
    """Return the text for a lack of time, rounded so that the two numbers never look equal.

    Args:
        needed_s: seconds that it takes.
        left_s: seconds of the budget left.
    """
    return f"{ceil(needed_s)} s; {int(max(left_s, 0))} s left"


def seconds_of_probe(speed: Speed, work: Workload, *, feature_dim: int, num_cached: int, publishing_s: float) -> float:
    """Return the predicted seconds from now to a published model with a closed-form head.

    Args:
        speed: of the backbone.
        work: numbers of images.
        feature_dim: width of the features.
        num_cached: images whose features are cached and solved for; 0: the backbone has not been loaded yet.
        publishing_s: seconds to publish.
    """
    num_missing = max(work.num_learning - num_cached, 0)
    head_s = solving_s(work.num_learning, feature_dim, work.num_classes) if num_missing else 0.0
    build_s = 0.0 if num_cached else TIMING_S
    return build_s + head_s + (num_missing + work.num_test) * speed.image_s + publishing_s


def seconds_on_slots(
    speed: Speed, num_images: int, *, num_slots: int, serial_s: float, start_s: float, num_cores_timed: int | None
) -> float:
    """Return the predicted wall time of a fit whose features are extracted on slots; formula in docs/capacity.md.

    Args:
        speed: of the backbone, measured on this machine.
        num_images: whose features are missing.
        num_slots: CPU cores or GPUs.
        serial_s: what this machine does alone: heads, training, evaluating, publishing.
        start_s: until a new process of a slot can work.
        num_cores_timed: cores that ``speed`` was measured on, if a slot is a core; ``None``: a slot is a GPU such as here.
    """
    if num_images == 0:
        return serial_s
    if num_cores_timed is None:
        image_s = max(speed.load_s, speed.forward_s)
    else:  # a core decodes and computes in turn
        image_s = (speed.load_s + speed.forward_s) * num_cores_timed
    return start_s + num_images * image_s / num_slots + serial_s


def training_cost(
    recipe: Recipe, speed: Speed, training: TrainingSpeed, work: Workload, *, feature_dim: int, publishing_s: float
) -> TrainingCost:
    """Return the predicted seconds of ``recipe``, from measured speeds.

    Args:
        recipe: to carry out.
        speed: of inference, as a whole.
        training: speed of each block.
        work: numbers of images.
        feature_dim: width of the features.
        publishing_s: seconds to publish.
    """
    # 1) Linear probes for comparison, one per fit; random weights have none.
    probe_s, refit_probe_s = (solving_s(count, feature_dim, work.num_classes) for count in (work.num_train, work.num_learning))
    trial_s, refit_s, shared_s = (probe_s, refit_probe_s, 0.0) if recipe.pretrained else (0.0, 0.0, 0.0)
    # 2) The phases. The refit reuses cached activations of the training images where the frozen blocks are unchanged.
    for number, phase in enumerate(recipe.phases):
        rest_s, steps_s = _phase_s(phase, speed, training, work.num_train, work.num_validation)
        trial_s += rest_s + steps_s
        shared_s += steps_s if phase.batch_norm == "frozen" else 0.0
        num_cached = work.num_train if _is_prefix_pretrained(recipe, number) else 0
        refit_s += sum(_phase_s(phase, speed, training, work.num_learning, 0, num_cached=num_cached))
    # 3) Features of all images under the new weights, for the reference data and the test.
    features_s = (work.num_learning + work.num_test) * speed.image_s
    return TrainingCost(trial_s, refit_s if recipe.refit else 0.0, features_s + publishing_s, shared_s)


def cost_in_processes(
    cost: TrainingCost, recipe: Recipe, work: Workload, *, processes: int, size_mib: float, startup_s: float
) -> TrainingCost:
    """Return the predicted seconds of ``recipe`` in several processes, each with a GPU of its own.

    Args:
        cost: in one process.
        recipe: to carry out.
        work: numbers of images.
        processes: that train.
        size_mib: of the network, whose gradients are added up in every step.
        startup_s: seconds until a new process has imported torch.
    """
    epochs = sum(phase.epochs for phase in recipe.phases if phase.batch_norm == "frozen")
    sync_s = epochs * work.num_train / recipe.batch_size * size_mib / SYNC_MIB_PER_S
    saved_s = cost.steps_s * (1 - 1 / processes) - sync_s
    refit_saved_s = saved_s * work.num_learning / max(work.num_train, 1) - startup_s if recipe.refit else 0.0
    trial_s, refit_s = cost.trial_s - saved_s + startup_s, cost.refit_s - refit_saved_s
    return replace(cost, trial_s=trial_s, refit_s=refit_s, processes=processes)


def cheaper_cost(one: TrainingCost, several: TrainingCost) -> TrainingCost:
    """Return the cost in several processes if they save enough, else the cost in one, with the reason.

    Args:
        one: in one process.
        several: in one process per GPU.
    """
    one_s, several_s = one.trial_s + one.refit_s, several.trial_s + several.refit_s
    seconds = f"training is expected to take {several_s:.0f} s in {several.processes} processes, one per GPU"
    if several_s + several.finish_s < MAX_SHARE * (one_s + one.finish_s):
        return replace(several, processes_reason=f"{seconds}, and {one_s:.0f} s in one")
    return replace(one, processes_reason=f"one process trains: {seconds}, and {one_s:.0f} s in one")


def _is_prefix_pretrained(recipe: Recipe, number: int) -> bool:
    """Return whether the frozen blocks of a phase still have pretrained weights, so that their activations stay cached."""
    boundary = min(recipe.phases[number].train_blocks, default=inf)
    trained_before = (index for phase in recipe.phases[:number] for index in phase.train_blocks)
    return recipe.pretrained and all(index >= boundary for index in trained_before)


def _phase_s(
    phase: Phase, speed: Speed, training: TrainingSpeed, num_train: int, num_validation: int, *, num_cached: int = 0
) -> tuple[float, float]:
    """Predict the seconds of a phase, without its steps and of its steps, which several processes could share.

    Activations of ``num_cached`` of the ``num_train`` images are cached, in all views.
    """
    # 1) Per image: the frozen blocks in the inference engine, the others in PyTorch, forward and backward.
    boundary = min(phase.train_blocks, default=len(training.forward_s))
    frozen_share = sum(training.forward_s[:boundary]) / max(sum(training.forward_s), 1e-9)
    frozen_s = frozen_share * speed.forward_s
    step_s = sum(
        training.step_s[index] if index in phase.train_blocks else training.forward_s[index]
        for index in range(boundary, len(training.forward_s))
    )
    # 2) Once: activations of the frozen blocks. Every epoch: steps and validation.
    validation_s = phase.epochs * num_validation * sum(training.forward_s[boundary:])
    once_s = (num_train + num_validation - num_cached) * max(speed.load_s, frozen_s)
    # 3) Augmentation: none, views cached once, or fresh views that pass the frozen blocks in every epoch.
    steps_s = phase.epochs * num_train * step_s
    if phase.augmentation == "none":
        return once_s + validation_s, steps_s
    if phase.cached_views:
        views_s = (num_train - num_cached) * (phase.cached_views - 1) * (AUGMENT_S + frozen_s)
        return once_s + views_s + validation_s, steps_s
    fresh_view_s = AUGMENT_S + sum(training.forward_s[:boundary])
    return once_s + validation_s, steps_s + phase.epochs * num_train * fresh_view_s


def memory_mib(num_parameters: int | None) -> float:
    """Return the predicted peak memory in MiB of a process that extracts features and fits a head.

    Args:
        num_parameters: of the backbone; ``None``: unknown.
    """
    return ceil(PROCESS_MIB + 2 * (num_parameters or 0) * MIB_PER_PARAMETER)


def training_mib(recipe: Recipe, training: TrainingSpeed, num_parameters: int | None) -> float:
    """Return the predicted memory in MiB that training adds; what planning has used is not given back.

    Args:
        recipe: to carry out.
        training: activations of each block.
        num_parameters: of the backbone; ``None``: unknown.
    """
    stored_mib = max(sum(training.activations_mib[index] for index in phase.train_blocks) for phase in recipe.phases)
    num_at_once = min(recipe.batch_size, MICRO_BATCH_ON_CPU) if best_device().type == "cpu" else recipe.batch_size
    weights_mib = (num_parameters or 0) * MIB_PER_PARAMETER
    return ceil(ADAM_COPIES * weights_mib + STEP_COPIES * num_at_once * stored_mib)


def levels_mib(num_backbones: int, num_images: int, feature_dim: int) -> float:
    """Return the predicted memory in MiB that probing and fitting multi-level features adds to the process.

    Args:
        num_backbones: that are probed with their levels; 0: none.
        num_images: that the head learns from.
        feature_dim: width of the features.
    """
    if not num_backbones:
        return 0.0
    values = FEATURES_COPIES * num_images * feature_dim * 4 + SPAN_COPIES * min(num_images, MAX_RANK) * feature_dim * 8
    return num_backbones * LEVELS_MIB + values / 2**20


# Shares of the epochs that a tight budget leaves, each with the share of the expected gain that it is assumed to keep, between
# those of the trained model and of its average with the probe (decision 75).
SHORTENINGS: Final[tuple[tuple[float, float, str], ...]] = (
    (2 / 3, 0.9, "two thirds of the epochs"),
    (1 / 2, 0.7, "half of the epochs"),
    (1 / 3, 0.5, "a third of the epochs"),
)


def recipe_variants(recipe: Recipe, expectation: Expectation) -> Iterator[tuple[Recipe, Expectation]]:
    """Yield ``recipe`` as it is, then shortened variants for tight budgets; the refit is dropped before any of these.

    Args:
        recipe: of a strategy.
        expectation: of the full recipe; each variant keeps a share of its gain.
    """
    yield recipe, expectation
    for epoch_share, gain_share, description in SHORTENINGS:
        update = {
            "gain": min(expectation.gain, gain_share * expectation.gain),  # a loss stays as it is
            "why": f"{expectation.why}; shortened to fit the budget: {description}",
        }
        phases = tuple(phase.model_copy(update={"epochs": ceil(epoch_share * phase.epochs)}) for phase in recipe.phases)
        yield recipe.model_copy(update={"phases": phases}), expectation.model_copy(update=update)
