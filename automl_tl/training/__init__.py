"""Training: cached activations, closed-form heads, and the training loop. Uses torch."""

from automl_tl.training.fit import Fitted, Trial, fit, trial
from automl_tl.training.images import LabeledImages, label_images
from automl_tl.training.run import Evidence, TrainingTask
from automl_tl.training.workspace import Workspace

__all__ = ["Evidence", "Fitted", "LabeledImages", "TrainingTask", "Trial", "Workspace", "fit", "label_images", "trial"]
