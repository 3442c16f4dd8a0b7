"""AutoML for image classification by transfer learning, with a local model registry.

    import automl_tl
    outcome = automl_tl.fit("./images", budget="5m")
    model = automl_tl.load(outcome.model)
    for prediction in model.predict(["photo.jpg"]):
        print(prediction.label, prediction.probability)

Every verb of the command line is a function here, whose parameters have the names of the options; the verbs of ``tl registry``
are methods of ``registry()``. Nothing is printed: what the command line prints on stderr goes to the logger ``automl_tl``.
Importing this module loads neither torch nor pydantic: a name is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from automl_tl import sklearn
    from automl_tl.models.rows import Predictions
    from automl_tl.runtime.progress_bars import ProgressBars
    from automl_tl.values import Constraints, Evaluation, FitOutcome, Plan, Prediction
    from automl_tl.workflows.bench import bench
    from automl_tl.workflows.check import check
    from automl_tl.workflows.doctor import doctor
    from automl_tl.workflows.drift import drift
    from automl_tl.workflows.evaluate import evaluate
    from automl_tl.workflows.explain import explain
    from automl_tl.workflows.export import export
    from automl_tl.workflows.export_data import export_data
    from automl_tl.workflows.fit import fit
    from automl_tl.workflows.model import Model, load
    from automl_tl.workflows.next_labels import next_labels
    from automl_tl.workflows.plan import plan
    from automl_tl.workflows.predict import predict
    from automl_tl.workflows.pull import pull
    from automl_tl.workflows.registry import registry
    from automl_tl.workflows.report import report
    from automl_tl.workflows.review import review
    from automl_tl.workflows.split import split

    __version__: str

__all__ = [
    "Constraints",
    "Evaluation",
    "FitOutcome",
    "Model",
    "Plan",
    "Prediction",
    "Predictions",
    "ProgressBars",
    "bench",
    "check",
    "doctor",
    "drift",
    "evaluate",
    "explain",
    "export",
    "export_data",
    "fit",
    "load",
    "next_labels",
    "plan",
    "predict",
    "pull",
    "registry",
    "report",
    "review",
    "sklearn",
    "split",
]

_MODULES = {
    "Model": "workflows.model",
    "Predictions": "models.rows",
    "ProgressBars": "runtime.progress_bars",
    "load": "workflows.model",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a function or a class
    if name == "__version__":
        from importlib.metadata import version

        return version("automl-tl")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "sklearn":
        return import_module("automl_tl.sklearn")
    module = _MODULES.get(name) or ("values" if name[0].isupper() else f"workflows.{name}")
    return getattr(import_module(f"automl_tl.{module}"), name)


def __dir__() -> list[str]:
    return __all__
