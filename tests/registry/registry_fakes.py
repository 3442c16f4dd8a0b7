"""Small files, facts, clocks and disks for the registry's tests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from automl_tl_registry import Facts, Metrics, ModelVersion, Registry, write_tensors

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLASSES = ["ant", "bee", "wasp"]
MAY_DAY = datetime(2026, 5, 1, 12, tzinfo=UTC)


class FakeClock:
    """A clock that moves only on request."""

    def __init__(self, now: datetime = MAY_DAY) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **span: float) -> None:
        self.now += timedelta(**span)


def weights(path: Path, seed: int = 0, size: int = 64) -> Path:
    """A safetensors file whose bytes depend on ``seed`` only; made without numpy, which takes long to load."""
    numbers = Random(seed).randbytes(4 * size)
    entries = {
        "bias": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]},
        "weight": {"dtype": "F32", "shape": [size], "data_offsets": [12, 12 + len(numbers)]},
    }
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0\x80?" * 3 + numbers)
    return path


def image_digests(num_images: int, first: int = 0) -> NDArray[Any]:
    """sha256 of ``first``, ``first + 1`` ... as uint8 ``(num_images, 32)``."""
    import numpy as np

    rows = [
        np.frombuffer(hashlib.sha256(str(number).encode()).digest(), np.uint8) for number in range(first, first + num_images)
    ]
    return np.stack(rows) if rows else np.zeros((0, 32), np.uint8)


def predictions(
    path: Path, said: Sequence[int], truth: Sequence[int], *, num_classes: int = 3, first: int = 0, sure: float = 0.9
) -> Path:
    """Predictions of ``said`` for images ``first``, ``first + 1`` ... whose labels are ``truth``."""
    import numpy as np

    probability = np.full((len(said), num_classes), (1 - sure) / (num_classes - 1), np.float32)
    probability[np.arange(len(said)), list(said)] = sure
    tensors: dict[str, NDArray[Any]] = {
        "image_digest": image_digests(len(said), first),
        "label": np.array(truth, np.int64),
        "probability": probability,
    }
    return write_tensors(path, tensors)


def facts(**changes: object) -> Facts:
    given: dict[str, object] = {
        "classes": CLASSES,
        "preprocessing": {"side_px": 224, "mean": [0.485, 0.456, 0.406]},
        "backbone": "lite/lite0",
        "strategy": "linear-probe",
        "model_digest": "0" * 64,
        "metrics": Metrics(accuracy=0.9, interval=(0.85, 0.95), num_images=100, calibration_error=0.02),
        "latency_ms": 12.5,
        "data": {"fingerprint": "f" * 64},
    }
    return Facts.model_validate(given | changes)


def publish(registry: Registry, folder: Path, name: str = "insects", *, seed: int = 0, **changes: object) -> ModelVersion:
    """A version with the shared encoder and a head of its own."""
    folder.mkdir(exist_ok=True)
    blobs = {"encoder": weights(folder / "encoder", seed=999, size=5000), "head": weights(folder / "head", seed)}
    return registry.publish(name, blobs, facts(**changes), actor="ada")


def publish_said(
    registry: Registry, folder: Path, said: Sequence[int], truth: Sequence[int], *, sure: float = 0.9, **changes: object
) -> ModelVersion:
    """A version that said ``said`` of images whose labels are ``truth``."""
    folder.mkdir(exist_ok=True)
    right = sum(one == other for one, other in zip(said, truth, strict=True)) / len(truth)
    blobs = {"head": weights(folder / "head"), "predictions": predictions(folder / "predictions", said, truth, sure=sure)}
    measured = Metrics(accuracy=right, interval=(max(0, right - 0.05), min(1, right + 0.05)), num_images=len(said))
    return registry.publish("insects", blobs, facts(metrics=measured, **changes), actor="ada")


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder below ``root``, with size and time of its last change."""
    return {str(path.relative_to(root)): (path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(root.rglob("*"))}
