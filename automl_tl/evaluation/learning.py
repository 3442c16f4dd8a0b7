"""What more images would bring: a linear head solved again on nested subsets of cached features.

It extrapolates to twice the images and no further: from five images per class plain power laws ask for up to twelve times
the data that was needed (Jain et al., arXiv 2303.01598). Every figure carries an interval.
"""

from __future__ import annotations

from collections.abc import Iterator
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

Matrix = npt.NDArray[np.float64]


class LearningPoint(Value):
    """Accuracy of a head that learned from ``num_images``; interval: the middle 90 % of the draws."""

    num_images: int
    accuracy: float
    interval: Interval


class ClassGain(Value):
    """What twice the images of one class would do to how often it is recognised, in points (0.03: 3 of 100 more)."""

    label: str
    more_images: int
    gain: float
    interval: Interval


class LearningCurve(Value):
    """Measured points, then what twice as many images promise; the gain counts from all images."""

    points: tuple[LearningPoint, ...]
    more_images: int
    gain: float
    interval: Interval
    by_class: tuple[ClassGain, ...] = ()
    words: str


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
    normal, known = _normalised(features[rows]), labels[rows]
    units = np.arange(len(rows)) if groups is None else np.asarray(groups)[rows]
    strength = _strength(normal, known)
    draws = [_halves(units, generator) for _ in range(NUM_DRAWS)]
    errors = np.array([_errors(normal, known, draw, strength) for draw in draws])
    sizes = np.array([round(fraction * np.mean([len(learn) for learn, _ in draws])) for fraction in FRACTIONS])
    gains = np.array([_gain(sizes[-3:], row[-3:], len(labels)) for row in errors])
    gain, interval = float(gains.mean()), _middle(gains)
    return LearningCurve(
        points=tuple(
            LearningPoint(num_images=int(n), accuracy=1 - float(e.mean()), interval=_middle(1 - e))
            for n, e in zip(sizes, errors.T, strict=True)
        ),
        more_images=len(labels),
        gain=gain,
        interval=interval,
        by_class=_class_gains(normal, known, (draws, strength), classes),
        words=f"{len(labels)} more images, spread like these, promise {_points(gain)} points ({_range(interval)}).",
    )


def _normalised(features: FloatArray) -> Matrix:
    unit = unit_length(features).astype(np.float64)
    centred = unit - unit.mean(axis=0)
    return np.asarray(centred / (np.sqrt(np.mean(centred**2) * centred.shape[1]) or 1.0))


def _strength(features: Matrix, labels: IntArray) -> float:
    from sklearn.linear_model import RidgeClassifierCV

    return float(RidgeClassifierCV(alphas=STRENGTHS).fit(features[:600], labels[:600]).alpha_)


def _halves(units: IntArray, generator: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Rows to learn from, shuffled, and rows held out; no group on both sides."""
    names = generator.permutation(np.unique(units))
    out = np.isin(units, names[: max(1, round(HELD_OUT * len(names)))])
    return generator.permutation(np.flatnonzero(~out)), np.flatnonzero(out)


def _errors(features: Matrix, labels: IntArray, draw: tuple[IntArray, IntArray], strength: float) -> list[float]:
    learn, held_out = draw
    parts = (learn[: max(2, round(fraction * len(learn)))] for fraction in FRACTIONS)
    return [1 - float(_right(features, labels, (part, held_out), strength).mean()) for part in parts]


def _right(features: Matrix, labels: IntArray, draw: tuple[IntArray, IntArray], strength: float) -> npt.NDArray[np.bool_]:
    """Which held-out images a ridge head on ``draw[0]`` gets right: solved in the smaller of N and D dimensions."""
    from sklearn.linear_model import Ridge

    learn, held_out = draw
    present, index = np.unique(labels[learn], return_inverse=True)
    model = Ridge(alpha=strength, solver="cholesky").fit(features[learn], np.eye(len(present))[index])
    scores = model.predict(features[held_out]).reshape(len(held_out), -1)
    return np.asarray(present[scores.argmax(axis=1)] == labels[held_out])


def _gain(sizes: IntArray, errors: Matrix, num_images: int) -> float:
    """Error at ``num_images`` minus error at twice as many, after a power law that never rises."""
    logs = np.log(np.maximum(errors, 0.25 / num_images))
    slope, start = np.polyfit(np.log(sizes), logs, 1)
    if slope >= 0:
        return 0.0
    now = float(np.exp(start + slope * np.log(num_images)))
    return float(min(now, 1.0) * (1 - np.exp2(slope)))


def _class_gains(
    features: Matrix, labels: IntArray, setting: tuple[list[tuple[IntArray, IntArray]], float], classes: tuple[str, ...]
) -> tuple[ClassGain, ...]:
    """For the classes recognised worst: the recall lost by halving them, taken as what doubling gives, halved.

    Halved, because errors fall like a power of the count: with the usual exponent of one the next doubling brings half.
    """
    draws, strength = setting
    seen = [(_right(features, labels, draw, strength), labels[draw[1]]) for draw in draws]
    recall = {
        int(c): float(np.mean(np.concatenate([right[of == c] for right, of in seen])))
        for c in np.unique(labels)
        if any((of == c).any() for _, of in seen)
    }
    worst = sorted(recall, key=lambda c: recall[c])[:MAX_CLASSES_TOLD]
    found = []
    for c in (c for c in worst if recall[c] < 1):
        losses = np.array(list(_losses(features, labels, (draws, strength), c)))
        gains = np.clip(losses / 2, 0, 1 - recall[c])
        more = int((labels == c).sum())
        found.append(ClassGain(label=classes[c], more_images=more, gain=float(gains.mean()), interval=_middle(gains)))
    return tuple(found)


def _losses(
    features: Matrix, labels: IntArray, setting: tuple[list[tuple[IntArray, IntArray]], float], number: int
) -> Iterator[float]:
    draws, strength = setting
    for learn, held_out in draws:
        own, tested = learn[labels[learn] == number], held_out[labels[held_out] == number]
        fewer = np.setdiff1d(learn, own[len(own) // 2 :])
        if len(tested) and len(own) >= 2:
            full = _right(features, labels, (learn, tested), strength).mean()
            yield float(full - _right(features, labels, (fewer, tested), strength).mean())


def _middle(values: Matrix) -> Interval:
    low, high = np.percentile(values, [5, 95]) if len(values) else (0.0, 0.0)
    return (float(low), float(high))


def _points(fraction: float) -> str:
    return f"{100 * fraction:+.1f}"


def _range(interval: Interval) -> str:
    return f"{_points(interval[0])} to {_points(interval[1])}"
