"""Drift: whether new images still resemble the training images of a model, and which of them resemble them least."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from automl_tl.evaluation.intervals import wilson
from automl_tl.evaluation.reference_features import FALSE_ALARM_RATE, ReferenceFeatures, unit_length
from automl_tl.runtime.formatting import percent, percent_range
from automl_tl.values import Fraction, Interval, Value

NUM_PERMUTATIONS: Final = 999
MAX_COMPARED: Final = 500  # images of each side; the permutation test is quadratic
SIGNIFICANT: Final = 0.005  # for each of two tests: one false alarm in a hundred folders
NUM_EXAMPLES: Final = 9


class DriftExample(Value):
    """An image with one of the highest OOD scores."""

    path: str
    ood_score: float = Field(description="multiple of the threshold; above 1 is out of distribution")
    predicted: str


class Drift(Value):
    """A comparison of new images with the training images."""

    num_images: int
    num_training_images: int
    ood_fraction: Fraction = Field(description="share of out-of-distribution images")
    ood_interval: Interval
    expected_ood_fraction: Fraction = Field(description="share expected without drift")
    ood_p_value: Fraction = Field(description="probability of so many out-of-distribution images without drift")
    p_value: Fraction = Field(description="probability of features that differ so much without drift")
    mix: dict[str, tuple[float, float]] = Field(description="class -> share in training, share among the predictions")
    examples: tuple[DriftExample, ...] = Field(description="highest OOD score first")
    drifted: bool
    words: str


def estimate_drift(
    reference: ReferenceFeatures,
    features: NDArray[np.floating],
    predicted: NDArray[np.int64],
    paths: tuple[str, ...],
    classes: tuple[str, ...],
) -> Drift:
    """Return how new images, at least one, differ from the training images of a model. Deterministic.

    Two tests: are more images out of distribution than expected, and do the features differ as a whole (energy statistic,
    Szekely and Rizzo 2004; permutation test)? Drift is reported when either would happen by chance in fewer than one of 200
    folders of images like the training images.

    Args:
        reference: features of the training images.
        features: ``(N, D)`` of the new images.
        predicted: ``(N,)``, indices of the predicted classes.
        paths: N paths, shown with the examples.
        classes: names, in the order of the model's outputs.
    """
    # 1) Count the images that are out of distribution.
    scores = reference.ood_score(features)
    num_ood, num_images = int((scores > 1).sum()), len(paths)
    ood_p_value = _ood_p_value(reference, num_ood, num_images)
    # 2) Compare the features as a whole.
    p_value = _energy_p_value(reference.features, features, np.random.default_rng(0))
    # 3) Compare the shares of the classes.
    trained, shares = _class_shares(reference.labels, len(classes)), _class_shares(predicted, len(classes))
    mix = dict(zip(classes, zip(trained, shares, strict=True), strict=True))
    highest = np.argsort(-scores, kind="stable")[:NUM_EXAMPLES]
    return Drift(
        num_images=num_images,
        num_training_images=len(reference.labels),
        ood_fraction=num_ood / num_images,
        ood_interval=wilson(num_ood, num_images),
        expected_ood_fraction=FALSE_ALARM_RATE,
        ood_p_value=ood_p_value,
        p_value=p_value,
        mix=mix,
        examples=tuple(
            DriftExample(path=paths[row], ood_score=float(scores[row]), predicted=classes[predicted[row]]) for row in highest
        ),
        drifted=min(ood_p_value, p_value) <= SIGNIFICANT,
        words=_summary((num_ood, num_images), ood_p_value, p_value, mix),
    )


def _class_shares(labels: NDArray[np.integer], num_classes: int) -> list[float]:
    shares = np.bincount(labels, minlength=num_classes) / max(1, len(labels))
    return [float(share) for share in shares]


def _summary(counts: tuple[int, int], ood_p_value: float, p_value: float, mix: dict[str, tuple[float, float]]) -> str:
    fraction = counts[0] / counts[1]
    sentences = [
        f"{counts[0]} of {counts[1]} images are out of distribution ({percent(fraction)}, "
        f"95% CI {percent_range(wilson(*counts))}; about {percent(FALSE_ALARM_RATE)} expected without drift)."
    ]
    if ood_p_value <= SIGNIFICANT and fraction > 0.5:
        sentences.append("Most of the images are unlike the training images.")
    elif ood_p_value <= SIGNIFICANT:
        sentences.append("That is significantly more than expected.")
    if p_value <= SIGNIFICANT:
        sentences.append(f"The features differ as a whole from those of the training images (p = {p_value:.3f}).")
    name, (before, now) = max(mix.items(), key=lambda row: abs(row[1][1] - row[1][0]))
    low, high = wilson(round(now * counts[1]), counts[1])
    if not low <= before <= high:
        sentences.append(f"{name!r} is predicted for {percent(now)} of the images; its share in training is {percent(before)}.")
    if min(ood_p_value, p_value) <= SIGNIFICANT:
        return " ".join([*sentences, "Evaluate the model on some of these images before relying on it."])
    return " ".join([*sentences, "No significant drift."])


def _ood_p_value(reference: ReferenceFeatures, num_ood: int, num_images: int) -> float:
    """Return the probability of at least ``num_ood`` out-of-distribution images among images like the training images."""
    from scipy.stats import betabinom

    num_reference = len(reference.labels)  # M; the threshold is an order statistic of M scores, so the count is beta-binomial
    above = num_reference + 1 - math.ceil((num_reference + 1) * (1 - FALSE_ALARM_RATE))
    if above < 1 or num_ood == 0:
        return 1.0
    return float(betabinom.sf(num_ood - 1, num_images, above, num_reference + 1 - above))


def _energy_p_value(reference: NDArray[np.floating], features: NDArray[np.floating], generator: np.random.Generator) -> float:
    """Return the p-value of a permutation test of the energy statistic between the features ``(M, D)`` and ``(N, D)``."""
    # 1) Distances between all images of both sides, at most MAX_COMPARED of each.
    one, other = (side[generator.permutation(len(side))[:MAX_COMPARED]] for side in (reference, features))
    both = unit_length(np.concatenate([one.astype(np.float32), other.astype(np.float32)]))
    distances = np.sqrt(np.maximum(2 - 2 * both @ both.T, 0))
    # 2) The true assignment to sides in row 0, random ones below.
    side = np.zeros(len(both), dtype=np.float32)
    side[: len(one)] = 1
    sides = np.stack([side, *(generator.permutation(side) for _ in range(NUM_PERMUTATIONS))])
    # 3) The share of permutations at least as extreme.
    values = _energies(distances, sides)
    return float((1 + (values[1:] >= values[0]).sum()) / (1 + NUM_PERMUTATIONS))


def _energies(distances: NDArray[np.float32], sides: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return twice the mean distance between the sides minus those within them, for each row of ``sides`` ``(P, N)``."""
    a = sides / sides.sum(axis=1, keepdims=True)
    b = (1 - sides) / (1 - sides).sum(axis=1, keepdims=True)
    from_a, from_b = a @ distances, b @ distances
    return np.asarray((2 * from_a * b - from_a * a - from_b * b).sum(axis=1), dtype=np.float32)
