"""Learning curve: the accuracy that more images would bring, from a linear head on nested subsets of cached features.

It extrapolates to twice the images and no further, as power laws from few images are far off (Jain et al., arXiv 2303.01598).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from automl_tl.evaluation.reference_features import unit_length
from automl_tl.values import Interval, Value

FRACTIONS: Final = (0.125, 0.25, 0.5, 1.0)
NUM_DRAWS: Final = 12
HELD_OUT: Final = 0.2
MAX_IMAGES: Final = 1200  # with more it is slow (cubic) and the curve flat
MIN_IMAGES: Final = 24
MIN_IMAGES_PER_CLASS: Final = 4
MAX_STRENGTH_IMAGES: Final = 600
MAX_CLASS_GAINS: Final = 3
MIN_GAIN: Final = 0.01  # smaller gains are not mentioned
STRENGTHS: Final = np.logspace(-2, 2, 13)

Indices = NDArray[np.integer]
Draw = tuple[Indices, Indices]  # rows to train on, shuffled, and rows held out


class LearningPoint(Value):
    """Accuracy of a head trained on ``num_images``; interval: the middle 90% of the draws."""

    num_images: int
    accuracy: float
    interval: Interval


class ClassGain(Value):
    """Expected gain in the recall of one class from twice its images (0.03 is 3 percentage points)."""

    label: str
    more_images: int
    gain: float
    interval: Interval
    words: str


class LearningCurve(Value):
    """Measured points and the expected gain in accuracy from ``more_images`` additional images."""

    points: tuple[LearningPoint, ...]
    more_images: int
    gain: float
    interval: Interval
    by_class: tuple[ClassGain, ...] = ()
    words: str


@dataclass(frozen=True)
class _KernelRidge:
    """Ridge head on N fixed images."""

    products: NDArray[np.float64]  # (N, N), inner products of the centered features
    labels: Indices  # (N,)
    strength: float  # of the ridge penalty

    def correct(self, train: Indices, held_out: Indices) -> NDArray[np.bool_]:
        """Return whether each of the ``held_out`` rows is predicted correctly by a head trained on the rows ``train``."""
        from sklearn.kernel_ridge import KernelRidge
        from sklearn.preprocessing import KernelCenterer

        # 1) One-hot targets minus the class shares; with both sides centered the ridge needs no intercept.
        present, index = np.unique(self.labels[train], return_inverse=True)
        targets, centerer = np.eye(len(present))[index], KernelCenterer()
        shares = targets.mean(axis=0)
        # 2) Solve in the kernel: as many unknowns as training rows, whatever the feature dimension.
        products = centerer.fit_transform(self.products[np.ix_(train, train)])
        model = KernelRidge(alpha=self.strength, kernel="precomputed").fit(products, targets - shares)
        # 3) Predict the class with the highest score.
        scores = model.predict(centerer.transform(self.products[np.ix_(held_out, train)])) + shares
        return np.asarray(present[scores.argmax(axis=1)] == self.labels[held_out])


def learning_curve(features: NDArray[np.floating], labels: Indices, classes: tuple[str, ...]) -> LearningCurve | None:
    """Return the learning curve of a ridge head; ``None`` with under 24 images, one class, or a class of under 4 images.

    Args:
        features: ``(N, D)``.
        labels: ``(N,)`` class indices.
        classes: names of the classes.
    """
    labels = np.asarray(labels)
    counts = np.bincount(labels, minlength=len(classes))
    if len(labels) < MIN_IMAGES or counts[counts > 0].min() < MIN_IMAGES_PER_CLASS or (counts > 0).sum() < 2:
        return None
    # 1) Sample the images and choose the ridge penalty.
    generator = np.random.default_rng(0)
    rows = generator.permutation(len(labels))[:MAX_IMAGES]
    ridge = _kernel_ridge(features[rows], labels[rows])
    # 2) Each draw holds out a fifth of the images and trains on nested subsets of the rest.
    draws = [_draw(len(rows), generator) for _ in range(NUM_DRAWS)]
    correct = [[ridge.correct(train[: max(2, round(part * len(train)))], out) for part in FRACTIONS] for train, out in draws]
    errors = np.array([[1 - float(subset.mean()) for subset in row] for row in correct])
    sizes = np.array([round(fraction * np.mean([len(train) for train, _ in draws])) for fraction in FRACTIONS])
    # 3) A power law through the last three errors of each draw gives its gain; the spread over draws gives the interval.
    gains = np.array([_gain(sizes[-3:], row[-3:], len(labels)) for row in errors])
    gain, interval = float(gains.mean()), _middle(gains)
    # 4) The same for the classes with the lowest recall.
    by_class = _class_gains(ridge, draws, [row[-1] for row in correct], classes)
    words = (
        f"Expected gain from {len(labels)} more images with the same class shares: {_points(gain)} pp "
        f"({_points(interval[0])} to {_points(interval[1])}).",
        *(class_gain.words for class_gain in by_class if class_gain.gain >= MIN_GAIN),
    )
    points = tuple(
        LearningPoint(num_images=int(size), accuracy=1 - float(error.mean()), interval=_middle(1 - error))
        for size, error in zip(sizes, errors.T, strict=True)
    )
    return LearningCurve(
        points=points, more_images=len(labels), gain=gain, interval=interval, by_class=by_class, words=" ".join(words)
    )


def _kernel_ridge(features: NDArray[np.floating], labels: Indices) -> _KernelRidge:
    """Center and scale the features, and choose the penalty by leave-one-out on at most 600 images."""
    from sklearn.linear_model import RidgeClassifierCV

    unit = unit_length(features).astype(np.float64)
    centered = unit - unit.mean(axis=0)
    scaled = centered / (np.sqrt(np.mean(centered**2) * centered.shape[1]) or 1.0)
    fitted = RidgeClassifierCV(alphas=STRENGTHS).fit(scaled[:MAX_STRENGTH_IMAGES], labels[:MAX_STRENGTH_IMAGES])
    return _KernelRidge(scaled @ scaled.T, labels, float(fitted.alpha_))


def _draw(num_images: int, generator: np.random.Generator) -> Draw:
    out = np.sort(generator.permutation(num_images)[: max(1, round(HELD_OUT * num_images))])
    return generator.permutation(np.setdiff1d(np.arange(num_images), out)), out


def _gain(sizes: Indices, errors: NDArray[np.float64], num_images: int) -> float:
    """Return the error at ``num_images`` minus error at twice as many, from a power law that never rises."""
    logs = np.log(np.maximum(errors, 0.25 / num_images))
    slope, start = np.polyfit(np.log(sizes), logs, 1)
    if slope >= 0:
        return 0.0
    now = float(np.exp(start + slope * np.log(num_images)))
    return float(min(now, 1.0) * (1 - np.exp2(slope)))


def _class_gains(
    ridge: _KernelRidge, draws: list[Draw], correct: list[NDArray[np.bool_]], classes: tuple[str, ...]
) -> tuple[ClassGain, ...]:
    """Return the gains of the classes with the lowest recall: half of the recall lost when their images are halved."""
    # 1) Recall of each class over all draws.
    labels, pooled = ridge.labels, np.concatenate(correct)
    true = np.concatenate([labels[out] for _, out in draws])
    recall = {int(number): float(pooled[true == number].mean()) for number in np.unique(true)}
    worst = sorted(recall, key=lambda number: recall[number])[:MAX_CLASS_GAINS]
    class_gains = []
    for number in (number for number in worst if recall[number] < 1):
        # 2) Halve the class's images in each draw and measure the loss.
        losses = np.array(list(_losses(ridge, draws, correct, number)))
        gains = np.clip(losses / 2, 0, 1 - recall[number])  # errors fall like the inverse of the count
        more, gain = int((labels == number).sum()), float(gains.mean()) if len(gains) else 0.0
        words = f"{more} more images of {classes[number]!r} are expected to raise its recall by {100 * gain:.0f} pp."
        class_gains.append(ClassGain(label=classes[number], more_images=more, gain=gain, interval=_middle(gains), words=words))
    return tuple(class_gains)


def _losses(ridge: _KernelRidge, draws: list[Draw], correct: list[NDArray[np.bool_]], number: int) -> Iterator[float]:
    """Yield the recall of a class lost with half of its training images, for each draw."""
    for (train, held_out), full in zip(draws, correct, strict=True):
        own, tested = train[ridge.labels[train] == number], ridge.labels[held_out] == number
        fewer = np.setdiff1d(train, own[len(own) // 2 :])
        if tested.any() and len(own) >= 2:
            yield float(full[tested].mean() - ridge.correct(fewer, held_out[tested]).mean())


def _middle(values: NDArray[np.float64]) -> Interval:
    low, high = np.percentile(values, [5, 95]) if len(values) else (0.0, 0.0)
    return (float(low), float(high))


def _points(fraction: float) -> str:
    return f"{100 * fraction:+.1f}"
