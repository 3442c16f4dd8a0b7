"""Whether new images still look like those that a model learned from, and which of them look least like it."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import Field

from automl_tl.evaluation.arrays import FloatArray
from automl_tl.evaluation.intervals import wilson
from automl_tl.evaluation.memory import TrainingMemory
from automl_tl.evaluation.strangers import OWN_REFUSED, stranger_scores
from automl_tl.evaluation.words import percent, percent_range
from automl_tl.values import Fraction, Interval, Value

__all__ = ["Drift", "drift_between"]

NUM_PERMUTATIONS: Final = 300
MAX_COMPARED: Final = 500  # of each side; the permutation test is quadratic
SIGNIFICANT: Final = 0.01
NUM_EXAMPLES: Final = 9


class Drift(Value):
    """A comparison of a folder with the training images."""

    num_images: int
    num_training_images: int
    strangers: Fraction = Field(description="share of the images that are called strangers")
    strangers_interval: Interval
    expected_strangers: Fraction = Field(description="share that would be, were the images like those of training")
    p_value: Fraction = Field(description="chance of features that differ so much, were both from the same source")
    mix: dict[str, tuple[float, float]] = Field(description="class -> share in training, share among the predictions")
    examples: tuple[str, ...] = Field(description="the strangest images, strangest first")
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

    Two questions: are more of them strangers than should be (Wilson interval of the share against 5 %), and do the features
    differ as a whole? For that each image is compared with its nearest neighbours on either side, and the difference with
    what random relabelling gives (energy statistic on unit features, Szekely and Rizzo 2004; permutation test). Drift is
    told when either is beyond doubt. Deterministic for a seed.

    Args:
        memory: of the model.
        features: ``(N, D)``, of the images, N at least 1.
        predicted: ``(N,)``, class indices that the model says.
        paths: N paths.
        classes: names.
        seed: of the permutations.
    """
    scores = stranger_scores(features, memory.features)
    num_strange, num_images = int((scores > memory.threshold).sum()), len(paths)
    interval = wilson(num_strange, num_images)
    p_value = _energy_p_value(memory.features, features, np.random.default_rng(seed))
    more_strangers = interval[0] > OWN_REFUSED
    drifted = more_strangers or p_value <= SIGNIFICANT
    trained = np.bincount(memory.labels, minlength=len(classes)) / max(1, len(memory.labels))
    said = np.bincount(predicted, minlength=len(classes)) / max(1, num_images)
    strangest = np.argsort(-scores, kind="stable")[:NUM_EXAMPLES]
    verdict = "They are of another kind than the training images" if more_strangers else "They differ from the training images"
    return Drift(
        num_images=num_images,
        num_training_images=len(memory.labels),
        strangers=num_strange / num_images,
        strangers_interval=interval,
        expected_strangers=OWN_REFUSED,
        p_value=p_value,
        mix={name: (float(trained[number]), float(said[number])) for number, name in enumerate(classes)},
        examples=tuple(paths[row] for row in strangest),
        drifted=drifted,
        words=(
            f"{num_strange} of {num_images} images are unlike anything in training ({percent(num_strange / num_images)}, "
            f"{percent_range(interval)}; about {percent(OWN_REFUSED)} would be normal). "
            + (f"{verdict}: measure the model on some of them before you trust it." if drifted else "No drift can be seen.")
        ),
    )


def _energy_p_value(memory: FloatArray, features: FloatArray, generator: np.random.Generator) -> float:
    one, other = (_some(np.asarray(side, dtype=np.float32), generator) for side in (memory, features))
    both = np.concatenate([one, other])
    both = both / np.maximum(np.linalg.norm(both, axis=1, keepdims=True), 1e-12)
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
