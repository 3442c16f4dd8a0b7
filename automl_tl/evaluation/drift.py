"""Whether new images still look like those that a model learned from, and which of them look least like it."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import Field

from automl_tl.evaluation.arrays import FloatArray
from automl_tl.evaluation.intervals import wilson
from automl_tl.evaluation.memory import TrainingMemory
from automl_tl.evaluation.strangers import OWN_REFUSED, unit_length
from automl_tl.runtime.formatting import percent, percent_range
from automl_tl.values import Fraction, Interval, Value

__all__ = ["Drift", "DriftExample", "drift_between"]

NUM_PERMUTATIONS: Final = 999
MAX_COMPARED: Final = 500  # of each side; the permutation test is quadratic
SIGNIFICANT: Final = 0.005  # of each of two questions: one false alarm in a hundred folders
NUM_EXAMPLES: Final = 9


class DriftExample(Value):
    """One of the strangest images."""

    path: str
    strangeness: float = Field(description="distance as a multiple of what is usual in training; above 1: a stranger")
    predicted: str


class Drift(Value):
    """A comparison of a folder with the training images."""

    num_images: int
    num_training_images: int
    strangers: Fraction = Field(description="share of the images that are called strangers")
    strangers_interval: Interval
    expected_strangers: Fraction = Field(description="share that would be, were the images like those of training")
    strangers_p_value: Fraction = Field(description="chance of so many strangers, were the images like those of training")
    p_value: Fraction = Field(description="chance of features that differ so much, were both from the same source")
    mix: dict[str, tuple[float, float]] = Field(description="class -> share in training, share among the predictions")
    examples: tuple[DriftExample, ...] = Field(description="the strangest images, strangest first")
    drifted: bool
    words: str


def drift_between(
    memory: TrainingMemory,
    features: FloatArray,
    predicted: npt.NDArray[np.int64],
    paths: tuple[str, ...],
    classes: tuple[str, ...],
    *,
    seed: int = 0,
) -> Drift:
    """What distinguishes images from those that ``memory`` keeps.

    Two questions: are more of them strangers than should be, and do the features differ as a whole (energy statistic on unit
    features, Szekely and Rizzo 2004; permutation test)? Drift is told when either would happen by chance in fewer than one
    of 200 folders that are like the training images. Deterministic for a seed.

    Args:
        memory: of the model.
        features: ``(N, D)``, of the images, N at least 1.
        predicted: ``(N,)``, class indices that the model says.
        paths: N paths.
        classes: names.
        seed: of the permutations.
    """
    strange = memory.strangeness(features)
    num_strange, num_images = int((strange > 1).sum()), len(paths)
    by_count = _chance_of_strangers(memory, num_strange, num_images)
    by_features = _energy_p_value(memory.features, features, np.random.default_rng(seed))
    trained = np.bincount(memory.labels, minlength=len(classes)) / max(1, len(memory.labels))
    said = np.bincount(predicted, minlength=len(classes)) / max(1, num_images)
    mix = {name: (float(trained[number]), float(said[number])) for number, name in enumerate(classes)}
    strangest = np.argsort(-strange, kind="stable")[:NUM_EXAMPLES]
    return Drift(
        num_images=num_images,
        num_training_images=len(memory.labels),
        strangers=num_strange / num_images,
        strangers_interval=wilson(num_strange, num_images),
        expected_strangers=OWN_REFUSED,
        strangers_p_value=by_count,
        p_value=by_features,
        mix=mix,
        examples=tuple(
            DriftExample(path=paths[row], strangeness=float(strange[row]), predicted=classes[predicted[row]])
            for row in strangest
        ),
        drifted=min(by_count, by_features) <= SIGNIFICANT,
        words=_in_words((num_strange, num_images), by_count, by_features, mix),
    )


def _in_words(counts: tuple[int, int], by_count: float, by_features: float, mix: dict[str, tuple[float, float]]) -> str:
    share = counts[0] / counts[1]
    sentences = [
        f"{counts[0]} of {counts[1]} images are unlike anything in training ({percent(share)}, "
        f"{percent_range(wilson(*counts))}; about {percent(OWN_REFUSED)} would be normal)."
    ]
    if by_count <= SIGNIFICANT and share > 0.5:
        sentences.append("They are of another kind than the training images.")
    elif by_count <= SIGNIFICANT:
        sentences.append("More of them than usual are strange to the model.")
    if by_features <= SIGNIFICANT:
        sentences.append(f"As a whole they look different (chance would do that in {percent(by_features)} of cases).")
    name, (before, now) = max(mix.items(), key=lambda row: abs(row[1][1] - row[1][0]))
    low, high = wilson(round(now * counts[1]), counts[1])
    if not low <= before <= high:
        sentences.append(f"{name!r} is said of {percent(now)} of them; of the training images {percent(before)} are.")
    if min(by_count, by_features) <= SIGNIFICANT:
        return " ".join([*sentences, "Measure the model on some of them before you trust it."])
    return " ".join([*sentences, "No drift can be seen."])


def _chance_of_strangers(memory: TrainingMemory, num_strange: int, num_images: int) -> float:
    """Chance of at least so many strangers among images like those of training.

    The threshold is an order statistic of M training scores, so the count is beta-binomial: that the threshold comes from few
    images is part of the answer.
    """
    from scipy.stats import betabinom

    size = len(memory.labels)
    above = size + 1 - math.ceil((size + 1) * (1 - OWN_REFUSED))
    if above < 1 or num_strange == 0:
        return 1.0
    return float(betabinom.sf(num_strange - 1, num_images, above, size + 1 - above))


def _energy_p_value(memory: FloatArray, features: FloatArray, generator: np.random.Generator) -> float:
    one, other = (_some(np.asarray(side, dtype=np.float32), generator) for side in (memory, features))
    both = unit_length(np.concatenate([one, other]))
    distances = np.sqrt(np.maximum(2 - 2 * both @ both.T, 0))
    side = np.zeros(len(both), dtype=np.float32)
    side[: len(one)] = 1
    sides = np.stack([side, *(generator.permutation(side) for _ in range(NUM_PERMUTATIONS))])
    values = _energies(distances, sides)
    return float((1 + (values[1:] >= values[0]).sum()) / (1 + NUM_PERMUTATIONS))


def _some(side: npt.NDArray[np.float32], generator: np.random.Generator) -> npt.NDArray[np.float32]:
    return side[generator.permutation(len(side))[:MAX_COMPARED]]


def _energies(distances: npt.NDArray[np.float32], sides: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Twice the mean distance between the sides minus the mean distances within them, for each row of ``sides`` ``(P, N)``."""
    a = sides / sides.sum(axis=1, keepdims=True)
    b = (1 - sides) / (1 - sides).sum(axis=1, keepdims=True)
    from_a, from_b = a @ distances, b @ distances
    return np.asarray((2 * from_a * b - from_a * a - from_b * b).sum(axis=1), dtype=np.float32)
