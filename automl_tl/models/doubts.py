"""When a prediction is withheld: too unsure for the promised error rate, or unlike anything in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from automl_tl.errors import UnsatisfiableConstraintsError
from automl_tl.evaluation.abstention import Abstention, keep_error_below, smallest_promise
from automl_tl.evaluation.memory import TrainingMemory
from automl_tl.runtime.formatting import percent

__all__ = ["NO_DOUBTS", "Doubts", "doubts_for"]

STRANGER = "unlike anything in training"


@dataclass(frozen=True)
class Doubts:
    """Reasons not to answer. With neither of them every image is answered."""

    promise: Abstention | None = None
    memory: TrainingMemory | None = None

    def reasons(self, features: NDArray[np.float32], probabilities: NDArray[np.float32]) -> list[str | None]:
        """Why each image is not answered, or ``None``.

        Args:
            features: ``(B, D)``.
            probabilities: ``(B, C)``.
        """
        strange = self.memory.strangeness(features) if self.memory else np.zeros(len(features), dtype=np.float32)
        return [self._reason(float(s), float(p)) for s, p in zip(strange, probabilities.max(axis=1), strict=True)]

    def _reason(self, strangeness: float, sure: float) -> str | None:
        if strangeness > 1:
            return f"{STRANGER} ({strangeness:.2f} times the usual distance)"
        if self.promise is not None and sure <= self.promise.threshold:
            needed, promised = percent(self.promise.threshold), percent(self.promise.max_error)
            return f"only {percent(sure)} sure; to be wrong in at most {promised} it takes more than {needed}"
        return None


NO_DOUBTS: Final = Doubts()


def doubts_for(
    memory: TrainingMemory | None, held_out: tuple[NDArray[np.int64], NDArray[np.float32]], max_error: float | None
) -> Doubts:
    """Doubts that keep ``max_error``, strangers left aside beforehand.

    Args:
        memory: of the training images, if the model has one.
        held_out: labels ``(N,)`` and calibrated probabilities ``(N, C)`` of images that the model didn't learn from.
        max_error: promised share of wrong answers; ``None``: only strangers are refused.

    Raises:
        UnsatisfiableConstraintsError: the images are too few, or too many of them wrong; the text says what can be promised.
    """
    if max_error is None:
        return Doubts(None, memory)
    promise = keep_error_below(*held_out, max_error)
    if not promise.kept:
        smallest = smallest_promise(*held_out)
        nearest = f"Try --max-error {100 * smallest:.1f}%." if smallest else "Measure it on more labeled images."
        raise UnsatisfiableConstraintsError(f"--max-error {100 * max_error:g}%", f"{promise.words} {nearest}")
    return Doubts(promise, memory)
