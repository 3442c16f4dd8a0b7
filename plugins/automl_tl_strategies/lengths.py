"""How long the strategies train, and what they may hope for: rules with their source, shared by the pages beside this one."""

from __future__ import annotations

from math import ceil

from automl_tl.contracts import Expectation, Situation

__all__ = ["BATCH_SIZE", "epochs_for", "expected", "top_blocks"]

BATCH_SIZE = 32

# Steps of fine-tuning: 8 epochs, but at least 60 steps and at most 500 (BiT hyper-rule, arXiv 1912.11370, gives 500 below
# 20,000 images; the pilot in DECISIONS 8 found 60 to be enough for a hundred).
EPOCHS, FEWEST_STEPS, MOST_STEPS = 8, 60, 500


def epochs_for(situation: Situation, *, times: float = 1.0) -> int:
    """Epochs of ``BATCH_SIZE`` images; ``times`` scales the rule."""
    steps_per_epoch = max(1, ceil(situation.num_images / BATCH_SIZE))
    steps = min(max(EPOCHS * steps_per_epoch, FEWEST_STEPS), MOST_STEPS) * times
    return max(1, round(steps / steps_per_epoch))


def top_blocks(situation: Situation, fraction: float) -> tuple[int, ...]:
    """Indices of the blocks nearest the head that make up ``fraction`` of all, at least one."""
    count = max(1, round(situation.num_blocks * fraction))
    return tuple(range(situation.num_blocks - count, situation.num_blocks))


def expected(situation: Situation, *, share: float, why: str) -> Expectation:
    """What moving the encoder is expected to gain over a linear probe, scaled by ``share``.

    ``(1 - probe accuracy) * clip(1 - 1.2 similarity, 0.05, 0.5) * k / (k + 8)``, k images per class: fitted by hand on 12
    sets, the shares on six, and a little less than they say (DECISIONS 40); standard deviation 3 points.
    """
    if situation.min_images_per_class < 3:
        return Expectation(suits=False, why="a class has fewer than 3 images: too few to move the encoder")
    if situation.probe_accuracy is None:
        return Expectation(suits=True, why=f"{why}; what it gains is not known before a probe")
    similarity = 0.5 if situation.similarity is None else situation.similarity
    k = situation.images_per_class
    gain = (1 - situation.probe_accuracy) * min(max(1 - 1.2 * similarity, 0.05), 0.5) * k / (k + 8) * share
    return Expectation(suits=True, gain=gain, gain_sd=0.03, why=why)
