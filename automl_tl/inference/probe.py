"""The proof that saved = trained: a few images, predicted again from the saved files in a new process.

``python -m automl_tl.inference.probe ENCODER HEAD PROBE`` prints the largest difference in probability as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from automl_tl.errors import DisagreementError, ModelError
from automl_tl.inference.predictor import Predictor

__all__ = ["NUM_PROBES", "TOLERANCE", "check_in_new_process", "largest_difference", "write_probe"]

NUM_PROBES = 8
TOLERANCE = 1e-3  # in probability; the same code on the same machine differs by about 1e-7
TIMEOUT_S = 300


def write_probe(file: Path, pixels: NDArray[np.uint8], predictor: Predictor) -> None:
    """Keep ``pixels`` ``(B, side_px, side_px, 3)`` with what ``predictor`` says of them."""
    save_file({"pixels": pixels, "probability": predictor.probabilities(pixels)}, file)


def largest_difference(probe_file: Path, predictor: Predictor) -> float:
    """Largest difference in probability between ``predictor`` now and what the probe file remembers."""
    probe = load_file(probe_file)
    return float(np.abs(predictor.probabilities(probe["pixels"]) - probe["probability"]).max())


def check_in_new_process(encoder_file: Path, head_file: Path, probe_file: Path) -> float:
    """Largest difference of the saved model, loaded by a new process.

    Raises:
        DisagreementError: it is more than ``TOLERANCE``.
        ModelError: the new process could not load the model.
    """
    command = [sys.executable, "-m", "automl_tl.inference.probe", str(encoder_file), str(head_file), str(probe_file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise ModelError(
            f"The saved model can't be loaded again: {done.stderr.strip().splitlines()[-1:]}. Nothing was published."
        )
    difference = float(json.loads(done.stdout)["largest_difference"])
    if not difference <= TOLERANCE:
        raise DisagreementError("The saved model", difference, TOLERANCE)
    return difference


def _main(encoder_file: str, head_file: str, probe_file: str) -> None:
    from automl_tl.catalog import discover
    from automl_tl.inference.bundle import load_bundle

    predictor = Predictor(load_bundle(Path(encoder_file), Path(head_file), discover()))
    print(json.dumps({"largest_difference": largest_difference(Path(probe_file), predictor)}))


if __name__ == "__main__":
    _main(*sys.argv[1:])
