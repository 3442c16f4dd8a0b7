"""Verification of an export: its own program predicts reference images in a new process.

``python -P automl_tl/exports/verification.py FOLDER IMAGES OUT`` loads ``FOLDER/predict.py`` and writes its predictions.
The new process imports nothing of automl_tl beyond this file, so that what runs here runs elsewhere.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ExportOutput", "predict_in_new_process"]

TIMEOUT_S = 600
NUM_TIMED = 12
NUM_WARM_UPS = 3


@dataclass(frozen=True)
class ExportOutput:
    """Predictions of an export.

    Attributes:
        probabilities: ``(N, C)``.
        latency_ms: median time of one image, preprocessing included.
    """

    probabilities: NDArray[np.float32]
    latency_ms: float


def predict_in_new_process(folder: Path, images: Sequence[NDArray[np.uint8]]) -> ExportOutput:
    """Run the program of an export in a new process.

    Args:
        folder: of the export.
        images: raw images, each ``(H, W, 3)``.

    Raises:
        ModelError: the program fails, and the message holds its last line; or it didn't end within ``TIMEOUT_S``.
    """
    from automl_tl.errors import ModelError

    with tempfile.TemporaryDirectory(prefix="tl-export-") as place:
        images_file, out = Path(place) / "images.npz", Path(place) / "out.npz"
        np.savez(images_file, **{f"{number:05}": image for number, image in enumerate(images)})  # type: ignore[arg-type]
        command = [sys.executable, "-P", str(Path(__file__)), str(folder), str(images_file), str(out)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise ModelError(
                f"The export in {folder} didn't predict {len(images)} images in a new process within {TIMEOUT_S} s, so it is "
                "not verified. Is the machine busy? Try again, or without --images."
            ) from error
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
            raise ModelError(f"The export in {folder} doesn't run in a new process: {last}")
        with np.load(out) as arrays:
            return ExportOutput(arrays["probabilities"], json.loads(done.stdout.splitlines()[-1])["latency_ms"])


def _main(folder: Path, images_file: Path, out: Path) -> None:
    # 1) Import the program as a user would.
    spec = importlib.util.spec_from_file_location("predict", folder / "predict.py")
    assert spec is not None
    assert spec.loader is not None
    program: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    run = program.load()
    # 2) Predict every image.
    with np.load(images_file) as images:
        probabilities = [np.asarray(run(images[name])) for name in sorted(images.files)]
        first = images[sorted(images.files)[0]]
    # 3) Time the first one.
    seconds = []
    for _ in range(NUM_WARM_UPS + NUM_TIMED):
        start = time.perf_counter()
        run(first)
        seconds.append(time.perf_counter() - start)
    np.savez(out, probabilities=np.stack(probabilities).astype(np.float32))
    print(json.dumps({"latency_ms": 1000 * float(np.median(seconds[NUM_WARM_UPS:]))}))


if __name__ == "__main__":
    _main(*(Path(argument) for argument in sys.argv[1:4]))
