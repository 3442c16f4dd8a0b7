"""AutoML for image classification by transfer learning, with a local model registry.

    import automl_tl
    outcome = automl_tl.fit("./images")
    model = automl_tl.load(outcome.model)
    for prediction in model.predict(["photo.jpg"]):
        print(prediction.label, prediction.probability)

Importing this module loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from automl_tl.models.predictor import Predictor
    from automl_tl.values import Constraints, Evaluation, FitOutcome, Plan

__all__ = ["Constraints", "Evaluation", "FitOutcome", "Plan", "evaluate", "fit", "load", "plan"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the values
    # They stand on pydantic, which takes a quarter of the time of `tl --help`: loaded when first used.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("automl_tl.values"), name)


def fit(
    images: str | Path,
    *,
    name: str | None = None,
    constraints: Constraints | None = None,
    plan: Plan | None = None,
    registry: str | Path | None = None,
) -> FitOutcome:
    """Choose, train, measure and register a classifier for ``images``; see ``tl auto fit``."""
    from automl_tl.values import Constraints
    from automl_tl.workflows.fit import auto_fit

    return auto_fit(Path(images), name=name, constraints=constraints or Constraints(), plan=plan, registry=_path(registry))


def plan(images: str | Path, *, constraints: Constraints | None = None) -> Plan:
    """What ``fit`` would do with ``images``, and why; see ``tl auto plan``."""
    from automl_tl.values import Constraints
    from automl_tl.workflows.fit import auto_plan

    return auto_plan(Path(images), constraints=constraints or Constraints())


def load(ref: str, *, registry: str | Path | None = None) -> Predictor:
    """The model that ``ref`` (``name``, ``name@3``, ``name@production``) means now, ready to predict."""
    from automl_tl.workflows.evaluate import load

    return load(ref, registry=_path(registry))


def evaluate(ref: str, images: str | Path, *, registry: str | Path | None = None) -> Evaluation:
    """How well a registered model does on labeled ``images``; see ``tl evaluate``."""
    from automl_tl.workflows.evaluate import evaluate_model

    return evaluate_model(ref, Path(images), registry=_path(registry))


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)
