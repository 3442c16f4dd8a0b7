# ruff: noqa: TID253 - the reference that the numbers are compared with
from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import softmax as scipy_softmax
from sklearn.calibration import calibration_curve

from automl_tl.evaluation.calibration import (
    TEMPERATURE_RANGE,
    calibrated_losses,
    confidence_bins,
    fit_logit_adjustment,
    fit_temperature,
    imbalanced_log_prior,
    log_losses,
    softmax,
)


def overconfident(temperature: float, num_images: int = 4000) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    generator = np.random.default_rng(0)
    logits = generator.normal(scale=2.0, size=(num_images, 4))
    labels = np.array([generator.choice(4, p=row) for row in scipy_softmax(logits, axis=1)])
    return logits * temperature, labels


def test_softmax_scales_and_never_overflows() -> None:
    logits = np.array([[1.0, 2.0, 3.0], [1e4, 0.0, -1e4]])

    assert softmax(logits, 2.0) == pytest.approx(scipy_softmax(logits / 2.0, axis=1))


@pytest.mark.parametrize("truth", [0.2, 1.0, 3.0])
def test_fit_temperature_recovers_true_temperature(truth: float) -> None:
    assert fit_temperature(*overconfident(truth)) == pytest.approx(truth, rel=0.05)


def test_fit_temperature_minimizes_log_loss() -> None:
    logits, labels = overconfident(2.0)

    fitted = fit_temperature(logits, labels)

    on_grid = [log_losses(logits, labels, t).mean() for t in np.geomspace(*TEMPERATURE_RANGE, 200)]
    assert log_losses(logits, labels, fitted).mean() <= min(on_grid) + 1e-4


def test_fit_temperature_is_1_for_few_images() -> None:
    assert fit_temperature(*overconfident(3.0, num_images=49)) == 1.0


@pytest.mark.parametrize("num_classes", [2, 3, 30])
def test_fit_temperature_keeps_perfect_model_as_uncertain_with_many_classes(num_classes: int) -> None:
    labels = np.arange(60) % num_classes
    logits = np.eye(num_classes)[labels] * 4.0

    probabilities = softmax(logits, fit_temperature(logits, labels))

    assert probabilities.max(axis=1) == pytest.approx(61 / 62, abs=1e-3)  # Platt's target: (N + 1) / (N + 2)


def test_fit_temperature_stays_in_range() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 300)

    fitted = fit_temperature(generator.normal(size=(300, 3)) * 100, labels)

    assert fitted == pytest.approx(TEMPERATURE_RANGE[1], rel=1e-2)


def test_confidence_bins_equal_scikit_learn() -> None:
    logits, labels = overconfident(2.0)
    probabilities = softmax(logits)

    right = probabilities.argmax(axis=1) == labels

    bins = confidence_bins(probabilities.max(axis=1), right)

    accuracy, confidence = calibration_curve(right, probabilities.max(axis=1), n_bins=15)
    assert [b.accuracy for b in bins] == pytest.approx(accuracy)
    assert [b.confidence for b in bins] == pytest.approx(confidence)
    assert sum(b.num_images for b in bins) == len(labels)


def test_calibrated_losses_ignore_scale_of_logits() -> None:
    logits, labels = overconfident(1.0)

    assert calibrated_losses(5 * logits, labels) == pytest.approx(calibrated_losses(logits, labels), abs=1e-3)
    assert calibrated_losses(5 * logits, labels).mean() < log_losses(5 * logits, labels).mean()


def test_imbalanced_log_prior_is_of_strong_imbalance_only() -> None:
    assert imbalanced_log_prior(np.repeat([0, 1], [50, 5]), 2) is None
    assert imbalanced_log_prior(np.repeat([0], [50]), 2) is None
    assert imbalanced_log_prior(np.repeat([0, 2], [51, 5]), 3) == pytest.approx(np.log([51 / 56, 1, 5 / 56]))


@pytest.mark.parametrize("bias", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("temperature", [0.3, 2.0])
def test_fit_logit_adjustment_undoes_a_bias_towards_frequent_classes(bias: float, temperature: float) -> None:
    generator = np.random.default_rng(0)
    prior = np.array([0.97, 0.02, 0.01])
    logits = generator.normal(size=(6000, 3)) + np.log(prior)
    labels = np.array([generator.choice(3, p=row) for row in scipy_softmax(logits, axis=1)])
    log_prior = imbalanced_log_prior(labels, 3)
    assert log_prior is not None

    biased = (logits + bias * log_prior) * temperature

    strength, shift = fit_logit_adjustment(biased, labels, log_prior)

    assert calibrated_losses(biased - shift, labels).mean() == pytest.approx(log_losses(logits, labels).mean(), abs=5e-3)
    assert (strength > 0.1) == (bias > 0)


def test_fit_logit_adjustment_of_a_model_that_ignores_a_class_comes_near_equal_priors() -> None:
    labels = np.repeat([0, 1], [60, 5])
    logits = np.where(np.eye(2)[labels] == 1, 0.2, 0.0) + np.array([4.0, 0.0])
    log_prior = imbalanced_log_prior(labels, 2)
    assert log_prior is not None

    strength, shift = fit_logit_adjustment(logits, labels, log_prior)

    assert 0.8 < strength <= 1.0
    assert ((logits - shift).argmax(axis=1) == labels).all()
