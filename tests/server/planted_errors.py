"""Images of colors of which some are in the wrong class folder, and their queue, judged by the color instead of a network."""

from __future__ import annotations

from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from automl_tl import data
from automl_tl.workflows.review import Judgment, ReviewQueue, rank_images, typical_images

RGB = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (200, 50, 40)}


def write_planted(folder: Path, num_images: int, num_errors: int, side_px: int = 24) -> dict[str, str]:
    """Write ``num_images`` images to class folders; return the true class of the wrong ones by path."""
    names, errors = sorted(RGB), {}
    for number in range(num_images):
        true = names[number % len(names)]
        label = names[(number + 1) % len(names)] if number < num_errors else true
        noise = np.random.default_rng(number).normal(0, 30, (side_px, side_px, 3))
        file = folder / label / f"{number:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(np.array(RGB[true]) + noise, 0, 255).astype(np.uint8)).save(file)
        if true != label:
            errors[f"{label}/{file.name}"] = true
    return errors


def planted_review(folder: Path) -> tuple[ReviewQueue, data.Source]:
    """The queue of such images, and their source: a color is 95% sure, less so for images whose digest is larger."""
    source = data.open_source(folder)
    index = data.scan(source)
    rows = {image.digest: _probabilities(source.read(image.path), image.digest, index.classes) for image in index.images}
    probe = Judgment("A judge of colors", index.classes, rows)
    report = data.audit_features(
        index,
        data.audit_index(index),
        paths=[image.path for image in index.images],
        features=np.ones((len(index.images), 4)),
        probabilities=np.stack([rows[image.digest] for image in index.images]),
    )
    items = rank_images(index, report, probe=probe)
    queue = ReviewQueue(
        images=str(folder),
        classes=index.classes,
        model=None,
        num_suspicious=sum(item.is_suspicious for item in items),
        items=items,
        examples=typical_images(items, probe),
    )
    return queue, source


def _probabilities(content: bytes, digest: str, classes: tuple[str, ...]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    color = np.asarray(Image.open(BytesIO(content))).mean(axis=(0, 1))
    nearest = min(classes, key=lambda name: float(np.abs(color - RGB[name]).sum()))
    sure = 0.95 + 0.03 * int(digest[:4], 16) / 0xFFFF
    return np.array([sure if name == nearest else (1 - sure) / (len(classes) - 1) for name in classes])


def content_of(folder: Path) -> dict[str, str]:
    """Every file below ``folder`` with its digest: what must not change."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {file.relative_to(folder).as_posix(): sha256(file.read_bytes()).hexdigest() for file in files}
