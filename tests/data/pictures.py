"""Small pictures with something on them, made from a seed, and folders of such."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["encoded", "picture", "write_tree"]


def picture(seed: int, width: int = 64, height: int = 48) -> Image.Image:
    """A smooth coloured pattern that no other seed resembles."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, size=(6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format_name: str = "JPEG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format=format_name, **options)
    return buffer.getvalue()


def write_tree(root: Path, counts: Mapping[str, int], first_seed: int = 0) -> Path:
    """``counts`` maps folders below ``root`` to a number of different pictures."""
    seed = first_seed
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (root / folder / f"{number:03}.jpg").write_bytes(encoded(picture(seed)))
            seed += 1
    return root
