"""From logits to probabilities that mean what they say, and how far they are from that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from automl_tl.evaluation.arrays import FloatArray, IntArray

__all__ = [
    "TEMPERATURE_RANGE",
    "Calibration",
    "CalibrationBin",
    "calibrate",
    "calibrated_losses",
    "calibration_bins",
    "confidence_bins",
    "fit_temperature",
    "log_losses",
    "softmax",
]

TEMPERATURE_RANGE: Final = (0.05, 20.0)  # outside it the logits are not logits: ridge scores in [0, 1] need about 0.1
MIN_IMAGES: Final = 50  # planner-notes section 4: one parameter, from 50 images on
ENOUGH_IMAGES: Final = 10_000  # to compare epochs by: one parameter isn't known any better from more
NUM_BINS: Final = 15  # Guo et al., "On Calibration of Modern Neural Networks", ICML 2017


@dataclass(frozen=True)
class Calibration:
    """A temperature and why it is what it is; losses are mean negative log-likelihoods in nats."""

    temperature: float
    reason: str
    loss_before: float
    loss_after: float


@dataclass(frozen=True)
class CalibrationBin:
    """Images whose confidence lies in ``(low, high]``: how sure the model was and how often it was right."""

    low: float
    high: float
    num_images: int
    confidence: float
    accuracy: float


def softmax(logits: FloatArray, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Probabilities ``(N, C)``, float64, rows sum to 1, of ``logits`` ``(N, C)`` divided by ``temperature``."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def log_losses(logits: FloatArray, labels: IntArray, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Negative log-likelihoods ``(N,)`` of ``labels`` in nats, that of an impossible one as of a probability of 1e-12."""
    return np.asarray(-np.log(np.maximum(softmax(logits, temperature)[np.arange(len(labels)), labels], 1e-12)))


def fit_temperature(logits: FloatArray, labels: IntArray, *, min_images: int = MIN_IMAGES) -> float:
    """Temperature of the softmax that makes ``labels`` most likely; see :func:`calibrate`."""
    return calibrate(logits, labels, min_images=min_images).temperature


def calibrated_losses(logits: FloatArray, labels: IntArray) -> npt.NDArray[np.float64]:
    """``log_losses`` at the temperature that :func:`fit_temperature` gives: what is wrong, whatever the confidence."""
    some = slice(None, None, 1 + len(labels) // ENOUGH_IMAGES)
    return log_losses(logits, labels, fit_temperature(logits[some], labels[some]))


def calibrate(logits: FloatArray, labels: IntArray, *, min_images: int = MIN_IMAGES) -> Calibration:
    """Temperature for ``logits`` of images that took no part in training.

    One parameter, found by bounded minimization of the cross-entropy (Guo et al. 2017). The targets are softened as in
    Platt (1999): the true class counts ``(N + 1) / (N + C)``. That vanishes with N and keeps the temperature away from
    zero where no image is wrong and plain likelihood would promise certainty. Deterministic.

    Args:
        logits: ``(N, C)``, out of fold or from validation images.
        labels: ``(N,)``, class indices.
        min_images: with fewer the temperature stays 1.
    """
    from scipy.optimize import minimize_scalar

    wide = np.asarray(logits, dtype=np.float64)
    num_images, num_classes = wide.shape
    if num_images < min_images:
        loss = mean_loss(wide, labels, 1.0) if num_images else 0.0
        reason = f"left at 1: {num_images} images are too few to fit it (from {min_images} on)"
        return Calibration(temperature=1.0, reason=reason, loss_before=loss, loss_after=loss)
    soft = 1.0 / (num_images + num_classes)

    def soft_loss(log_temperature: float) -> float:
        log_probabilities = log_softmax(wide / np.exp(log_temperature))
        true = log_probabilities[np.arange(num_images), labels].mean()
        return -float((1 - num_classes * soft) * true + soft * log_probabilities.sum(axis=1).mean())

    low, high = np.log(TEMPERATURE_RANGE)
    found = minimize_scalar(soft_loss, bounds=(low, high), method="bounded", options={"xatol": 1e-5})
    temperature = float(np.clip(np.exp(found.x), *TEMPERATURE_RANGE))
    at_edge = min(abs(found.x - low), abs(found.x - high)) < 1e-3
    edge = f"; it stands at the edge of the range {TEMPERATURE_RANGE[0]} to {TEMPERATURE_RANGE[1]}" if at_edge else ""
    return Calibration(
        temperature=temperature,
        reason=f"fitted on {num_images} images{edge}",
        loss_before=mean_loss(wide, labels, 1.0),
        loss_after=mean_loss(wide, labels, temperature),
    )


def calibration_bins(labels: IntArray, probabilities: FloatArray, num_bins: int = NUM_BINS) -> tuple[CalibrationBin, ...]:
    """Bins of equal width over the confidence of the predicted class, empty ones left out."""
    wide = np.asarray(probabilities, dtype=np.float64)
    return confidence_bins(wide.max(axis=1), wide.argmax(axis=1) == labels, num_bins)


def confidence_bins(
    confidence: npt.NDArray[np.float64], right: npt.NDArray[np.bool_], num_bins: int = NUM_BINS
) -> tuple[CalibrationBin, ...]:
    """The same from confidences ``(N,)``, 0 to 1, and whether the prediction was right, ``(N,)``."""
    edges = np.linspace(0, 1, num_bins + 1)
    where = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    return tuple(
        CalibrationBin(
            low=float(edges[index]),
            high=float(edges[index + 1]),
            num_images=int((where == index).sum()),
            confidence=float(confidence[where == index].mean()),
            accuracy=float(right[where == index].mean()),
        )
        for index in np.unique(where)
    )


def log_softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Logarithms of the softmax, ``(N, C)``, without overflow."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def mean_loss(logits: npt.NDArray[np.float64], labels: IntArray, temperature: float) -> float:
    """Mean negative log-likelihood of ``labels`` in nats."""
    return -float(log_softmax(logits / temperature)[np.arange(len(labels)), labels].mean())
