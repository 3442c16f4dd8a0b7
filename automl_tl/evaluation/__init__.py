"""What a model is worth: metrics, intervals, calibration, abstention and the report. numpy and scikit-learn, no torch."""

from automl_tl.evaluation.arrays import FloatArray, IntArray
from automl_tl.evaluation.calibration import (
    Calibration,
    CalibrationBin,
    calibrate,
    calibrated_losses,
    calibration_bins,
    fit_temperature,
    log_losses,
    softmax,
)
from automl_tl.evaluation.intervals import class_mean_intervals, clopper_pearson_upper, wilson
from automl_tl.evaluation.measure import calibration_error, evaluate

__all__ = [
    "Calibration",
    "CalibrationBin",
    "FloatArray",
    "IntArray",
    "calibrate",
    "calibrated_losses",
    "calibration_bins",
    "calibration_error",
    "class_mean_intervals",
    "clopper_pearson_upper",
    "evaluate",
    "fit_temperature",
    "log_losses",
    "softmax",
    "wilson",
]
