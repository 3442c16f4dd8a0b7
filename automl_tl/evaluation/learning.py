"""What more images would bring: a linear head solved again on nested subsets of cached features.

It extrapolates to twice the images and no further: from five images per class plain power laws ask for up to twelve times
the data that was needed (Jain et al., arXiv 2303.01598). Every figure carries an interval.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from automl_tl.evaluation.arrays import FloatArray, IntArray
from automl_tl.evaluation.strangers import unit_length
from automl_tl.values import Interval, Value

__all__ = ["ClassGain", "LearningCurve", "LearningPoint", "learning_curve"]

FRACTIONS: Final = (0.125, 0.25, 0.5, 1.0)
NUM_DRAWS: Final = 12
HELD_OUT: Final = 0.2
MAX_IMAGES: Final = 1200  # more make it slow (cubic) and the curve flat
MIN_IMAGES: Final = 24
MAX_CLASSES_TOLD: Final = 3
STRENGTHS: Final = np.logspace(-2, 2, 13)

WORTH_TELLING: Final = 0.01

Matrix = npt.NDArray[np.float64]
Draw = tuple[IntArray, IntArray]


class LearningPoint(Value):
    """Accuracy of a head that learned from ``num_images``; interval: the middle 90% of the draws."""

    num_images: int
    accuracy: float
    interval: Interval


class ClassGain(Value):
    """What twice the images of one class would do to how often it is recognized, in points (0.03: 3 of 100 more)."""

    label: str
    more_images: int
    gain: float
    interval: Interval
    words: str


class LearningCurve(Value):
    """Measured points, then what twice as many images promise; the gain counts from all images."""

    points: tuple[LearningPoint, ...]
    more_images: int
    gain: float
    interval: Interval
    by_class: tuple[ClassGain, ...] = ()
    words: str


@dataclass(frozen=True)
class _Bench:
    """Images ``(N,)`` by how alike they are: inner products ``(N, N)`` of centerd features, labels, strength of the ridge."""

    products: Matrix
    labels: IntArray
    strength: float

    def right(self, learn: IntArray, held_out: IntArray) -> npt.NDArray[np.bool_]:
        """Which of the ``held_out`` rows a ridge head that learned from ``learn`` gets right."""
        from sklearn.kernel_ridge import KernelRidge
        from sklearn.preprocessing import KernelCenterer

        present, index = np.unique(self.labels[learn], return_inverse=True)
        targets, centring = np.eye(len(present))[index], KernelCenterer()
        shares = targets.mean(axis=0)  # with both sides centerd the ridge needs no intercept
        products = centring.fit_transform(self.products[np.ix_(learn, learn)])
        model = KernelRidge(alpha=self.strength, kernel="precomputed").fit(products, targets - shares)
        scores = model.predict(centring.transform(self.products[np.ix_(held_out, learn)])) + shares
        return np.asarray(present[scores.argmax(axis=1)] == self.labels[held_out])


def learning_curve(
    features: FloatArray, labels: IntArray, classes: tuple[str, ...], *, groups: IntArray | None = None, seed: int = 0
) -> LearningCurve | None:
    """Learning curve of a ridge head on ``features``; ``None`` with fewer than 24 images or a class of fewer than 4.

    Each of 12 draws holds out a fifth of the groups and solves the head on nested parts of the rest. A power law through the
    last three errors of each draw gives the gain; the spread over draws gives the interval. Deterministic for a seed.

    Args:
        features: ``(N, D)``.
        labels: ``(N,)``, class indices.
        classes: names, in the order of the indices.
        groups: ``(N,)``; images of a group stay on one side.
        seed: of the draws.
    """
    labels = np.asarray(labels)
    counts = np.bincount(labels, minlength=len(classes))
    if len(labels) < MIN_IMAGES or counts[counts > 0].min() < 4 or (counts > 0).sum() < 2:
        return None
    generator = np.random.default_rng(seed)
    rows = generator.permutation(len(labels))[:MAX_IMAGES]
    bench = _bench(features[rows], labels[rows])
    units = np.arange(len(rows)) if groups is None else np.asarray(groups)[rows]
    draws = [_halves(units, generator) for _ in range(NUM_DRAWS)]
    right = [[bench.right(learn[: max(2, round(part * len(learn)))], out) for part in FRACTIONS] for learn, out in draws]
    errors = np.array([[1 - float(part.mean()) for part in row] for row in right])
    sizes = np.array([round(fraction * np.mean([len(learn) for learn, _ in draws])) for fraction in FRACTIONS])
    gains = np.array([_gain(sizes[-3:], row[-3:], len(labels)) for row in errors])
    gain, interval = float(gains.mean()), _middle(gains)
    by_class = _class_gains(bench, draws, [row[-1] for row in right], classes)
    return LearningCurve(
        points=tuple(
            LearningPoint(num_images=int(n), accuracy=1 - float(e.mean()), interval=_middle(1 - e))
            for n, e in zip(sizes, errors.T, strict=True)
        ),
        more_images=len(labels),
        gain=gain,
        interval=interval,
        by_class=by_class,
        words=f"{len(labels)} more images, spread like these, promise {_points(gain)} points ({_range(interval)})."
        + "".join(f" {one.words}" for one in by_class if one.gain >= WORTH_TELLING),
    )


def _bench(features: FloatArray, labels: IntArray) -> _Bench:
    """The strength is chosen by leaving one out (scikit-learn), on at most 600 images."""
    from sklearn.linear_model import RidgeClassifierCV

    unit = unit_length(features).astype(np.float64)
    centerd = unit - unit.mean(axis=0)
    normal = centerd / (np.sqrt(np.mean(centerd**2) * centerd.shape[1]) or 1.0)
    strength = RidgeClassifierCV(alphas=STRENGTHS).fit(normal[:600], labels[:600]).alpha_
    return _Bench(normal @ normal.T, labels, float(strength))


def _halves(units: IntArray, generator: np.random.Generator) -> Draw:
    """Rows to learn from, shuffled, and rows held out; no group on both sides."""
    names = generator.permutation(np.unique(units))
    out = np.isin(units, names[: max(1, round(HELD_OUT * len(names)))])
    return generator.permutation(np.flatnonzero(~out)), np.flatnonzero(out)


def _gain(sizes: IntArray, errors: Matrix, num_images: int) -> float:
    """Error at ``num_images`` minus error at twice as many, after a power law that never rises."""
    logs = np.log(np.maximum(errors, 0.25 / num_images))
    slope, start = np.polyfit(np.log(sizes), logs, 1)
    if slope >= 0:
        return 0.0
    now = float(np.exp(start + slope * np.log(num_images)))
    return float(min(now, 1.0) * (1 - np.exp2(slope)))


def _class_gains(
    bench: _Bench, draws: list[Draw], right: list[npt.NDArray[np.bool_]], classes: tuple[str, ...]
) -> tuple[ClassGain, ...]:
    """For the classes recognized worst: the recall lost by halving them, taken as what doubling gives, halved.

    Halved, because errors fall like a power of the count: with the usual exponent of one the next doubling brings half.
    """
    labels = bench.labels
    found = np.concatenate(right)
    of = np.concatenate([labels[out] for _, out in draws])
    recall = {int(number): float(found[of == number].mean()) for number in np.unique(of)}
    worst = sorted(recall, key=lambda number: recall[number])[:MAX_CLASSES_TOLD]
    told = []
    for number in (number for number in worst if recall[number] < 1):
        losses = np.array(list(_losses(bench, draws, right, number)))
        gains = np.clip(losses / 2, 0, 1 - recall[number])
        more, gain = int((labels == number).sum()), float(gains.mean()) if len(gains) else 0.0
        words = (
            f"{more} more images of {classes[number]!r} give about {100 * gain:+.0f} points in how many of them are recognized."
        )
        told.append(ClassGain(label=classes[number], more_images=more, gain=gain, interval=_middle(gains), words=words))
    return tuple(told)


def _losses(bench: _Bench, draws: list[Draw], right: list[npt.NDArray[np.bool_]], number: int) -> Iterator[float]:
    """Share of a class's held-out images that is lost with half of its images, for each draw."""
    for (learn, held_out), full in zip(draws, right, strict=True):
        own, tested = learn[bench.labels[learn] == number], bench.labels[held_out] == number
        fewer = np.setdiff1d(learn, own[len(own) // 2 :])
        if tested.any() and len(own) >= 2:
            yield float(full[tested].mean() - bench.right(fewer, held_out[tested]).mean())


def _middle(values: Matrix) -> Interval:
    low, high = np.percentile(values, [5, 95]) if len(values) else (0.0, 0.0)
    return (float(low), float(high))


def _points(fraction: float) -> str:
    return f"{100 * fraction:+.1f}"


def _range(interval: Interval) -> str:
    return f"{_points(interval[0])} to {_points(interval[1])}"
