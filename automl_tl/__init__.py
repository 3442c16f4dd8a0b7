"""AutoML for image classification by transfer learning, with a local model registry.

    import automl_tl
    outcome = automl_tl.fit("./images")
    model = automl_tl.load(outcome.model)
    for prediction in model.predict(["photo.jpg"]):
        print(prediction.label, prediction.probability)

Every verb of the command line is a function here. Importing this module loads no torch: each verb imports its workflow
when it is called.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from automl_tl.runtime.budget import Deadline
from automl_tl.runtime.progress import QUIET, Progress

if TYPE_CHECKING:
    from automl_tl.evaluation.drift import Drift
    from automl_tl.exports import Exported, ExportFormat, Precision
    from automl_tl.reports import Explanation, ReportFacts
    from automl_tl.values import BenchCell, Constraints, Evaluation, FitOutcome, Plan, Prediction
    from automl_tl.workflows.dataset import DataCheck
    from automl_tl.workflows.doctor import InstallationCheck
    from automl_tl.workflows.evaluate import ModelEvaluation
    from automl_tl.workflows.model import Model

__all__ = [
    "Constraints",
    "Evaluation",
    "FitOutcome",
    "Plan",
    "Prediction",
    "bench",
    "check",
    "doctor",
    "drift",
    "evaluate",
    "explain",
    "export",
    "fit",
    "load",
    "plan",
    "predict",
    "report",
]

VALUES = ("Constraints", "Evaluation", "FitOutcome", "Plan", "Prediction")


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the values
    # The values import pydantic, a quarter of the time of `tl --help`: loaded when first used.
    if name not in VALUES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("automl_tl.values"), name)


def fit(
    images: str | Path,
    *,
    name: str | None = None,
    constraints: Constraints | None = None,
    plan: Plan | None = None,
    registry: str | Path | None = None,
    progress: Progress = QUIET,
) -> FitOutcome:
    """Choose, train, evaluate and register a classifier for ``images``; see ``automl_tl.workflows.fit.fit``."""
    requested = constraints or (plan.constraints if plan else None)
    deadline = _start(requested.budget_s if requested else None)
    from automl_tl.workflows.fit import fit

    return fit(
        Path(images),
        name=name,
        constraints=constraints,
        plan=plan,
        registry=_path(registry),
        progress=progress,
        deadline=deadline,
    )


def plan(images: str | Path, *, constraints: Constraints | None = None, progress: Progress = QUIET) -> Plan:
    """Return what ``fit`` would do with ``images``, and why; see ``automl_tl.workflows.plan.plan``."""
    deadline = _start(constraints.budget_s if constraints else None)
    from automl_tl.workflows.plan import plan

    return plan(Path(images), constraints=constraints, progress=progress, deadline=deadline)


def check(images: str | Path, *, labels: bool = False, progress: Progress = QUIET) -> DataCheck:
    """Scan and audit ``images``; see ``automl_tl.workflows.dataset.check``."""
    from automl_tl.workflows.dataset import check

    return check(Path(images), labels=labels, progress=progress)


def load(model: str, *, registry: str | Path | None = None) -> Model:
    """Open a registered model (``name``, ``name@3``, ``name@production``), ready to predict."""
    from automl_tl.workflows.model import open_model

    return open_model(model, registry=_path(registry))


def predict(
    model: str,
    images: Sequence[str],
    *,
    max_error: float | None = None,
    reject_ood: bool = True,
    copy_to: str | Path | None = None,
    registry: str | Path | None = None,
    progress: Progress = QUIET,
) -> Iterator[Prediction]:
    """Predict images with a registered model; see ``automl_tl.workflows.predict.predict``."""
    from automl_tl.workflows.predict import predict

    return predict(
        model,
        images,
        max_error=max_error,
        reject_ood=reject_ood,
        copy_to=_path(copy_to),
        registry=_path(registry),
        progress=progress,
    )


def evaluate(
    model: str, images: str | Path, *, registry: str | Path | None = None, progress: Progress = QUIET
) -> ModelEvaluation:
    """Evaluate a registered model on labeled ``images``; see ``automl_tl.workflows.evaluate.evaluate``."""
    from automl_tl.workflows.evaluate import evaluate

    return evaluate(model, Path(images), registry=_path(registry), progress=progress)


def explain(
    model: str,
    images: Sequence[str],
    *,
    out: str | Path = "explanations",
    training_images: str | Path | None = None,
    registry: str | Path | None = None,
    progress: Progress = QUIET,
) -> list[Explanation]:
    """Explain predictions of a registered model; see ``automl_tl.workflows.explain.explain``."""
    from automl_tl.workflows.explain import explain

    return explain(
        model,
        images,
        out=Path(out),
        training_images=_path(training_images),
        registry=_path(registry),
        progress=progress,
    )


def drift(
    model: str,
    images: Sequence[str],
    *,
    copy_to: str | Path | None = None,
    registry: str | Path | None = None,
    progress: Progress = QUIET,
) -> Drift:
    """Compare new images with a model's training images; see ``automl_tl.workflows.drift.drift``."""
    from automl_tl.workflows.drift import drift

    return drift(model, images, copy_to=_path(copy_to), registry=_path(registry), progress=progress)


def export(
    model: str,
    *,
    export_format: ExportFormat = "onnx",
    precisions: Sequence[Precision] = ("fp32",),
    out: str | Path | None = None,
    images: str | Path | None = None,
    registry: str | Path | None = None,
    progress: Progress = QUIET,
) -> list[Exported]:
    """Write a registered model for another runtime; see ``automl_tl.workflows.export.export``."""
    from automl_tl.workflows.export import export

    return export(
        model,
        export_format=export_format,
        precisions=precisions,
        out=_path(out),
        images=_path(images),
        registry=_path(registry),
        progress=progress,
    )


def report(
    model: str,
    *,
    out: str | Path | None = None,
    images: str | Path | None = None,
    registry: str | Path | None = None,
    progress: Progress = QUIET,
) -> ReportFacts:
    """Write the HTML report of a registered model; see ``automl_tl.workflows.report.report``."""
    from automl_tl.workflows.report import report

    return report(model, out=_path(out), images=_path(images), registry=_path(registry), progress=progress)


def bench(
    images: str | Path,
    *,
    backbones: Sequence[str] = (),
    strategies: Sequence[str] = (),
    num_seeds: int = 1,
    out: str | Path = "bench",
    progress: Progress = QUIET,
) -> list[BenchCell]:
    """Compare backbones and strategies on one dataset; see ``automl_tl.workflows.bench.bench``."""
    from automl_tl.workflows.bench import bench

    return bench(
        Path(images), backbones=backbones, strategies=strategies, num_seeds=num_seeds, out=Path(out), progress=progress
    )


def doctor() -> list[InstallationCheck]:
    """Check the installation: packages, devices, weights, plugins and folders."""
    from automl_tl.workflows.doctor import doctor

    return doctor()


def _start(budget_s: float | None) -> Deadline:
    """Start the budget, and charge it for importing torch if that has not been imported yet."""
    deadline, is_first = Deadline(budget_s), "torch" not in sys.modules
    import_module("automl_tl.workflows.fit")
    if is_first:
        deadline.startup_s = deadline.spent_s
    return deadline


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)
