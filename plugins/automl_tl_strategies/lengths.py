"""Training lengths and expected gains of the built-in strategies: rules with their sources."""

from __future__ import annotations

from math import ceil

from automl_tl.contracts import Expectation, Situation

BATCH_SIZE = 32

# Steps of fine-tuning: 8 epochs, but at least 60 steps and at most 500 (BiT hyper-rule, arXiv 1912.11370, gives 500 below
# 20,000 images; the pilot study of decision 8 found 60 sufficient for 100 images).
EPOCHS, MIN_STEPS, MAX_STEPS = 8, 60, 500


def epochs_for(situation: Situation, *, times: float = 1.0) -> int:
    """Return the number of epochs by the BiT hyper-rule.

    Args:
        situation: gives the number of training images.
        times: as many steps as the rule says.
    """
    steps_per_epoch = max(1, ceil(situation.num_images / BATCH_SIZE))
    steps = min(max(EPOCHS * steps_per_epoch, MIN_STEPS), MAX_STEPS) * times
    return max(1, round(steps / steps_per_epoch))


def expected(situation: Situation, *, share: float, why: str) -> Expectation:
    """Return the expected accuracy gain of fine-tuning over a linear probe.

    ``(1 - probe accuracy) * clip(1 - 1.2 similarity, 0.05, 0.5) * k / (k + 8) * share`` with ``k`` images per class, and a
    standard deviation of 3 pp. Fitted by hand on 12 datasets, the shares on six, and rounded down (decision 40).

    Args:
        situation: facts about the images and the backbone.
        share: gain relative to the strategy ``tail``.
        why: reason to try the strategy, for the plan.
    """
    if situation.min_images_per_class < 3:
        return Expectation(suits=False, why="a class has fewer than 3 images, too few to fine-tune the encoder")
    if situation.probe_accuracy is None:
        return Expectation(suits=True, why=f"{why}; the gain is unknown without a linear probe")
    similarity = 0.5 if situation.similarity is None else situation.similarity
    k = situation.images_per_class
    gain = (1 - situation.probe_accuracy) * min(max(1 - 1.2 * similarity, 0.05), 0.5) * k / (k + 8) * share
    return Expectation(suits=True, gain=gain, gain_sd=0.03, why=why)
