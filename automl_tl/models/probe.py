"""The proof that saved = trained: a few images, predicted again from the saved files in a new process.

Both times on the CPU in float32, so that what was trained on a GPU proves itself on machines without one. The images and the
answers are two files: versions fitted on the same data share the images.
``python -m automl_tl.models.probe ENCODER HEAD IMAGES ANSWERS`` prints the largest difference in probability as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from automl_tl.errors import DisagreementError, ModelError
from automl_tl.models.bundle import Classifier
from automl_tl.models.engines import EagerEngine
from automl_tl.models.predictor import Predictor

__all__ = ["NUM_PROBES", "TOLERANCE", "check_in_new_process", "check_stand_in", "write_probe"]

ROLES = ("encoder", "head", "probe_images", "probe_answers")

NUM_PROBES = 8
TOLERANCE = 1e-3  # in probability; the same code on the same machine differs by about 1e-7
TIMEOUT_S = 300


def write_probe(folder: Path, pixels: NDArray[np.uint8], classifier: Classifier) -> dict[str, Path]:
    """Keep ``pixels`` ``(B, side_px, side_px, 3)`` and what ``classifier`` says of them; gives the files by role."""
    files = {"probe_images": folder / "probe_images.safetensors", "probe_answers": folder / "probe_answers.safetensors"}
    save_file({"pixels": np.ascontiguousarray(pixels)}, files["probe_images"])
    save_file({"probability": _said(classifier, pixels)}, files["probe_answers"])
    return files


def check_in_new_process(files: Mapping[str, Path]) -> float:
    """Largest difference in probability of the saved model, loaded by a new process, to the answers that were kept.

    Args:
        files: by role: encoder, head, probe_images, probe_answers.

    Raises:
        DisagreementError: it is more than ``TOLERANCE``.
        ModelError: the new process could not load the model, or didn't end within ``TIMEOUT_S``.
    """
    arguments = [str(files[role]) for role in ROLES]
    command = [sys.executable, "-m", "automl_tl.models.probe", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise ModelError(
            f"A new process didn't load the saved model and predict {NUM_PROBES} images within {TIMEOUT_S} s, so that it is "
            "not proven. Is the machine busy, or short of memory? Try again: what a fit computed stays in the cache."
        ) from error
    if done.returncode != 0:
        last_words = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        raise ModelError(f"The saved model can't be loaded by a new process: {last_words}")
    difference = float(json.loads(done.stdout)["largest_difference"])
    if not difference <= TOLERANCE:
        raise DisagreementError("The saved model", difference, TOLERANCE)
    return difference


def check_stand_in(files: Mapping[str, Path], classifier: Classifier) -> None:
    """Check ``classifier``, whose network was built by another backbone than the one that was trained.

    Raises:
        ModelError: it says something else than the trained model did.
    """
    difference = _largest_difference(classifier, files["probe_images"], files["probe_answers"])
    if not difference <= TOLERANCE:
        facts = classifier.facts
        raise ModelError(
            f"The backbone {facts.backbone!r} is not installed, and what stands in for it disagrees on the probe images: "
            f"by up to {difference:.2e} in probability, allowed are {TOLERANCE:.0e}. Install {facts.backbone_from}."
        )


def _largest_difference(classifier: Classifier, images_file: Path, answers_file: Path) -> float:
    said = _said(classifier, load_file(images_file)["pixels"])
    return float(np.abs(said - load_file(answers_file)["probability"]).max())


def _said(classifier: Classifier, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    engine = EagerEngine(classifier.encoder, classifier.facts.preprocessing, torch.device("cpu"))
    return Predictor(classifier, engine).probabilities(pixels)


def _main(encoder_file: str, head_file: str, images_file: str, answers_file: str) -> None:
    from automl_tl.models.bundle import load_bundle
    from automl_tl.plugin_host import discover

    classifier = load_bundle(Path(encoder_file), Path(head_file), discover())
    print(json.dumps({"largest_difference": _largest_difference(classifier, Path(images_file), Path(answers_file))}))


if __name__ == "__main__":
    _main(*sys.argv[1:])
