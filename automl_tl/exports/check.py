"""The proof that exported = trained: the export's own program, run in a new process on the probe images.

``python -m automl_tl.exports.check FOLDER PROBE OUT`` loads ``FOLDER/predict.py`` and writes what it says. The new
process imports nothing of automl_tl beyond this file, so that what works here works elsewhere.
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

__all__ = ["Said", "ask_in_new_process"]

TIMEOUT_S = 600
NUM_TIMED = 12
WARM_UPS = 3


@dataclass(frozen=True)
class Said:
    """What an export said: probabilities ``(N, C)`` and the median time of one image, preprocessing included."""

    probabilities: NDArray[np.float32]
    latency_ms: float


def ask_in_new_process(folder: Path, images: Sequence[NDArray[np.uint8]]) -> Said:
    """What the export in ``folder`` says of raw ``images``, each ``(H, W, 3)``.

    Raises:
        ModelError: its program doesn't run, and the text holds its last line; or it didn't end within ``TIMEOUT_S``.
    """
    from automl_tl.errors import ModelError

    with tempfile.TemporaryDirectory(prefix="tl-export-") as place:
        probe, out = Path(place) / "probe.npz", Path(place) / "out.npz"
        np.savez(probe, **{f"{number:05}": image for number, image in enumerate(images)})  # type: ignore[arg-type] # names
        command = [sys.executable, "-P", str(Path(__file__)), str(folder), str(probe), str(out)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise ModelError(
                f"The export in {folder} didn't predict {len(images)} images in a new process within {TIMEOUT_S} s, so that it "
                "is not proven. Is the machine busy? Try again, or without --images."
            ) from error
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise ModelError(f"The export in {folder} doesn't run in a new process: {last}")
        with np.load(out) as said:
            return Said(said["probabilities"], json.loads(done.stdout.splitlines()[-1])["latency_ms"])


def _answer(folder: Path, probe: Path, out: Path) -> None:
    spec = importlib.util.spec_from_file_location("predict", folder / "predict.py")
    assert spec is not None
    assert spec.loader is not None
    program: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    run = program.load()
    with np.load(probe) as images:
        said = [np.asarray(run(images[name])) for name in sorted(images.files)]
        first = images[sorted(images.files)[0]]
    seconds = []
    for _ in range(WARM_UPS + NUM_TIMED):
        start = time.perf_counter()
        run(first)
        seconds.append(time.perf_counter() - start)
    np.savez(out, probabilities=np.stack(said).astype(np.float32))
    print(json.dumps({"latency_ms": 1000 * float(np.median(seconds[WARM_UPS:]))}))


if __name__ == "__main__":
    _answer(*(Path(argument) for argument in sys.argv[1:4]))
