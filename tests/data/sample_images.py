"""Small images drawn from a seed, and folders and records of such images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from automl_tl.values import DatasetIndex, ImageRecord, RejectedFile, SplitName

__all__ = ["encoded", "index_of", "record", "sample_image", "write_tree"]


def sample_image(seed: int, width: int = 64, height: int = 48) -> Image.Image:
    """A smooth colored pattern that no other seed resembles."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, size=(6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format_name: str = "JPEG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format=format_name, **options)
    return buffer.getvalue()


def write_tree(root: Path, counts: Mapping[str, int], first_seed: int = 0) -> Path:
    """``counts`` maps folders below ``root`` to a number of different images."""
    seed = first_seed
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (root / folder / f"{number:03}.jpg").write_bytes(encoded(sample_image(seed)))
            seed += 1
    return root


def record(
    path: str,
    *,
    label: str = "ants",
    split: SplitName | None = None,
    digest: str = "",
    **facts: Any,  # noqa: ANN401
) -> ImageRecord:
    """A record as the scan would make it."""
    defaults = {"num_bytes": 1000, "width_px": 64, "height_px": 48, "format": "JPEG", "mode": "RGB", "contrast": 0.2}
    digest = digest or sha256(path.encode()).hexdigest()
    return ImageRecord(**{**defaults, "path": path, "label": label, "split": split, "digest": digest, **facts})


def index_of(images: Sequence[ImageRecord], *, rejected: Sequence[RejectedFile] = (), **facts: object) -> DatasetIndex:
    given = {
        "root": "images",
        "source": "class_folders",
        "classes": tuple(sorted({image.label for image in images})),
        "images": tuple(images),
        "rejected": tuple(rejected),
        "num_files": len(images) + len(rejected),
    }
    return DatasetIndex.model_validate({**given, **facts})
