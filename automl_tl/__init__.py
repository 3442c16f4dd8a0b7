"""AutoML for image classification by transfer learning, with a local model registry.

    import automl_tl
    outcome = automl_tl.fit("./images")
    model = automl_tl.load(outcome.model)
    for prediction in model.predict(["photo.jpg"]):
        print(prediction.label, prediction.probability)

Importing this module loads no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from automl_tl.values import Evaluation, FitOutcome, Plan, Wishes

if TYPE_CHECKING:
    from automl_tl.inference.predictor import Predictor

__all__ = ["Evaluation", "FitOutcome", "Plan", "Wishes", "evaluate", "fit", "load", "plan"]


def fit(
    images: str | Path,
    *,
    name: str | None = None,
    wishes: Wishes = Wishes(),
    plan: Plan | None = None,
    registry: str | Path | None = None,
) -> FitOutcome:
    """Choose, train, measure and register a classifier for ``images``; see ``tl auto fit``."""
    from automl_tl.workflow import auto_fit

    return auto_fit(Path(images), name=name, wishes=wishes, plan=plan, registry=_path(registry))


def plan(images: str | Path, *, wishes: Wishes = Wishes()) -> Plan:
    """What ``fit`` would do with ``images``, and why; see ``tl auto plan``."""
    from automl_tl.workflow import auto_plan

    return auto_plan(Path(images), wishes=wishes)


def load(ref: str, *, registry: str | Path | None = None) -> Predictor:
    """The model that ``ref`` (``name``, ``name@3``, ``name@production``) means now, ready to predict."""
    from automl_tl.models import load

    return load(ref, registry=_path(registry))


def evaluate(ref: str, images: str | Path, *, registry: str | Path | None = None) -> Evaluation:
    """How well a registered model does on labelled ``images``; see ``tl evaluate``."""
    from automl_tl.models import evaluate_model

    return evaluate_model(ref, Path(images), registry=_path(registry))


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)
