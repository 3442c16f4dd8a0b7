"""Calibration: a temperature that turns logits into reliable probabilities, and bins that show how reliable they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from automl_tl.evaluation.arrays import FloatArray, IntArray

__all__ = [
    "TEMPERATURE_RANGE",
    "CalibrationBin",
    "calibrated_losses",
    "calibration_bins",
    "confidence_bins",
    "fit_temperature",
    "log_losses",
    "softmax",
]

TEMPERATURE_RANGE: Final = (0.05, 20.0)  # ridge scores in [0, 1] need about 0.1; anything beyond is not a logit
MIN_IMAGES: Final = 50  # decision 7: one parameter is reliable from 50 images on
ENOUGH_IMAGES: Final = 10_000  # one parameter isn't estimated noticeably better from more
MIN_PROBABILITY: Final = 1e-12
NUM_BINS: Final = 15  # Guo et al., "On Calibration of Modern Neural Networks", ICML 2017


@dataclass(frozen=True)
class CalibrationBin:
    """Images whose confidence lies in ``(low, high]``: their number, mean confidence and accuracy."""

    low: float
    high: float
    num_images: int
    confidence: float
    accuracy: float


def softmax(logits: FloatArray, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Probabilities of ``logits`` divided by ``temperature``.

    Args:
        logits: ``(N, C)``.
        temperature: above 0; more than 1 lowers the confidence.

    Returns:
        ``(N, C)`` float64, rows sum to 1.
    """
    from scipy import special

    return np.asarray(special.softmax(np.asarray(logits, dtype=np.float64) / temperature, axis=-1))


def log_losses(logits: FloatArray, labels: IntArray, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """Negative log-likelihoods of ``labels``, with probabilities clipped at 1e-12.

    Args:
        logits: ``(N, C)``.
        labels: ``(N,)``, class indices.
        temperature: of the softmax.

    Returns:
        ``(N,)``, in nats.
    """
    likelihoods = softmax(logits, temperature)[np.arange(len(labels)), labels]
    return np.asarray(-np.log(np.maximum(likelihoods, MIN_PROBABILITY)))


def calibrated_losses(logits: FloatArray, labels: IntArray) -> npt.NDArray[np.float64]:
    """Negative log-likelihoods at the fitted temperature, which compare models whatever their confidence.

    Args:
        logits: ``(N, C)`` of images that took no part in training.
        labels: ``(N,)``, class indices.

    Returns:
        ``(N,)``, in nats.
    """
    sample = slice(None, None, 1 + len(labels) // ENOUGH_IMAGES)
    return log_losses(logits, labels, fit_temperature(logits[sample], labels[sample]))


def fit_temperature(logits: FloatArray, labels: IntArray, *, min_images: int = MIN_IMAGES) -> float:
    """Fit the temperature that minimizes the cross-entropy (Guo et al. 2017). Deterministic.

    The targets are softened as in Platt (1999): the true class counts ``(N + 1) / (N + C)``. That vanishes with N and keeps the
    temperature away from zero where no image is wrong and plain likelihood would be fully confident.

    Args:
        logits: ``(N, C)`` of images that took no part in training, out of fold or of validation images.
        labels: ``(N,)``, class indices.
        min_images: with fewer the temperature is 1.

    Returns:
        The temperature, within ``TEMPERATURE_RANGE``.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    wide = np.asarray(logits, dtype=np.float64)
    num_images, num_classes = wide.shape
    if num_images < min_images:
        return 1.0
    # 1) Platt's targets: every class gets ``soft``, the true one the rest.
    soft = 1.0 / (num_images + num_classes)

    def cross_entropy(log_temperature: float) -> float:
        log_probabilities = log_softmax(wide / np.exp(log_temperature), axis=1)
        true = log_probabilities[np.arange(num_images), labels].mean()
        return -float((1 - num_classes * soft) * true + soft * log_probabilities.sum(axis=1).mean())

    # 2) Minimize over the logarithm of the temperature, in which the problem is well scaled.
    low, high = np.log(TEMPERATURE_RANGE)
    minimum = minimize_scalar(cross_entropy, bounds=(low, high), method="bounded", options={"xatol": 1e-5})
    return float(np.clip(np.exp(minimum.x), *TEMPERATURE_RANGE))


def calibration_bins(labels: IntArray, probabilities: FloatArray, num_bins: int = NUM_BINS) -> tuple[CalibrationBin, ...]:
    """Bin the images by the confidence of the predicted class.

    Args:
        labels: ``(N,)``, class indices.
        probabilities: ``(N, C)``.
        num_bins: number of bins of equal width over 0 to 1.

    Returns:
        The bins that have images.
    """
    wide = np.asarray(probabilities, dtype=np.float64)
    return confidence_bins(wide.max(axis=1), wide.argmax(axis=1) == labels, num_bins)


def confidence_bins(
    confidence: npt.NDArray[np.float64], correct: npt.NDArray[np.bool_], num_bins: int = NUM_BINS
) -> tuple[CalibrationBin, ...]:
    """Bin images by their confidence; see :func:`calibration_bins`.

    Args:
        confidence: ``(N,)``, 0 to 1.
        correct: ``(N,)``, whether the prediction was correct.
        num_bins: number of bins of equal width over 0 to 1.
    """
    edges = np.linspace(0, 1, num_bins + 1)
    bin_of = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    return tuple(
        CalibrationBin(
            low=float(edges[index]),
            high=float(edges[index + 1]),
            num_images=int((bin_of == index).sum()),
            confidence=float(confidence[bin_of == index].mean()),
            accuracy=float(correct[bin_of == index].mean()),
        )
        for index in np.unique(bin_of)
    )
