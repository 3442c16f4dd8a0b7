"""Evaluation of models: metrics, intervals, calibration, abstention, OOD detection and drift. No torch."""

from automl_tl.evaluation.calibration import (
    calibrated_losses,
    fit_logit_adjustment,
    fit_temperature,
    imbalanced_log_prior,
    log_losses,
    softmax,
)
from automl_tl.evaluation.intervals import class_mean_intervals, clopper_pearson_upper, design_effect, wilson
from automl_tl.evaluation.metrics import evaluate
from automl_tl.evaluation.reference_features import unit_length
from automl_tl.evaluation.scores import balanced_weights, losses, metric_value, score

__all__ = [
    "balanced_weights",
    "calibrated_losses",
    "class_mean_intervals",
    "clopper_pearson_upper",
    "design_effect",
    "evaluate",
    "fit_logit_adjustment",
    "fit_temperature",
    "imbalanced_log_prior",
    "log_losses",
    "losses",
    "metric_value",
    "score",
    "softmax",
    "unit_length",
    "wilson",
]
