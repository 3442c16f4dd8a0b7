"""Registration in MLflow, read back with MLflow's own client from a SQLite database."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest

from automl_tl.errors import ModelError
from automl_tl.exports.mlflow_registry import MLflowRegistry
from automl_tl.workflows.export import export
from automl_tl_registry import Facts, Metrics, ModelVersion
from tests.optional import import_of_dev_group

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own, of SQLAlchemy


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """MLflow with a SQLite database, which takes seconds to make."""
    module, folder = import_of_dev_group("mlflow"), tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # artifacts are in ./mlruns
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        yield module


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    exported = tmp_path_factory.mktemp("exported")
    (exported / "MLmodel").write_text("{}")
    (exported / "code").mkdir()
    (exported / "code" / "image_model.py").write_text("")
    return exported


def version_of(name: str, number: int, **facts: object) -> ModelVersion:
    return ModelVersion(
        name=name,
        version=number,
        created_at=datetime(2026, 11, 28, tzinfo=UTC),
        actor="ada",
        manifest_digest="0" * 64,
        blobs={},
        facts=Facts(
            classes=["ant", "bee"],
            preprocessing={},
            backbone="lite/lite0",
            strategy="linear_probe",
            model_digest=f"digest {number}",
            metrics=Metrics.model_validate({"accuracy": 0.9, "interval": (0.8, 0.95), "num_images": 50, "log_loss": 0.3}),
        ),
        **facts,
    )


def test_register_has_metrics_parameters_tags_aliases_and_files(mlflow: ModuleType, folder: Path) -> None:
    version = version_of("ants", 3, aliases=("production", "staging"), tags=("reviewed",))

    address = MLflowRegistry().register(folder, version)

    client = mlflow.MlflowClient()
    registered = client.get_model_version_by_alias("ants", "production")
    run = client.get_run(registered.run_id)
    assert address == f"models:/ants/{registered.version}"
    assert set(client.get_registered_model("ants").aliases) == {"production", "staging"}
    assert registered.tags == {"automl_tl.model": "ants@3", "automl_tl.model_digest": "digest 3", "reviewed": "true"}
    assert run.info.status == "FINISHED"
    assert run.data.params == {"backbone": "lite/lite0", "strategy": "linear_probe"}
    assert run.data.metrics == {
        "test/accuracy": 0.9,
        "test/accuracy_low": 0.8,
        "test/accuracy_high": 0.95,
        "test/num_images": 50,
        "test/log_loss": 0.3,
    }
    assert {file.path for file in client.list_artifacts(run.info.run_id, "model")} == {"model/MLmodel", "model/code"}


def test_register_again_only_moves_aliases(mlflow: ModuleType, folder: Path) -> None:
    registry = MLflowRegistry()
    first = registry.register(folder, version_of("bees", 1, aliases=("production",)))
    second = registry.register(folder, version_of("bees", 2, aliases=("production",)))

    again = registry.register(folder, version_of("bees", 1, aliases=("production",)))

    client = mlflow.MlflowClient()
    assert (first, second, again) == ("models:/bees/1", "models:/bees/2", "models:/bees/1")
    assert len(client.search_model_versions("name='bees'")) == 2
    assert int(client.get_model_version_by_alias("bees", "production").version) == 1


@pytest.mark.parametrize(
    ("uri", "reason"),
    [("http://127.0.0.1:9", "Connection refused|failed with exception"), ("nonsense://x", "unsupported URI")],
)
def test_register_explains_a_registry_that_cannot_be_used(
    mlflow: ModuleType, monkeypatch: pytest.MonkeyPatch, uri: str, reason: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)

    with pytest.raises(ModelError, match=f"{uri} can't be used: .*({reason}).*MLFLOW_TRACKING_URI"):
        MLflowRegistry()


def test_register_names_an_alias_that_mlflow_refuses(mlflow: ModuleType, folder: Path) -> None:
    with pytest.raises(ModelError, match=r"Invalid alias name: 'a\.b'"):
        MLflowRegistry().register(folder, version_of("wasps", 1, aliases=("a.b",)))


def test_export_registers_only_the_format_mlflow() -> None:
    with pytest.raises(ModelError, match="--register is for --format mlflow, not for onnx"):
        export("ants", register=True)
