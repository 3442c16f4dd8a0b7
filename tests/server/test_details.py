from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette")

from automl_tl.server.details import TrainingImages
from automl_tl.workflows.model import Model
from automl_tl_registry import write_tensors
from tests.fakes import write_colors
from tests.server.toy_server import toy_model


def fitted_on(images: Path, folder: Path) -> Model:
    """A model that names the digests of the images below ``images``."""
    digests = [hashlib.sha256(file.read_bytes()).digest() for file in sorted(images.rglob("*.png"))]
    rows = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)
    model = toy_model().model
    return replace(model, view=replace(model.view, paths={"images": write_tensors(folder / "i", {"image_digest": rows})}))


def test_training_images_gives_thumbnails(tmp_path: Path) -> None:
    images = write_colors(tmp_path / "images", 2)

    thumbnail = TrainingImages(fitted_on(images, tmp_path), images).thumbnail("red/000.png")

    assert thumbnail is not None
    assert thumbnail.startswith(b"\xff\xd8\xff")


def test_training_images_shows_no_other_file(tmp_path: Path) -> None:
    images = write_colors(tmp_path / "images", 2)
    source = TrainingImages(fitted_on(images, tmp_path), images)
    Image.new("RGB", (40, 40)).save(tmp_path / "secret.png")
    Image.new("RGB", (40, 40)).save(images / "red" / "001.png")  # changed since the fit

    paths = ("../secret.png", str(tmp_path / "secret.png"), "red/001.png", "red/missing.png", "red", "\0")
    assert [source.thumbnail(path) for path in paths] == [None] * len(paths)


def test_training_images_does_without_a_source(tmp_path: Path) -> None:
    model = fitted_on(write_colors(tmp_path / "images", 2), tmp_path)

    assert TrainingImages(model, None).thumbnail("red/000.png") is None
    assert TrainingImages(model, tmp_path / "moved").thumbnail("red/000.png") is None
