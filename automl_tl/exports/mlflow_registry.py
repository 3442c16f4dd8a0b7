"""Register an exported MLflow model in the registry of an MLflow server or database, with metrics, tags and aliases.

Only MLflow's client is needed (extra ``[mlflow]``). It finds the registry itself: ``MLFLOW_TRACKING_URI`` and, where models are
kept apart from runs, ``MLFLOW_REGISTRY_URI``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from automl_tl.errors import ModelError
from automl_tl_registry import ModelVersion

ARTIFACT_PATH: Final = "model"


class MLflowRegistry:
    """The MLflow registry that the environment names."""

    def __init__(self) -> None:
        """Connect.

        Raises:
            ModelError: MLflow is not installed, or its registry can't be reached.
        """
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # MLflow's own 7 take four minutes
        try:
            mlflow: Any = import_module("mlflow")
        except ImportError as error:
            raise ModelError(f"--register needs MLflow ({error}): `pip install 'automl-tl[mlflow]'`.") from error
        self.uri = str(mlflow.get_registry_uri())
        with self._explained():
            self._client = mlflow.MlflowClient()
            self._client.search_registered_models(max_results=1)

    def register(self, folder: Path, version: ModelVersion) -> str:
        """Register an export and return its address, ``models:/NAME/NUMBER``; one that is there only gets aliases and tags.

        Args:
            folder: of the export.
            version: what was exported. Its metrics and parameters become a run in the experiment of the model's name.

        Raises:
            ModelError: the registry refuses it or can't be reached.
        """
        client, name = self._client, version.name
        identity = {"automl_tl.model": version.ref, "automl_tl.model_digest": version.facts.model_digest}
        with self._explained():
            registered = client.search_registered_models(filter_string=f"name='{name}'")
            if not registered:
                client.create_registered_model(name)
            existing = client.search_model_versions(f"name='{name}'")
            number = next((one.version for one in existing if identity.items() <= one.tags.items()), None)
            if number is None:
                run = self._log_run(folder, version)
                source = f"{run.info.artifact_uri}/{ARTIFACT_PATH}"
                number = client.create_model_version(name, source, run_id=run.info.run_id, tags=identity).version
            for tag in version.tags:
                client.set_model_version_tag(name, number, tag, "true")
            for alias in version.aliases:
                client.set_registered_model_alias(name, alias, number)
        return f"models:/{name}/{number}"

    def _log_run(self, folder: Path, version: ModelVersion) -> Any:  # noqa: ANN401 - MLflow has no types
        """Log metrics, parameters and files of a version as a finished run."""
        client, facts = self._client, version.facts
        experiment = client.get_experiment_by_name(version.name)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(version.name)
        run = client.create_run(experiment_id, run_name=version.ref)
        client.log_param(run.info.run_id, "backbone", facts.backbone)
        client.log_param(run.info.run_id, "strategy", facts.strategy)
        for name, value in metrics_of(version).items():
            client.log_metric(run.info.run_id, f"test/{name}", value)
        client.log_artifacts(run.info.run_id, str(folder), ARTIFACT_PATH)
        client.set_terminated(run.info.run_id, "FINISHED")
        return run

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            with redirect_stdout(sys.stderr):  # MLflow's links
                yield
        except Exception as error:  # of MLflow, its HTTP library, its database or its storage
            reason = (str(error).strip() or type(error).__name__).partition("\n")[0][:300].rstrip(". ")
            raise ModelError(
                f"The MLflow registry {self.uri} can't be used: {reason}. MLFLOW_TRACKING_URI names another."
            ) from error


def metrics_of(version: ModelVersion) -> dict[str, float]:
    """Return the figures of the test split by name."""
    metrics = version.facts.metrics
    low, high = metrics.interval
    figures = {name: metrics.figure(name) for name in metrics.model_dump() if name != "interval"}
    figures |= {"accuracy": metrics.accuracy, "accuracy_low": low, "accuracy_high": high, "num_images": metrics.num_images}
    return {name: value for name, value in figures.items() if value is not None}
