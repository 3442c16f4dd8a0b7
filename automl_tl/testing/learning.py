"""Checks on what a strategy does: its recipe is carried out on the toy task by the real trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from automl_tl.testing.subjects import StrategySubject
from automl_tl.testing.toy import CLASSES, NUM_IMAGES, toy_images
from automl_tl.testing.trials import brief, toy_catalog
from automl_tl.testing.verdicts import CheckFailed, NotApplicable, require

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

__all__ = ["LEARNING_CHECKS"]

# Guessing gets 1 of 3 right; 55% of 60 test images or more happens to a guesser in 1 of 3000 runs (binomial).
LEAST_ACCURACY: Final = 0.55


def learns_the_toy_task(subject: StrategySubject) -> None:
    """After training, it recognizes three kinds of pictures clearly better than by guessing."""
    subject.trials.recipe  # noqa: B018 - no recipe: this check could not start
    accuracy = subject.trials.accuracy()
    num_images = NUM_IMAGES["test"] * len(CLASSES)
    text = f"{100 * accuracy:.0f}% of {num_images} test images are right, guessing gives {100 / len(CLASSES):.0f}%"
    require(accuracy >= LEAST_ACCURACY, f"{text}, expected are {100 * LEAST_ACCURACY:.0f}%: are its rates or epochs too low?")


def frozen_blocks_stay(subject: StrategySubject) -> None:
    """Blocks that no phase trains are the same afterwards, bit by bit."""
    trials = subject.trials
    _require_phases(subject)
    learning = {index for phase in trials.recipe.phases for index in phase.train_blocks}
    frozen = [index for index in range(len(trials.straight.blocks)) if index not in learning]
    changed = [index for index in frozen if _changed(trials.straight.before, trials.straight.blocks.state_dict(), index)]
    require(not changed, f"blocks {changed} changed, though no phase trains them")


def learning_blocks_change(subject: StrategySubject) -> None:
    """Blocks that a phase trains are different afterwards."""
    trials = subject.trials
    _require_phases(subject)
    learning = sorted({index for phase in trials.recipe.phases for index in phase.train_blocks})
    if not learning:
        raise NotApplicable("no phase trains a block, the head alone learns")
    after = trials.straight.blocks.state_dict()
    same = [index for index in learning if not _changed(trials.straight.before, after, index)]
    require(not same, f"blocks {same} are said to learn, but not one bit changed: is their learning rate too low?")


def same_seed_same_weights(subject: StrategySubject) -> None:
    """Trained twice with one seed, it gives the same weights, bit by bit."""
    _require_phases(subject)
    _require_same(subject.trials.straight.after, subject.trials.briefly("again").after, "trained twice with one seed")


def resumed_equals_straight(subject: StrategySubject) -> None:
    """Cut off after the first epoch and resumed from the checkpoint, it gives the same weights as in one go."""
    from automl_tl.training.checkpoints import Checkpoint, Checkpoints

    class CutOff(Exception):
        pass

    class OneOnly(Checkpoints):
        def save(self, checkpoint: Checkpoint) -> None:
            super().save(checkpoint)
            raise CutOff

    _require_phases(subject)
    trials = subject.trials
    folder = trials.workspace("checkpoints").folder
    try:
        trials.briefly("cut off", checkpoints=OneOnly(folder, "run", every_s=0.0))
    except CutOff:
        resumed = trials.briefly("resumed", checkpoints=Checkpoints(folder, "run", every_s=0.0))
    else:
        raise CheckFailed("the trainer wrote no checkpoint")
    _require_same(trials.straight.after, resumed.after, "cut off after one epoch and resumed")


def saved_equals_trained(subject: StrategySubject) -> None:
    """The model, loaded from its files, predicts exactly what the trained one predicts."""
    import torch

    from automl_tl.models.bundle import load_bundle

    fitted = subject.trials.fit(brief(subject.trials.recipe), "saved")
    loaded = load_bundle(fitted.result.encoder_file, fitted.result.head_file, toy_catalog())
    features = torch.from_numpy(fitted.encoder.plain(toy_images()["test"]).all())
    largest = float((loaded.probabilities(features) - fitted.classifier.probabilities(features)).abs().max())
    require(largest == 0, f"probabilities of the loaded model differ by up to {largest:.1e}")


def learns_on_a_gpu(subject: StrategySubject) -> None:
    """On a CUDA device the brief recipe runs to its end with weights that are numbers."""
    import torch

    _require_phases(subject)
    if not torch.cuda.is_available():
        raise NotApplicable("this machine has no CUDA device")
    trained = subject.trials.briefly("gpu", on_gpu=True)
    broken = [name for name, tensor in trained.after.items() if not torch.isfinite(tensor.float()).all()]
    require(not broken, f"{', '.join(broken)} are no numbers any more")


def _require_phases(subject: StrategySubject) -> None:
    if not subject.trials.recipe.phases:
        raise NotApplicable("its recipe has no phase: the head is solved, nothing is trained in steps")


def _changed(before: Mapping[str, Tensor], after: Mapping[str, Tensor], index: int) -> bool:
    names = [name for name in before if name.partition(".")[0] == str(index)]
    return any(not before[name].equal(after[name].cpu()) for name in names)


def _require_same(straight: Mapping[str, Tensor], other: Mapping[str, Tensor], how: str) -> None:
    different = [name for name, tensor in straight.items() if not tensor.equal(other[name])]
    few = ", ".join(different[:4])
    require(
        not different, f"{how}, {len(different)} of {len(straight)} tensors differ ({few}): what is random without the seed?"
    )


LEARNING_CHECKS = (
    learns_the_toy_task,
    frozen_blocks_stay,
    learning_blocks_change,
    same_seed_same_weights,
    resumed_equals_straight,
    saved_equals_trained,
    learns_on_a_gpu,
)
