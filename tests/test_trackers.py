"""Experiment trackers: the real TensorBoard and MLflow, and what a fit needs of any tracker."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from automl_tl.cli.app import app
from automl_tl.errors import TrackerError
from automl_tl.evaluation import evaluate
from automl_tl.runtime.progress import QUIET, Logged
from automl_tl.trackers import TRACKERS, Listeners, metrics, open_trackers, parameters
from automl_tl.values import Estimate, FitOutcome
from tests.optional import import_of_dev_group
from tests.reports.example_facts import example_plan

ROWS: list[dict[str, float | str]] = [
    {"phase": "all", "epoch": 1, "loss": 0.9, "seconds": 1.0, "validation_loss": 0.8, "validation_accuracy": 0.5},
    {"phase": "all", "epoch": 2, "loss": 0.4, "seconds": 1.0, "validation_loss": 0.3, "validation_accuracy": 0.9},
]
OLD_CALLS = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own, of SQLAlchemy


@pytest.fixture
def outcome(tmp_path: Path) -> FitOutcome:
    labels = np.arange(40) % 2
    (tmp_path / "flowers-3.html").write_text("<h1>report</h1>")
    return FitOutcome(
        model="flowers@3",
        model_digest="5f0c",
        report=tmp_path / "flowers-3.html",
        plan=example_plan(),
        test=evaluate(labels, np.eye(2)[labels], ("ant", "bee")),
        measured=Estimate(latency_ms=11.0, size_mib=13.0),
        validation_accuracy=0.9,
        validation_interval=(0.8, 0.95),
        num_images={"train": 100, "test": 40},
        seconds=12.5,
        seconds_by_step={"training": 10.0},
    )


class Strict(Logged):
    """Progress for trackers that must not fail."""

    def warn(self, text: str) -> None:
        raise AssertionError(text)


def track(name: str, outcome: FitOutcome) -> Listeners:
    """Report a fit of two epochs to the tracker ``name``."""
    with open_trackers(name, Strict()) as listeners:
        listeners.started("flowers", outcome.plan)
        for row in ROWS:
            listeners.epoch(row)
        listeners.finished(outcome)
    return listeners


def test_parameters_are_scalars_with_short_values() -> None:
    values = parameters(example_plan())

    assert values["backbone"] == "lite/efficientnet_lite0"
    assert values["constraints.seed"] == 0
    assert values["data.num_images"] == 180
    assert all(isinstance(value, str | int | float) for value in values.values())


def test_metrics_leave_out_what_was_not_measured(outcome: FitOutcome) -> None:
    figures = metrics(outcome)

    assert figures["test/accuracy"] == 1.0
    assert figures["model/latency_ms"] == 11.0
    assert "fit/memory_mib" not in figures


def test_tensorboard_has_parameters_curves_metrics_and_model(
    outcome: FitOutcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_of_dev_group("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "runs"))
    track("tensorboard", outcome)
    (folder,) = (tmp_path / "runs").iterdir()
    events = EventAccumulator(str(folder))
    events.Reload()

    assert [(event.step, round(event.value, 3)) for event in events.Scalars("validation/loss")] == [(1, 0.8), (2, 0.3)]
    assert events.Scalars("test/accuracy")[0].value == 1.0
    assert "flowers@3" in str(events.Tensors("model/text_summary"))
    assert "lite/efficientnet_lite0" in str(events.Tensors("parameters/text_summary"))
    assert "flowers-3.html" in str(events.Tensors("report/text_summary"))
    assert "_hparams_/session_start_info" in events.summary_metadata


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """MLflow with a SQLite database, which takes seconds to make, in a folder of these tests."""
    module, folder = import_of_dev_group("mlflow"), tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        module.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        yield module
        module.set_tracking_uri(None)


def newest_run(mlflow: ModuleType) -> Any:  # noqa: ANN401 - MLflow has no types here
    client = mlflow.MlflowClient()
    return client.search_runs([client.get_experiment_by_name("flowers").experiment_id])[0]


@OLD_CALLS
def test_mlflow_has_parameters_curves_metrics_report_and_model(outcome: FitOutcome, mlflow: ModuleType) -> None:
    track("mlflow", outcome)
    client = mlflow.MlflowClient()
    run = newest_run(mlflow)

    assert run.info.status == "FINISHED"
    assert run.data.params["backbone"] == "lite/efficientnet_lite0"
    assert run.data.metrics["test/accuracy"] == 1.0
    assert [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "train/loss")] == [
        (1, 0.9),
        (2, 0.4),
    ]
    assert run.data.tags["automl_tl.model"] == "flowers@3"
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["flowers-3.html"]


@OLD_CALLS
def test_mlflow_marks_a_failed_fit(outcome: FitOutcome, mlflow: ModuleType) -> None:
    listeners = open_trackers("mlflow", QUIET)
    listeners.started("flowers", outcome.plan)
    with pytest.raises(KeyboardInterrupt), listeners:
        raise KeyboardInterrupt
    run = newest_run(mlflow)

    assert run.info.status == "FAILED"
    assert run.data.tags["automl_tl.error"].startswith("KeyboardInterrupt")


@OLD_CALLS
def test_mlflow_joins_the_run_that_is_active(outcome: FitOutcome, mlflow: ModuleType) -> None:
    with mlflow.start_run() as active:
        track("mlflow", outcome)
        assert mlflow.MlflowClient().get_run(active.info.run_id).info.status == "RUNNING"

    assert mlflow.MlflowClient().get_run(active.info.run_id).data.metrics["test/accuracy"] == 1.0


def test_wandb_keeps_a_run_offline(
    outcome: FitOutcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wandb = import_of_dev_group("wandb")
    for name, value in {"MODE": "offline", "DIR": str(tmp_path), "SILENT": "true"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)

    track("wandb", outcome)
    wandb.teardown()  # ends the process that writes the file
    (file,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")

    assert b"flowers@3" in file.read_bytes()
    assert b"validation/loss" in file.read_bytes()
    assert capsys.readouterr().out == ""


class FakeRun:
    """A run of Trackio or Weights & Biases, by the methods that both have in common."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config, self.logged, self.summary, self.is_finished = config, list[tuple[Any, Any]](), dict[str, Any](), False

    def log(self, values: dict[str, Any], step: int | None = None) -> None:
        self.logged.append((step, values))

    def finish(self, exit_code: int = 0) -> None:
        self.is_finished = True


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_fake_tracker_has_parameters_curves_metrics_and_model(
    name: str, outcome: FitOutcome, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, module = [], ModuleType(name)

    def init(project: str, config: dict[str, Any], **options: object) -> FakeRun:
        print("welcome")
        runs.append(FakeRun(config))
        return runs[-1]

    vars(module).update(init=init, Html=lambda text, inject: text)
    monkeypatch.setitem(sys.modules, name, module)

    track(name, outcome)
    (run,) = runs

    assert run.config["backbone"] == "lite/efficientnet_lite0"
    assert [step for step, _ in run.logged[:2]] == [1, 2]
    assert "'test/accuracy': 1.0" in f"{run.logged} {run.summary}"
    assert "flowers@3" in f"{run.logged} {run.summary}"
    assert run.is_finished
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", TRACKERS)
def test_fit_names_a_missing_package_before_it_starts(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = {"tensorboard": "torch.utils.tensorboard"}.get(name, name)
    monkeypatch.setitem(sys.modules, missing, None)

    result = CliRunner().invoke(app, ["auto", "fit", str(tmp_path / "nowhere"), "--track", name])

    assert isinstance(result.exception, TrackerError)
    assert f"`pip install {name}` installs it" in str(result.exception)


def test_open_trackers_suggests_a_name() -> None:
    with pytest.raises(TrackerError, match=r"There is no tracker 'ml-flow'. Did you mean 'mlflow'\?"):
        open_trackers("ml-flow", QUIET)


def test_trackers_are_imported_only_if_they_are_asked_for() -> None:
    code = "import sys, automl_tl.trackers as t; t.open_trackers((), None); print({*t.TRACKERS, 'torch'} & {*sys.modules})"

    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert completed.stdout == "set()\n"
