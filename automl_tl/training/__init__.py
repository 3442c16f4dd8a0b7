"""Learning: activations, solved heads, the one trainer. torch lives here."""

from automl_tl.training.fit import fit
from automl_tl.training.fitted import Evidence, Fitted
from automl_tl.training.images import LabeledImages, label_images
from automl_tl.training.trial import Trial, trial
from automl_tl.training.workspace import Workspace

__all__ = ["Evidence", "Fitted", "LabeledImages", "Trial", "Workspace", "fit", "label_images", "trial"]
