"""Calibration: a temperature that turns logits into reliable probabilities, and bins that show how reliable they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

TEMPERATURE_RANGE: Final = (0.05, 20.0)  # ridge scores in [0, 1] need about 0.1; anything beyond is not a logit
MIN_IMAGES: Final = 50  # one parameter is reliable from 50 images on (decision 43)
ENOUGH_IMAGES: Final = 10_000  # one parameter isn't estimated noticeably better from more
MIN_PROBABILITY: Final = 1e-12
STRONGLY_IMBALANCED: Final = 10  # times: where the data report warns; below, nothing is adjusted
NUM_BINS: Final = 15  # Guo et al., "On Calibration of Modern Neural Networks", ICML 2017


@dataclass(frozen=True)
class CalibrationBin:
    """Images whose confidence lies in ``(low, high]``: their number, mean confidence and accuracy."""

    low: float
    high: float
    num_images: int
    confidence: float
    accuracy: float


def softmax(logits: NDArray[np.floating], temperature: float = 1.0) -> NDArray[np.float64]:
    """Return the probabilities ``(N, C)`` of ``logits`` divided by ``temperature``; more than 1 lowers the confidence.

    Args:
        logits: ``(N, C)``.
        temperature: divides the logits.
    """
    from scipy import special

    return np.asarray(special.softmax(np.asarray(logits, dtype=np.float64) / temperature, axis=-1))


def log_losses(logits: NDArray[np.floating], labels: NDArray[np.integer], temperature: float = 1.0) -> NDArray[np.float64]:
    """Return the negative log-likelihoods ``(N,)`` of ``labels``, in nats; probabilities are clipped at 1e-12.

    Args:
        logits: ``(N, C)``.
        labels: ``(N,)``, indices of the true classes.
        temperature: divides the logits.
    """
    likelihoods = softmax(logits, temperature)[np.arange(len(labels)), labels]
    return np.asarray(-np.log(np.maximum(likelihoods, MIN_PROBABILITY)))


def calibrated_losses(
    logits: NDArray[np.floating], labels: NDArray[np.integer], weights: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Return the losses at the fitted temperature, which compare models whatever their confidence, on held-out images.

    Args:
        logits: ``(N, C)``, of images that took no part in training.
        labels: ``(N,)``, indices of the true classes.
        weights: ``(N,)``, how much each image counts; its loss is multiplied by it. ``None``: all alike.
    """
    sample = slice(None, None, 1 + len(labels) // ENOUGH_IMAGES)
    temperature = fit_temperature(logits[sample], labels[sample], None if weights is None else weights[sample])
    losses = log_losses(logits, labels, temperature)
    return losses if weights is None else losses * weights / weights.mean()


def _mean(values: NDArray[np.float64], weights: NDArray[np.float64] | None) -> float:
    return float(values.mean() if weights is None else np.average(values, weights=weights))


def fit_temperature(
    logits: NDArray[np.floating],
    labels: NDArray[np.integer],
    weights: NDArray[np.float64] | None = None,
    *,
    min_images: int = MIN_IMAGES,
) -> float:
    """Return the temperature that minimizes the cross-entropy (Guo et al. 2017). Deterministic.

    The targets are softened as in Platt (1999): the true class counts ``(N + 1) / (N + 2)``, the others share the rest, however
    many they are (decision 73). That vanishes with N and keeps the temperature away from zero where no image is wrong and
    plain likelihood would be fully confident.

    Args:
        logits: ``(N, C)``, of images that took no part in training.
        labels: ``(N,)``, indices of the true classes.
        weights: ``(N,)``, how much each image counts; ``None``: all alike.
        min_images: with fewer, the temperature is 1.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    wide = np.asarray(logits, dtype=np.float64)
    num_images, num_classes = wide.shape
    if num_images < min_images:
        return 1.0
    # 1) Platt's targets: every class gets ``soft``, the true one the rest.
    soft = _softened(num_images, num_classes)

    def cross_entropy(log_temperature: float) -> float:
        log_probabilities = log_softmax(wide / np.exp(log_temperature), axis=1)
        true = _mean(log_probabilities[np.arange(num_images), labels], weights)
        return -float((1 - num_classes * soft) * true + soft * _mean(log_probabilities.sum(axis=1), weights))

    # 2) Minimize over the logarithm of the temperature, in which the problem is well scaled.
    low, high = np.log(TEMPERATURE_RANGE)
    minimum = minimize_scalar(cross_entropy, bounds=(low, high), method="bounded", options={"xatol": 1e-5})
    return float(np.clip(np.exp(minimum.x), *TEMPERATURE_RANGE))


def _softened(num_images: int, num_classes: int) -> float:
    """Return Platt's target of each class but the true one."""
    return 1.0 / ((num_images + 2) * max(num_classes - 1, 1))


def imbalanced_log_prior(labels: NDArray[np.integer], num_classes: int) -> NDArray[np.float64] | None:
    """Return the logarithms ``(C,)`` of the class frequencies if they are imbalanced more than 10 times, else ``None``.

    Args:
        labels: ``(N,)``, indices of the classes.
        num_classes: ``C``; a class without images counts as certain, so that it is not adjusted.
    """
    counts = np.bincount(labels, minlength=num_classes)
    present = counts[counts > 0]
    if present.size < 2 or present.max() <= STRONGLY_IMBALANCED * present.min():
        return None
    return np.asarray(np.log(np.where(counts > 0, counts / counts.sum(), 1.0)))


def fit_logit_adjustment(
    logits: NDArray[np.floating],
    labels: NDArray[np.integer],
    log_prior: NDArray[np.float64],
    weights: NDArray[np.float64] | None = None,
) -> tuple[float, NDArray[np.float64]]:
    """Return the strength (0 to 1) of a logit adjustment, and what to subtract from ``logits`` ``(C,)``. Deterministic.

    Regularized models find rare classes too seldom even by the frequencies they were trained with: regularization shrinks the
    weights, but not the bias. The strength minimizes the cross-entropy of held-out images, together with the temperature
    (bias-corrected temperature scaling, Alexandari et al. 2020), so probabilities stay calibrated for these frequencies. The
    bias is a multiple of the log-prior: 0 changes nothing, 1 gives all classes the same prior (Menon et al. 2021).

    Args:
        logits: ``(N, C)``, of images that took no part in training.
        labels: ``(N,)``, indices of the true classes.
        log_prior: ``(C,)``, of ``imbalanced_log_prior``.
        weights: ``(N,)``, how much each image counts; ``None``: all alike.
    """
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    # 1) Calibrate by the temperature alone, so that the strength has the scale of log-probabilities.
    temperature = fit_temperature(logits, labels, weights, min_images=2)
    wide = log_softmax(np.asarray(logits, dtype=np.float64) / temperature, axis=1)
    num_images, num_classes = wide.shape
    soft = _softened(num_images, num_classes)  # Platt's targets, as in ``fit_temperature``
    targets = np.full(wide.shape, soft)
    targets[np.arange(num_images), labels] += 1 - num_classes * soft
    shares = 1.0 if weights is None else (weights / weights.mean())[:, None]

    def cross_entropy(slope_and_shift: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        slope, shift = slope_and_shift
        log_probabilities = log_softmax(slope * wide - shift * log_prior, axis=1)
        errors = shares * (np.exp(log_probabilities) - targets) / num_images
        return -float((shares * targets * log_probabilities).sum() / num_images), np.array(
            [(errors * wide).sum(), -(errors @ log_prior).sum()]
        )

    # 2) Minimize over slope and shift, in which the problem is convex.
    minimum = minimize(cross_entropy, np.array([1.0, 0.0]), jac=True, bounds=((0.05, 20.0), (0.0, 20.0)), method="L-BFGS-B")
    slope, shift = minimum.x
    strength = float(min(shift / slope, 1.0))
    return strength, strength * temperature * log_prior


def confidence_bins(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> tuple[CalibrationBin, ...]:
    """Return up to 15 bins of equal width over the confidence, lowest first; bins without images are left out.

    Args:
        confidence: ``(N,)``, probability of the predicted class.
        correct: ``(N,)``, whether the prediction is right.
    """
    edges = np.linspace(0, 1, NUM_BINS + 1)
    bin_of = np.clip(np.ceil(confidence * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)
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
