"""When to say "I don't know": a threshold on the confidence that keeps a promised error rate.

The promise, exactly: with ``confidence`` (95%) over the draw of the N images it is fitted on, at most ``max_error`` of
the answers given on new images from the same source are wrong. It holds for any model and any distribution, if those N
images took no part in training and are drawn like the new ones. It says nothing about images of another kind: these are
for ``strangers``.

Method: selective risk control after Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks" (2017), and
Angelopoulos et al., "Learn then Test" (2021). Sort the images by confidence. For each of a few fixed coverages let k images
lie strictly above the threshold, which is the next confidence. Given the threshold those k are independent draws from all
images above it, so the exact binomial (Clopper-Pearson) bound holds for the error rate there. The allowed risk of a wrong
promise is shared equally among the coverages that have enough images to pass at all (Bonferroni), and the largest coverage
that passes is taken.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import Field

from automl_tl.evaluation.arrays import FloatArray, IntArray, check_probabilities
from automl_tl.evaluation.intervals import clopper_pearson_upper, wilson
from automl_tl.runtime.formatting import percent, percent_range
from automl_tl.values import Fraction, Interval, Value

__all__ = ["Abstention", "images_needed", "keep_error_below", "smallest_promise"]

COVERAGES: Final = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)  # fixed beforehand: the promise needs that
CONFIDENCE: Final = 0.95


class Abstention(Value):
    """A promise about the answers, and what it costs. Answer if the probability is more than ``threshold``."""

    max_error: Fraction
    confidence: Fraction
    threshold: float = Field(description="0: every image is answered; absent promise: 1", ge=0, le=1)
    kept: bool = Field(description="false: with these images the promise can't be made, and nothing is answered")
    coverage: Fraction = Field(description="share of the images that are answered")
    coverage_interval: Interval
    num_images: int
    num_answered: int
    num_wrong: int = Field(description="among the answered")
    words: str


def keep_error_below(
    labels: IntArray, probabilities: FloatArray, max_error: float, *, confidence: float = CONFIDENCE
) -> Abstention:
    """The most generous threshold that keeps the error rate of the answers at most at ``max_error``.

    Deterministic. Images of equal confidence are answered together or not at all.

    Args:
        labels: ``(N,)``, class indices of images that took no part in training.
        probabilities: ``(N, C)``.
        max_error: promised share of wrong answers, 0 to 1, both excluded.
        confidence: in the promise.

    Raises:
        ValueError: ``max_error`` is no rate that can be promised.
    """
    if not 0 < max_error < 1:
        raise ValueError(f"{max_error} is no error rate that can be promised; expected more than 0 and less than 1.")
    exact = check_probabilities(np.asarray(labels), probabilities)
    found = _search(exact.max(axis=1), exact.argmax(axis=1) != labels, max_error, confidence)
    if found is None:
        return _no_promise(np.asarray(labels), exact, max_error, confidence)
    return _promise(max_error, confidence, *found)


def images_needed(max_error: float, *, confidence: float = CONFIDENCE, num_levels: int = 1) -> int:
    """Number of faultless answers from which on ``max_error`` can be promised: 59 for 5%, 299 for 1%."""
    return math.ceil(math.log((1 - confidence) / num_levels) / math.log(1 - max_error))


def smallest_promise(labels: IntArray, probabilities: FloatArray, *, confidence: float = CONFIDENCE) -> float | None:
    """The smallest rate, of 0.1% to 50% in steps of about 10%, that can be promised; ``None`` if none can."""
    exact = check_probabilities(np.asarray(labels), probabilities)
    sure, wrong = exact.max(axis=1), exact.argmax(axis=1) != labels
    rates = (math.ceil(1000 * rate) / 1000 for rate in np.geomspace(0.001, 0.5, 66))
    return next((rate for rate in rates if _search(sure, wrong, rate, confidence)), None)


def _testable(num_images: int, max_error: float, confidence: float) -> list[int]:
    """Numbers of answered images, largest first, of which each could pass if no answer were wrong."""
    counts = sorted({round(coverage * num_images) for coverage in COVERAGES}, reverse=True)
    while counts and counts[-1] < images_needed(max_error, confidence=confidence, num_levels=len(counts)):
        counts.pop()
    return counts


def _search(
    sure: FloatArray, wrong: npt.NDArray[np.bool_], max_error: float, confidence: float
) -> tuple[float, tuple[int, int, int]] | None:
    """Threshold and (images, answered, wrong among them) of the largest coverage that passes."""
    ranked = np.sort(sure)[::-1]
    levels = _testable(len(ranked), max_error, confidence)
    for count in levels:
        threshold = float(ranked[count]) if count < len(ranked) else 0.0
        answered = sure > threshold
        counts = len(sure), int(answered.sum()), int(wrong[answered].sum())
        if answered.any() and clopper_pearson_upper(counts[2], counts[1], 1 - (1 - confidence) / len(levels)) <= max_error:
            return threshold, counts
    return None


def _promise(max_error: float, confidence: float, threshold: float, counts: tuple[int, int, int]) -> Abstention:
    total, answered, mistakes = counts
    interval = wilson(answered, total)
    return Abstention(
        max_error=max_error,
        confidence=confidence,
        threshold=threshold,
        kept=True,
        coverage=answered / total,
        coverage_interval=interval,
        num_images=total,
        num_answered=answered,
        num_wrong=mistakes,
        words=(
            f"At most {percent(max_error)} of the answers on new images of the same kind are wrong ({percent(confidence)} "
            f"sure, from {total} images: {mistakes} of {answered} answers wrong). It costs coverage: "
            f"{percent(answered / total)} ({percent_range(interval)}) of the images get an answer, those with a "
            f"probability above {threshold:.4g}."
        ),
    )


def _no_promise(labels: IntArray, probabilities: FloatArray, max_error: float, confidence: float) -> Abstention:
    total = len(labels)
    smallest = smallest_promise(labels, probabilities, confidence=confidence)
    nearest = f"The smallest that can be is {percent(smallest)}" if smallest else "No smaller than 50% can be"
    return Abstention(
        max_error=max_error,
        confidence=confidence,
        threshold=1.0,
        kept=False,
        coverage=0.0,
        coverage_interval=(0.0, 1.0) if not total else wilson(0, total),
        num_images=total,
        num_answered=0,
        num_wrong=0,
        words=(
            f"At most {percent(max_error)} wrong answers can't be promised from {total} images: even a faultless model needs "
            f"{images_needed(max_error, confidence=confidence)} answered ones. {nearest}."
        ),
    )
