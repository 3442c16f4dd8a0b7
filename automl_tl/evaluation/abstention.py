"""Abstention: withhold predictions so that the error rate of the others stays below a guaranteed limit.

The guarantee: with 95% confidence over the draw of the N images it is fitted on, at most ``max_error`` of the answers on new
images from the same source are wrong. It holds for any model and distribution, if those images took no part in training.

Method: selective risk control (Geifman and El-Yaniv 2017; Angelopoulos et al., "Learn then Test", 2021). Images above the
threshold are independent draws from all such images, so the Clopper-Pearson bound holds for their error rate. The allowed risk
is divided equally among a few fixed coverages (Bonferroni), and the largest one that passes wins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from automl_tl.errors import UnsatisfiableConstraintsError
from automl_tl.evaluation.intervals import clopper_pearson_upper, wilson
from automl_tl.evaluation.metrics import check_probabilities
from automl_tl.evaluation.reference_features import ReferenceFeatures
from automl_tl.runtime.formatting import percent, percent_range
from automl_tl.values import Fraction, Interval, Value

COVERAGES: Final = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)  # fixed in advance, as the guarantee requires
CONFIDENCE: Final = 0.95
OUT_OF_DISTRIBUTION: Final = "out of distribution"  # how a reason to withhold a prediction starts

Decision = Literal["answered", "not sure", "unlike the training images"]


class ErrorGuarantee(Value):
    """A limit on the error rate and its coverage. Images with a probability above ``threshold`` are answered."""

    max_error: Fraction
    confidence: Fraction
    threshold: float = Field(description="0: every image is answered; 1: none, as there is no guarantee", ge=0, le=1)
    kept: bool = Field(description="false: these images can't support the guarantee, and every answer is withheld")
    coverage: Fraction = Field(description="share of the images that are answered")
    coverage_interval: Interval
    num_images: int
    num_answered: int
    num_wrong: int = Field(description="among the answered images")
    words: str


@dataclass(frozen=True)
class AbstentionPolicy:
    """When to withhold a prediction; without a guarantee and reference features, never."""

    guarantee: ErrorGuarantee | None = None
    reference: ReferenceFeatures | None = None

    def reasons(self, features: NDArray[np.float32], probabilities: NDArray[np.float32]) -> list[str | None]:
        """Return B reasons to withhold a prediction, ``None`` where it is given.

        Args:
            features: ``(B, D)``, the encoder's output.
            probabilities: ``(B, C)``, calibrated.
        """
        scores = self.reference.ood_score(features) if self.reference else np.zeros(len(features), dtype=np.float32)
        pairs = zip(scores.tolist(), probabilities.max(axis=1).tolist(), strict=True)
        return [self._reason(*pair) for pair in pairs]

    def _reason(self, ood_score: float, confidence: float) -> str | None:
        if ood_score > 1:
            return f"{OUT_OF_DISTRIBUTION} (OOD score {ood_score:.2f}, limit 1)"
        if self.guarantee is not None and confidence <= self.guarantee.threshold:
            needed, max_error = percent(self.guarantee.threshold), percent(self.guarantee.max_error)
            return f"confidence {percent(confidence)}, but an error rate of at most {max_error} requires more than {needed}"
        return None


ANSWER_ALWAYS: Final = AbstentionPolicy()


def decision_of(reason: str | None) -> Decision:
    """Return the decision that a reason to withhold a prediction stands for, in words for a person."""
    if reason is None:
        return "answered"
    return "unlike the training images" if reason.startswith(OUT_OF_DISTRIBUTION) else "not sure"


def make_policy(
    reference: ReferenceFeatures | None, held_out: tuple[NDArray[np.int64], NDArray[np.float32]], max_error: float | None
) -> AbstentionPolicy:
    """Return a policy that withholds predictions for OOD images and keeps ``max_error``.

    Args:
        reference: of the training images, if the model has them.
        held_out: labels ``(N,)`` and calibrated probabilities ``(N, C)`` of images that the model didn't train on.
        max_error: largest share of wrong answers; ``None``: only OOD images are withheld.

    Raises:
        UnsatisfiableConstraintsError: these images can't support the guarantee.
    """
    if max_error is None:
        return AbstentionPolicy(None, reference)
    guarantee = guarantee_error_rate(*held_out, max_error)
    if not guarantee.kept:
        smallest = smallest_error_rate(*held_out)
        advice = f"Try --max-error {100 * smallest:.1f}%." if smallest else "Evaluate the model on more labeled images."
        raise UnsatisfiableConstraintsError(f"--max-error {100 * max_error:g}%", f"{guarantee.words} {advice}")
    return AbstentionPolicy(guarantee, reference)


def guarantee_error_rate(labels: NDArray[np.integer], probabilities: NDArray[np.floating], max_error: float) -> ErrorGuarantee:
    """Return the guarantee with the largest coverage; ``kept`` is false if these images can't support ``max_error``.

    Args:
        labels: ``(N,)`` class indices of images that took no part in training.
        probabilities: ``(N, C)``, calibrated; images of equal confidence are answered together or not at all.
        max_error: largest share of wrong answers.

    Raises:
        ValueError: ``max_error`` is not between 0 and 1.
    """
    if not 0 < max_error < 1:
        raise ValueError(f"Error rate {max_error} can't be guaranteed; expected more than 0 and less than 1.")
    fitted = _search(*_confidences(labels, probabilities), max_error)
    threshold, num_answered, num_wrong = fitted or (1.0, 0, 0)
    interval = wilson(num_answered, len(labels))
    coverage = num_answered / max(1, len(labels))
    if fitted:
        words = (
            f"At most {percent(max_error)} of the answers on new images from the same source are wrong "
            f"({percent(CONFIDENCE)} confidence; {num_wrong} of {num_answered} answers wrong, {len(labels)} held-out images). "
            f"Coverage {percent(coverage)} ({percent_range(interval)}): images with a probability above "
            f"{threshold:.4g} are answered."
        )
    else:
        smallest = smallest_error_rate(labels, probabilities)
        alternative = f"The smallest rate possible is {percent(smallest)}" if smallest else "Not even 50% is possible"
        words = (
            f"An error rate of at most {percent(max_error)} can't be guaranteed from {len(labels)} images: "
            f"even a perfect model needs {num_images_needed(max_error)} answers. {alternative}."
        )
    return ErrorGuarantee(
        max_error=max_error,
        confidence=CONFIDENCE,
        threshold=threshold,
        kept=fitted is not None,
        coverage=coverage,
        coverage_interval=interval,
        num_images=len(labels),
        num_answered=num_answered,
        num_wrong=num_wrong,
        words=words,
    )


def num_images_needed(max_error: float, *, num_levels: int = 1) -> int:
    """Return the number of error-free answers from which ``max_error`` can be guaranteed: 59 for 5%, 299 for 1%.

    Args:
        max_error: largest share of wrong answers.
        num_levels: coverages among which the risk is divided.
    """
    return math.ceil(math.log((1 - CONFIDENCE) / num_levels) / math.log(1 - max_error))


def smallest_error_rate(labels: NDArray[np.integer], probabilities: NDArray[np.floating]) -> float | None:
    """Return the smallest error rate that can be guaranteed, from 0.1% to 50% in steps of about 10%, or ``None``.

    Args:
        labels: ``(N,)`` class indices of images that took no part in training.
        probabilities: ``(N, C)``, calibrated.
    """
    confidences, wrong = _confidences(labels, probabilities)
    rates = (math.ceil(1000 * rate) / 1000 for rate in np.geomspace(0.001, 0.5, 66))
    return next((rate for rate in rates if _search(confidences, wrong, rate)), None)


def _confidences(
    labels: NDArray[np.integer], probabilities: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the confidence of each prediction, and whether it is wrong."""
    normalized = check_probabilities(np.asarray(labels), probabilities)
    return normalized.max(axis=1), normalized.argmax(axis=1) != labels


def _search(confidences: NDArray[np.float64], wrong: NDArray[np.bool_], max_error: float) -> tuple[float, int, int] | None:
    """Return threshold, number of answers and of wrong ones for the largest coverage that passes."""
    # 1) Rank the images and keep the coverages that would pass if no answer were wrong.
    ranked = np.sort(confidences)[::-1]
    counts = sorted({round(coverage * len(ranked)) for coverage in COVERAGES}, reverse=True)
    while counts and counts[-1] < num_images_needed(max_error, num_levels=len(counts)):
        counts.pop()
    for count in counts:
        # 2) The threshold is the first confidence that is not answered.
        threshold = float(ranked[count]) if count < len(ranked) else 0.0
        answered = confidences > threshold
        num_answered, num_wrong = int(answered.sum()), int(wrong[answered].sum())
        # 3) Exact upper bound on the error rate above it, at an equal share of the allowed risk.
        level = 1 - (1 - CONFIDENCE) / len(counts)
        if num_answered and clopper_pearson_upper(num_wrong, num_answered, level) <= max_error:
            return threshold, num_answered, num_wrong
    return None
