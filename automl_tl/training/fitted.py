"""What a fit gives: the model in files and in memory, and what is known about it beyond that."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from automl_tl.models.bundle import Classifier
from automl_tl.training.activations import Rows
from automl_tl.training.checkpoints import Checkpoints
from automl_tl.training.images import LabeledImages
from automl_tl.training.inputs import Prefix
from automl_tl.values import FitResult

__all__ = ["Evidence", "Fitted"]


@dataclass(frozen=True)
class Evidence:
    """What the linear probe says of images that it did not learn from: log-probabilities ``(N, C)`` out of fold."""

    images: LabeledImages
    rows: Rows
    out_of_fold: NDArray[np.float64]

    @property
    def features(self) -> NDArray[np.float32]:
        """Features ``(N, D)``, read anew each time: of many images they fill the memory."""
        return self.rows.all()


@dataclass(frozen=True)
class Fitted:
    """A fitted model, in files (``result``) and in memory (``classifier``)."""

    result: FitResult
    classifier: Classifier
    encoder: Prefix
    checkpoints: tuple[Checkpoints, ...]
    evidence: Evidence | None
    learned_from: LabeledImages
    held_out: tuple[NDArray[np.int64], NDArray[np.float64]]  # labels, calibrated probabilities: out of fold or validation

    def features(self, images: LabeledImages) -> NDArray[np.float32]:
        """Features ``(N, D)`` of ``images`` under the encoder as it is now."""
        return self.encoder.plain(images).all()

    def forget_checkpoints(self) -> None:
        """Once the model is published nobody needs to go on from them."""
        for checkpoints in self.checkpoints:
            checkpoints.remove()

    def probabilities(self, images: LabeledImages) -> NDArray[np.float32]:
        """Calibrated probabilities ``(N, C)`` for ``images``."""
        features = torch.from_numpy(self.features(images))
        result: NDArray[np.float32] = self.classifier.probabilities(features).numpy()
        return result
