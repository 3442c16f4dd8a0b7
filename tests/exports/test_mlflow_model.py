"""`mlflow models serve` answers from an MLflow registry with the labels of the model. It runs in an environment of its own
(AUTOML_TL_MLFLOW); the client that registers the model runs in ours.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import numpy as np
import pytest
from PIL import Image

from automl_tl.exports import ExportReference, export_model
from automl_tl.exports.mlflow_model import write_mlflow_model
from automl_tl.exports.mlflow_registry import MLflowRegistry
from automl_tl.exports.sample_files import sample_files
from automl_tl.models.predictor import Predictor
from automl_tl.plugin_host import Catalog
from tests.exports.classifiers import toy_classifier
from tests.exports.test_mlflow_registry import version_of
from tests.optional import import_of_dev_group


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own, of SQLAlchemy
def test_registered_mlflow_model_serves_the_labels_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import_of_dev_group("mlflow")
    pytest.importorskip("onnxscript", reason="the extra [onnx] is not installed")
    if "AUTOML_TL_MLFLOW" not in os.environ:
        if os.environ.get("AUTOML_TL_REQUIRE_EXTRAS") == "1":
            pytest.fail("AUTOML_TL_MLFLOW is not set; .ci/run sets it")
        pytest.skip("AUTOML_TL_MLFLOW does not name the bin folder of an environment with mlflow, onnxruntime and pillow")
    classifier = toy_classifier()
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, size=(4, 4, 3), dtype=np.uint8) for _ in range(92)]
    larger = [np.array(Image.fromarray(image).resize((61, 47), Image.Resampling.BILINEAR)) for image in images]
    files = [sample_files([image])[0] for image in larger] + sample_files(larger[:8])
    paths = [tmp_path / f"{number:03}" for number in range(len(files))]
    for path, data in zip(paths, files, strict=True):
        path.write_bytes(data)
    ours = list(Predictor(classifier).predict(paths))
    reference = ExportReference(classifier, files[:3])
    export_model(classifier, Catalog(()), tmp_path / "model", reference, export_format="mlflow")
    write_mlflow_model(tmp_path / "model", files[0], {"metrics": {"accuracy": 0.9}})

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri := f"sqlite:///{tmp_path}/mlflow.db")
    version = version_of("flowers", 1, aliases=("production",))
    MLflowRegistry().register(tmp_path / "model", version)

    with serving("models:/flowers@production", uri, tmp_path) as url:
        rows = post(url, [*files, b"not an image"])

    assert len(files) == 100
    assert [row["label"] for row in rows[:-1]] == [row.label for row in ours]
    assert [row["probability"] for row in rows[:-1]] == pytest.approx([row.probability for row in ours], abs=5e-3)
    assert "can't be read" in rows[-1]["error"]


@contextmanager
def serving(model: str, tracking_uri: str, home: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    programs = os.environ["AUTOML_TL_MLFLOW"]
    command = [f"{programs}/mlflow", "models", "serve", "-m", model, "-p", str(port), "--env-manager", "local", "-w", "1"]
    environment = {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(home),
        "MLFLOW_TRACKING_URI": tracking_uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    log = home / "serve.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=home, start_new_session=True
        )
        try:
            wait_for(port, server, log)
            yield f"http://127.0.0.1:{port}/invocations"
        finally:
            os.killpg(server.pid, 15)
            server.wait(timeout=60)


def wait_for(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    while server.poll() is None:
        try:
            with urlopen(f"http://127.0.0.1:{port}/ping", timeout=5):
                return
        except OSError:
            pass
    pytest.fail(log.read_text(errors="replace"))


def post(url: str, files: list[bytes]) -> list[dict[str, str]]:
    rows = [{"image": base64.b64encode(data).decode()} for data in files]
    body = json.dumps({"dataframe_records": rows}).encode()
    with urlopen(Request(url, body, {"Content-Type": "application/json"}), timeout=120) as answer:
        return list(json.load(answer)["predictions"])
