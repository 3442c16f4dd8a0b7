"""Experiment trackers: what listens to a fit, and adapters for TensorBoard, MLflow, Trackio and Weights & Biases.

Each adapter writes through the tracker's own library, which is imported only if it is asked for and takes its settings from its
own environment variables (``MLFLOW_TRACKING_URI``, ``WANDB_MODE`` ...).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from datetime import datetime
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol

from pydantic import BaseModel

from automl_tl.errors import TrackerError, near_name
from automl_tl.runtime.progress import Progress
from automl_tl.values import FitOutcome, Plan

Scalar = str | int | float | bool
Row = Mapping[str, float | str]
"""One epoch of the learning curves: ``phase``, ``epoch``, ``loss``, ``seconds``, and validation figures if there are some."""

CURVES: Final = {
    "loss": "train/loss",
    "validation_loss": "validation/loss",
    "validation_accuracy": "validation/accuracy",
    "seconds": "train/seconds",
}


class Listener(Protocol):
    """What follows a fit. One that raises is left out of the rest of the fit, with a warning."""

    def started(self, name: str, plan: Plan) -> None:
        """Training starts.

        Args:
            name: of the model in the registry.
            plan: what will be trained.
        """

    def epoch(self, row: Row) -> None:
        """An epoch has ended."""

    def finished(self, outcome: FitOutcome) -> None:
        """The model is registered, and its report written."""

    def failed(self, error: BaseException) -> None:
        """The fit ends without a model; Ctrl-C included."""


class Listeners:
    """Calls several listeners, none of which can end the fit. A context: an exception inside is a failed fit."""

    def __init__(self, listeners: Sequence[Listener], progress: Progress) -> None:
        self._listeners, self._progress = list(listeners), progress

    def __enter__(self) -> Listeners:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if error is not None:
            self.failed(error)

    def started(self, name: str, plan: Plan) -> None:
        """See ``Listener``."""
        self._call(lambda listener: listener.started(name, plan))

    def epoch(self, row: Row) -> None:
        """See ``Listener``."""
        self._call(lambda listener: listener.epoch(row))

    def finished(self, outcome: FitOutcome) -> None:
        """See ``Listener``."""
        self._call(lambda listener: listener.finished(outcome))

    def failed(self, error: BaseException) -> None:
        """See ``Listener``."""
        self._call(lambda listener: listener.failed(error))

    def _call(self, event: Callable[[Listener], None]) -> None:
        for listener in tuple(self._listeners):
            try:
                with redirect_stdout(sys.stderr):  # trackers greet on stdout, which is for results
                    event(listener)
            except Exception as error:  # a tracker is foreign code, often on a network
                self._listeners.remove(listener)
                problem = f"{type(error).__name__}: {error}".partition("\n")[0]
                self._progress.warn(f"{type(listener).__name__} failed ({problem}); the fit continues without it.")


def open_trackers(track: str | Listener | Sequence[str | Listener], progress: Progress) -> Listeners:
    """Return the listeners of a fit.

    Args:
        track: names of trackers, or objects with the methods of ``Listener``.
        progress: receives a warning about a tracker that fails.

    Raises:
        TrackerError: there is no tracker of this name, or its package is not installed.
    """
    asked = track if isinstance(track, Sequence) and not isinstance(track, str) else [track]
    return Listeners([_open(one) if isinstance(one, str) else one for one in asked], progress)


def _open(name: str) -> Listener:
    if name not in TRACKERS:
        hint = near_name(name, TRACKERS, f"Expected one of {', '.join(TRACKERS)}.")
        raise TrackerError(f"There is no tracker {name!r}. {hint}")
    try:
        return TRACKERS[name]()
    except ImportError as error:
        raise TrackerError(f"Tracking by {name} needs its package ({error}). `pip install {name}` installs it.") from error


def parameters(plan: Plan) -> dict[str, Scalar]:
    """Return what a plan decides, and what it was made for, as names and scalars."""
    values = {
        "backbone": plan.backbone,
        "strategy": plan.strategy,
        "option": plan.strategy_options,
        "recipe": plan.recipe,
        "preprocessing": plan.preprocessing,
        "constraints": plan.constraints,
        "data": plan.profile.model_dump(exclude={"images_per_class"}),
    }
    return dict(_flattened(values))


def _flattened(value: object, name: str = "") -> Iterator[tuple[str, Scalar]]:
    """Yield the scalars of nested values, by names joined by dots; what is absent or empty is left out."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, list | tuple):
        value = dict(enumerate(value))
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flattened(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, str | int | float):
        yield name, value


def metrics(outcome: FitOutcome) -> dict[str, float]:
    """Return the figures of a finished fit by name."""
    test, measured = outcome.test, outcome.measured
    low, high = test.interval
    figures = {
        "test/accuracy": test.accuracy,
        "test/accuracy_low": low,
        "test/accuracy_high": high,
        "test/balanced_accuracy": test.balanced_accuracy,
        "test/macro_f1": test.macro_f1,
        "test/log_loss": test.log_loss,
        "test/calibration_error": test.calibration_error,
        "test/top5_accuracy": test.top5_accuracy,
        "expected/accuracy": outcome.plan.expected.accuracy,
        "model/validation_accuracy": outcome.validation_accuracy,
        "fit/seconds": outcome.seconds,
        "model/latency_ms": measured.latency_ms,
        "model/size_mib": measured.size_mib,
        "fit/memory_mib": measured.memory_mib,
    }
    return {name: float(value) for name, value in figures.items() if value is not None}


def _curve_points(row: Row) -> dict[str, float]:
    return {name: float(row[column]) for column, name in CURVES.items() if column in row}


class TensorBoard:
    """Event files in ``runs/NAME-TIME``, or below ``TENSORBOARD_LOGGING_DIR``."""

    def __init__(self) -> None:
        self._make_writer: Any = import_module("torch.utils.tensorboard").SummaryWriter

    def started(self, name: str, plan: Plan) -> None:
        """See ``Listener``."""
        folder = Path(os.environ.get("TENSORBOARD_LOGGING_DIR", "runs")) / f"{name}-{datetime.now():%Y%m%d-%H%M%S-%f}"
        self._writer = self._make_writer(str(folder))
        rows = [f"| {key} | {value} |" for key, value in parameters(plan).items()]
        self._writer.add_text("parameters", "\n".join(("| parameter | value |", "| --- | --- |", *rows)))

    def epoch(self, row: Row) -> None:
        """See ``Listener``."""
        for name, value in _curve_points(row).items():
            self._writer.add_scalar(name, value, int(row["epoch"]))
        self._writer.flush()

    def finished(self, outcome: FitOutcome) -> None:
        """See ``Listener``."""
        figures = metrics(outcome)
        for name, value in figures.items():
            self._writer.add_scalar(name, value, 0)
        self._writer.add_hparams(
            parameters(outcome.plan), {f"hparam/{name}": value for name, value in figures.items()}, run_name="."
        )
        self._writer.add_text("model", f"{outcome.model} ({outcome.model_digest})")
        self._writer.add_text("report", str(outcome.report or "not written"))
        self._writer.close()

    def failed(self, error: BaseException) -> None:
        """See ``Listener``."""
        self._writer.add_text("failed", f"{type(error).__name__}: {error}")
        self._writer.close()


class MLflow:
    """A run in the experiment that has the model's name, or in the run that is active in this process."""

    def __init__(self) -> None:
        self._mlflow = import_module("mlflow")

    def started(self, name: str, plan: Plan) -> None:
        """See ``Listener``."""
        self._client, active = self._mlflow.MlflowClient(), self._mlflow.active_run()
        self._is_own = active is None
        self._run_id = active.info.run_id if active else self._new_run(os.environ.get("MLFLOW_EXPERIMENT_NAME", name), plan)
        for key, value in parameters(plan).items():
            self._client.log_param(self._run_id, key, value)

    def _new_run(self, experiment: str, plan: Plan) -> str:
        existing = self._client.get_experiment_by_name(experiment)
        experiment_id = existing.experiment_id if existing else self._client.create_experiment(experiment)
        return str(self._client.create_run(experiment_id, run_name=f"{plan.strategy} on {plan.backbone}").info.run_id)

    def epoch(self, row: Row) -> None:
        """See ``Listener``."""
        for name, value in _curve_points(row).items():
            self._client.log_metric(self._run_id, name, value, step=int(row["epoch"]))

    def finished(self, outcome: FitOutcome) -> None:
        """See ``Listener``."""
        for name, value in metrics(outcome).items():
            self._client.log_metric(self._run_id, name, value)
        self._client.set_tag(self._run_id, "automl_tl.model", outcome.model)
        self._client.set_tag(self._run_id, "automl_tl.model_digest", outcome.model_digest)
        if outcome.report:
            self._client.log_artifact(self._run_id, str(outcome.report))
        self._end("FINISHED")

    def failed(self, error: BaseException) -> None:
        """See ``Listener``."""
        self._client.set_tag(self._run_id, "automl_tl.error", f"{type(error).__name__}: {error}")
        self._end("FAILED")

    def _end(self, status: str) -> None:
        if self._is_own:
            self._client.set_terminated(self._run_id, status)


class Trackio:
    """A run in the project that has the model's name, local unless Trackio is set up otherwise."""

    def __init__(self) -> None:
        self._trackio = import_module("trackio")

    def started(self, name: str, plan: Plan) -> None:
        """See ``Listener``."""
        self._run = self._trackio.init(project=name, config=parameters(plan), embed=False)

    def epoch(self, row: Row) -> None:
        """See ``Listener``."""
        self._run.log(_curve_points(row), step=int(row["epoch"]))

    def finished(self, outcome: FitOutcome) -> None:
        """See ``Listener``."""
        self._run.log({**metrics(outcome), "model": outcome.model, "model_digest": outcome.model_digest})
        if outcome.report:
            self._run.log({"report": self._trackio.Html(outcome.report.read_text(encoding="utf-8"), inject=False)})
        self._run.finish()

    def failed(self, error: BaseException) -> None:
        """See ``Listener``."""
        self._run.log({"error": f"{type(error).__name__}: {error}"})
        self._run.finish()


class WeightsAndBiases:
    """A run in the project that has the model's name; ``WANDB_MODE=offline`` keeps it on this machine."""

    def __init__(self) -> None:
        self._wandb = import_module("wandb")

    def started(self, name: str, plan: Plan) -> None:
        """See ``Listener``."""
        self._run = self._wandb.init(project=os.environ.get("WANDB_PROJECT", name), config=parameters(plan))

    def epoch(self, row: Row) -> None:
        """See ``Listener``."""
        self._run.log(_curve_points(row), step=int(row["epoch"]))

    def finished(self, outcome: FitOutcome) -> None:
        """See ``Listener``."""
        self._run.summary.update({**metrics(outcome), "model": outcome.model, "model_digest": outcome.model_digest})
        if outcome.report:
            self._run.log({"report": self._wandb.Html(outcome.report.read_text(encoding="utf-8"), inject=False)})
        self._run.finish()

    def failed(self, error: BaseException) -> None:
        """See ``Listener``."""
        self._run.summary.update({"error": f"{type(error).__name__}: {error}"})
        self._run.finish(exit_code=1)


TRACKERS: Final[Mapping[str, Callable[[], Listener]]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "trackio": Trackio,
    "wandb": WeightsAndBiases,
}
