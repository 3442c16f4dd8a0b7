"""An MLflow model: the ONNX export with an ``MLmodel`` file, which ``mlflow models serve`` and ``mlflow.onnx`` load.

A request holds image files, base64 in JSON, in the column ``image``; the answer has the columns ``label``, ``probability`` and
``error``. ``image_model.py`` reads them with the export's ``predict.py``, so that a server decodes as training did.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any, Final

MLFLOW_VERSION: Final = "3.0.0"  # the oldest whose format this is
PACKAGES: Final = ("onnxruntime", "numpy", "pillow")

OUTPUTS: Final = {"label": "string", "probability": "double", "error": "string"}

LOADER: Final = '''"""Loaded by MLflow: images of a data frame to labels, with the program of the export."""

import runpy
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas


def _load_pyfunc(path):
    return ImageModel(Path(path))


class ImageModel:
    """Predicts the bytes of image files in the column "image"; an unreadable one becomes a row with its error."""

    def __init__(self, folder):
        program = runpy.run_path(str(folder / "predict.py"))
        self.read, self.run, self.classes = program["read"], program["load"](), program["FACTS"]["classes"]

    def predict(self, model_input, params=None):
        return pandas.DataFrame([self.predict_one(data) for data in model_input["image"]])

    def predict_one(self, data):
        with TemporaryDirectory() as folder:
            (file := Path(folder) / "image").write_bytes(data)
            try:
                pixels = self.read(file)
            except Exception as error:  # decoders raise anything on foreign bytes
                return {"label": "", "probability": 0.0, "error": f"{type(error).__name__}: the image can't be read"}
        probabilities = self.run(pixels)
        best = int(probabilities.argmax())
        return {"label": self.classes[best], "probability": float(probabilities[best]), "error": ""}
'''


def write_mlflow_model(folder: Path, example: bytes, metadata: Mapping[str, Any]) -> Path:
    """Make an MLflow model of an ONNX export, without needing MLflow.

    Args:
        folder: of the export, with its ``predict.py`` and ``model.onnx``.
        example: an image file for the input example.
        metadata: metrics, tags and facts of the version.
    """
    code = folder / "code"
    code.mkdir(exist_ok=True)
    (code / "image_model.py").write_text(LOADER, encoding="utf-8")
    pins = [f"mlflow>={MLFLOW_VERSION}", *(f"{package}=={version_of(package)}" for package in PACKAGES)]
    (folder / "requirements.txt").write_text("\n".join(pins) + "\n", encoding="utf-8")
    row = {"columns": ["image"], "data": [[base64.b64encode(example).decode()]]}
    _write(folder / "input_example.json", row)
    _write(folder / "serving_input_example.json", {"dataframe_split": row})
    _write(folder / "python_env.yaml", {"python": "3.11", "dependencies": ["-r requirements.txt"]})
    inputs = [{"type": "binary", "name": "image", "required": True}]
    outputs = [{"type": kind, "name": name, "required": True} for name, kind in OUTPUTS.items()]
    model = {
        "artifact_path": "model",
        "flavors": {
            "python_function": {
                "loader_module": "image_model",
                "code": "code",
                "data": ".",
                "env": {"virtualenv": "python_env.yaml"},
                "python_version": "3.11",
            },
            "onnx": {
                "onnx_version": version_of("onnx"),
                "data": "model.onnx",
                "providers": ["CPUExecutionProvider"],
                "code": None,
            },
        },
        "metadata": dict(metadata),
        "mlflow_version": MLFLOW_VERSION,
        "model_uuid": uuid.uuid4().hex,
        "saved_input_example_info": {
            "artifact_path": "input_example.json",
            "serving_input_path": "serving_input_example.json",
            "type": "dataframe",
            "pandas_orient": "split",
        },
        "signature": {
            "inputs": json.dumps(inputs, allow_nan=False),
            "outputs": json.dumps(outputs, allow_nan=False),
            "params": None,
        },
        "utc_time_created": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f}",
    }
    _write(file := folder / "MLmodel", model)
    return file


def _write(file: Path, content: object) -> None:
    """Write JSON, which is YAML as well."""
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
