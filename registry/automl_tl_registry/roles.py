"""What a blob must be to play its role. Any safetensors file may be weights; the evidence has a form."""

from __future__ import annotations

from pathlib import Path

from automl_tl_registry.header import read_header
from automl_tl_registry.images import read_images
from automl_tl_registry.predictions import read_predictions
from automl_tl_registry.values import Facts

__all__ = ["check_role"]


def check_role(role: str, path: Path, facts: Facts) -> None:
    """Raise InvalidBlobError unless the file is sound safetensors and fits its role."""
    read_header(path)
    if role == "predictions":
        read_predictions(path, facts.classes)
    elif role == "images":
        read_images(path, facts.classes)
