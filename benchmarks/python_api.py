"""Seconds to load a model and predict from Python, next to ``tl predict``: one image, and enough for the faster engine.

python -m benchmarks.python_api MODEL IMAGE [--registry DIR] [--images 200]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from automl_tl.data.in_memory import Images, ImageValue


def seconds(work: Callable[[], object], rounds: int = 3) -> float:
    """The fewest seconds of some rounds."""
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def main() -> None:
    """Print one line per measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model")
    parser.add_argument("image", type=Path)
    parser.add_argument("--registry", type=Path)
    parser.add_argument("--images", type=int, default=200)
    arguments = parser.parse_args()
    start = time.perf_counter()
    import automl_tl

    model = automl_tl.load(arguments.model, registry=arguments.registry)
    print(f"import and load: {time.perf_counter() - start:.2f} s")
    print(f"load again: {seconds(lambda: automl_tl.load(arguments.model, registry=arguments.registry)):.2f} s")
    pixels = np.asarray(Image.open(arguments.image).convert("RGB"))
    forms: dict[str, ImageValue] = {"path": arguments.image, "bytes": arguments.image.read_bytes(), "array": pixels}

    def predict(images: Images) -> None:
        list(model.predict(images))

    for name, form in forms.items():
        print(f"one image as {name}: {1000 * seconds(partial(predict, form), 10):.1f} ms")
        many: list[ImageValue] = [form] * arguments.images
        print(f"{arguments.images} images as {name}: {seconds(partial(predict, many)):.2f} s")
    registry = ["--registry", str(arguments.registry)] if arguments.registry else []
    command = [sys.executable, "-m", "automl_tl", "predict", arguments.model, str(arguments.image), *registry]
    print(f"tl predict, one image: {seconds(lambda: subprocess.run(command, check=True, capture_output=True)):.2f} s")


if __name__ == "__main__":
    main()
