"""What carrying out a recipe will cost, before it is carried out: seconds and memory from measured speeds."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf
from typing import Final

from automl_tl.models.engines import best_device
from automl_tl.training.budget import MIB_PER_PARAMETER, solving_s
from automl_tl.training.phase import MICRO_BATCH_ON_CPU
from automl_tl.training.speed import Speed, TrainingSpeed
from automl_tl.values import DatasetProfile, Phase, Recipe

__all__ = [
    "TIMING_S",
    "TrainingSeconds",
    "Workload",
    "least_seconds_of_training",
    "memory_mib",
    "seconds_of_probe",
    "seconds_of_training",
]

TIMING_S: Final = 2.5  # to load a network, compile it and time it, or its training steps
AUGMENT_S: Final = 0.003  # a view of one image of 224 px, on two cores
PROCESS_MIB: Final = 1150.0  # torch and OpenVINO imported, images looked at, a head solved
STEP_COPIES: Final = 2  # of what a step keeps: itself, and its gradients (benchmarks/results/strategies.md)
ADAM_COPIES: Final = 4  # weights, gradients, two moments


@dataclass(frozen=True)
class Workload:
    """How many images there are to learn from, to validate on and to measure on, and of how many classes."""

    num_train: int
    num_validation: int
    num_test: int
    num_classes: int

    @property
    def num_learning(self) -> int:
        """Images that the final model learns from."""
        return self.num_train + self.num_validation

    @classmethod
    def of(cls, profile: DatasetProfile, num_validation: int) -> Workload:
        """From a profile."""
        return cls(profile.num_images - num_validation, num_validation, profile.num_test_images, profile.num_classes)


@dataclass(frozen=True)
class TrainingSeconds:
    """What a recipe costs: until it is judged on the validation images, to train again on all, and then to be published.

    Training again is left out where time is short.
    """

    trial_s: float
    refit_s: float
    finish_s: float

    @property
    def least_s(self) -> float:
        """Without training again."""
        return self.trial_s + self.finish_s

    def within(self, left_s: float) -> float:
        """What it comes to with ``left_s`` seconds left."""
        whole_s = self.least_s + self.refit_s
        return whole_s if whole_s <= left_s else self.least_s


def seconds_of_probe(speed: Speed, work: Workload, *, feature_dim: int, num_cached: int, publishing_s: float) -> float:
    """From here to the published model with a solved head; ``num_cached`` images were solved for already, none if it is new."""
    missing = max(work.num_learning - num_cached, 0)
    head_s = solving_s(work.num_learning, feature_dim, work.num_classes) if missing else 0.0
    build_s = 0.0 if num_cached else TIMING_S
    return build_s + head_s + (missing + work.num_test) * max(speed.load_s, speed.forward_s) + publishing_s


def least_seconds_of_training(speed: Speed, work: Workload, *, publishing_s: float) -> float:
    """What no recipe can do without: timing its steps, each image once to learn from, features of the new weights."""
    num_seen = 2 * work.num_learning + work.num_test
    return TIMING_S + num_seen * max(speed.load_s, speed.forward_s) + publishing_s


def seconds_of_training(
    recipe: Recipe, speed: Speed, training: TrainingSpeed, work: Workload, *, feature_dim: int, publishing_s: float
) -> TrainingSeconds:
    """From measured speeds, for the network of ``speed`` and ``training``."""
    probes_s = [solving_s(count, feature_dim, work.num_classes) for count in (work.num_train, work.num_learning)]
    trial_s, refit_s = probes_s if recipe.pretrained else (0.0, 0.0)
    for number, phase in enumerate(recipe.phases):
        trial_s += _phase_s(phase, speed, training, work.num_train, work.num_validation)
        num_kept = work.num_train if _stays_as_it_was(recipe, number) else 0  # by the first time
        refit_s += _phase_s(phase, speed, training, work.num_learning, 0, num_kept=num_kept)
    features_s = (work.num_learning + work.num_test) * max(speed.load_s, speed.forward_s)  # of the new weights
    return TrainingSeconds(trial_s, refit_s if recipe.refit else 0.0, features_s + publishing_s)


def _stays_as_it_was(recipe: Recipe, number: int) -> bool:
    """Whether the frozen part of a phase is that of the pretrained network, so that what it gives is in the cache for long."""
    boundary = min(recipe.phases[number].train_blocks, default=inf)
    learned = (index for phase in recipe.phases[:number] for index in phase.train_blocks)
    return recipe.pretrained and all(index >= boundary for index in learned)


def _phase_s(
    phase: Phase, speed: Speed, training: TrainingSpeed, num_train: int, num_validation: int, *, num_kept: int = 0
) -> float:
    """Of ``num_train`` images ``num_kept`` have been through the frozen part already, in all views that are cached."""
    boundary = min(phase.train_blocks, default=len(training.forward_s))
    share = sum(training.forward_s[:boundary]) / max(sum(training.forward_s), 1e-9)
    in_front_s = share * speed.forward_s
    learning_s = sum(
        training.step_s[index] if index in phase.train_blocks else training.forward_s[index]
        for index in range(boundary, len(training.forward_s))
    )
    checking_s = phase.epochs * num_validation * sum(training.forward_s[boundary:])
    once_s = (num_train + num_validation - num_kept) * max(speed.load_s, in_front_s)
    if phase.augmentation == "none":
        return once_s + phase.epochs * num_train * learning_s + checking_s
    if phase.cached_views:
        views_s = (num_train - num_kept) * (phase.cached_views - 1) * (AUGMENT_S + in_front_s)
        return once_s + views_s + phase.epochs * num_train * learning_s + checking_s
    fresh_s = AUGMENT_S + sum(training.forward_s[:boundary])
    return once_s + phase.epochs * num_train * (fresh_s + learning_s) + checking_s


def memory_mib(recipe: Recipe, training: TrainingSpeed | None, num_parameters: int | None) -> float:
    """Peak memory of the process while the recipe is carried out."""
    weights_mib = (num_parameters or 0) * MIB_PER_PARAMETER
    if training is None or not recipe.phases:
        return ceil(PROCESS_MIB + 2 * weights_mib)
    kept_mib = max(sum(training.activations_mib[index] for index in phase.train_blocks) for phase in recipe.phases)
    at_once = min(recipe.batch_size, MICRO_BATCH_ON_CPU) if best_device().type == "cpu" else recipe.batch_size
    return ceil(PROCESS_MIB + ADAM_COPIES * weights_mib + STEP_COPIES * at_once * kept_mib)
