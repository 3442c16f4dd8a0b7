"""From a fitted and measured model to a version in the registry, proven in a new process before anybody can see it."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from automl_tl.evaluation.memory import ROLE as MEMORY_ROLE
from automl_tl.evaluation.memory import TrainingMemory, remember, write_memory
from automl_tl.inference.features import load_pixels
from automl_tl.inference.predictor import Predictor
from automl_tl.inference.probe import NUM_PROBES, check_in_new_process, write_probe
from automl_tl.inference.streams import num_cores
from automl_tl.training import Fitted, LabelledImages
from automl_tl.values import Evaluation, Plan
from automl_tl_registry import Facts, Metrics, ModelVersion, Registry, VersionView, write_tensors
from automl_tl_registry.errors import NotWritableError

__all__ = ["Measured", "check_writable", "probe_version", "publish"]

PACKAGES = ("automl-tl", "torch", "torchvision", "timm", "numpy", "pillow", "safetensors", "scikit-learn")


@dataclass(frozen=True)
class Measured:
    """What the test part said: its images, the probabilities ``(N, C)`` and the evaluation they make."""

    test: LabelledImages
    probabilities: NDArray[np.float32]
    evaluation: Evaluation


def publish(
    registry: Registry, name: str, plan: Plan, fitted: Fitted, measured: Measured, data: dict[str, JsonValue]
) -> ModelVersion:
    """The next version of ``name``; visible only after a new process predicted the probe images as the trained model did.

    Raises:
        DisagreementError: the saved model predicts something else.
        RegistryError: the registry can't take it.
    """
    folder = fitted.result.head_file.parent
    blobs = {
        "encoder": fitted.result.encoder_file,
        "head": fitted.result.head_file,
        "predictions": _write_predictions(folder / "predictions.safetensors", measured),
        MEMORY_ROLE: write_memory(folder / "memory.safetensors", _memory(fitted, plan)),
        **write_probe(folder, _probe_pixels(plan, measured.test), Predictor(fitted.classifier)),
    }
    return registry.publish(name, blobs, _facts(plan, fitted, measured, data), verify=probe_version)


def probe_version(view: VersionView) -> None:
    """Predict the probe images of a version again, in a new process.

    Raises:
        ModelError: the model can't be loaded, or says something else than when it was trained.
    """
    check_in_new_process(view.paths)


def check_writable(folder: Path) -> None:
    """Raise before the work, not after it, when nothing can be written to the registry at ``folder``.

    Raises:
        NotWritableError: a file is in the way, or the rights are missing.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise NotWritableError(folder, f"{existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise NotWritableError(folder, f"no right to write in {existing}")


def _memory(fitted: Fitted, plan: Plan) -> TrainingMemory:
    paths = tuple(record.path for record in fitted.learned_from.records)
    seed = plan.wishes.seed
    return remember(fitted.features, fitted.learned_from.labels, paths, held_out=fitted.held_out, seed=seed)


def _probe_pixels(plan: Plan, images: LabelledImages) -> NDArray[np.uint8]:
    spread = np.unique(np.linspace(0, len(images) - 1, NUM_PROBES).round().astype(int))
    return np.stack([load_pixels(images.read(images.records[row].path), plan.preprocessing) for row in spread])


def _write_predictions(file: Path, measured: Measured) -> Path:
    digests = b"".join(bytes.fromhex(record.digest) for record in measured.test.records)
    arrays: dict[str, NDArray[Any]] = {
        "image_digest": np.frombuffer(digests, dtype=np.uint8).reshape(-1, 32),
        "label": measured.test.labels,
        "probability": measured.probabilities.astype(np.float32),
    }
    return write_tensors(file, arrays)


def _facts(plan: Plan, fitted: Fitted, measured: Measured, data: dict[str, JsonValue]) -> Facts:
    metrics = measured.evaluation.model_dump(mode="json", exclude={"classes"})
    return Facts(
        classes=list(fitted.result.classes),
        preprocessing=plan.preprocessing.model_dump(mode="json"),
        backbone=plan.backbone,
        strategy=plan.strategy,
        model_digest=fitted.result.model_digest,
        metrics=Metrics.model_validate(metrics),
        plan=plan.model_dump(mode="json"),
        data=data,
        environment=_environment(),
        lineage={"seed": plan.wishes.seed, "code": f"automl-tl {version_of('automl-tl')}"},
        seconds=round(sum(fitted.result.seconds.values()), 3),
        notes="; ".join(fitted.result.notes),
    )


def _environment() -> dict[str, JsonValue]:
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "num_cores": num_cores(),
        "packages": {package: version_of(package) for package in PACKAGES},
    }
