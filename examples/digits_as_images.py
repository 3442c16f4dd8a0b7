"""Write scikit-learn's handwritten digits (1,797 scans of 8 x 8 pixels) as a folder of class folders.

python examples/digits_as_images.py FOLDER [IMAGES_PER_CLASS]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

NUM_GREYS = 16


def write_digits(folder: Path, images_per_class: int) -> int:
    """Number of images written to ``folder/<digit>/<number>.png``."""
    digits = load_digits()
    written = np.zeros(10, dtype=int)
    for number, (pixels, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
        if written[digit] == images_per_class:
            continue
        file = folder / str(digit) / f"{number:04}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * (255 / NUM_GREYS)).astype(np.uint8)).save(file)
        written[digit] += 1
    return int(written.sum())


if __name__ == "__main__":
    target = Path(sys.argv[1])
    print(write_digits(target, int(sys.argv[2]) if len(sys.argv) > 2 else 40), "images in", target)
