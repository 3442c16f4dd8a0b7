"""Learning: activations, solved heads, the one trainer. torch lives here."""

from automl_tl.training.bench import Bench
from automl_tl.training.fit import fit
from automl_tl.training.fitted import Evidence, Fitted
from automl_tl.training.images import LabelledImages, label_images
from automl_tl.training.trial import Trial, trial

__all__ = ["Bench", "Evidence", "Fitted", "LabelledImages", "Trial", "fit", "label_images", "trial"]
