"""Reference predictions: proof that a saved model predicts what the trained one did.

A few images are predicted once by the trained model, and again from the saved files in a new process. Both run on the CPU in
float32, so that a model trained on a GPU can be verified on a machine without one. Images and predictions are separate files:
versions trained on the same data share the images.

``python -m automl_tl.models.reference_predictions ENCODER HEAD IMAGES PREDICTIONS`` prints the largest difference as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from automl_tl.errors import DisagreementError, ModelError
from automl_tl.models.bundle import Classifier
from automl_tl.models.engines import EagerEngine
from automl_tl.models.predictor import Predictor
from automl_tl.runtime.child_processes import run_python
from automl_tl.runtime.resources import find_cause, resource_error

IMAGES_ROLE = "reference_images"
PREDICTIONS_ROLE = "reference_predictions"
ROLES = ("encoder", "head", IMAGES_ROLE, PREDICTIONS_ROLE)

NUM_REFERENCE_IMAGES = 8
TOLERANCE = 1e-3  # in probability; the same code on the same machine differs by about 1e-7
TIMEOUT_S = 300


def write_reference_predictions(folder: Path, pixels: NDArray[np.uint8], classifier: Classifier) -> dict[str, Path]:
    """Save a few images and the probabilities predicted for them; return the files by role.

    Args:
        folder: to write to; must exist.
        pixels: images ``(B, side_px, side_px, 3)``, 0 to 255.
        classifier: the trained model.
    """
    files = {role: folder / f"{role}.safetensors" for role in (IMAGES_ROLE, PREDICTIONS_ROLE)}
    save_file({"pixels": np.ascontiguousarray(pixels)}, files[IMAGES_ROLE])
    save_file({"probability": _reference_predictor(classifier).probabilities(pixels)}, files[PREDICTIONS_ROLE])
    return files


def check_in_new_process(files: Mapping[str, Path]) -> float:
    """Load the saved model in a new process and return the largest difference in probability from the reference.

    Args:
        files: by role: encoder, head, reference_images, reference_predictions.

    Raises:
        DisagreementError: it is more than ``TOLERANCE``.
        ModelError: the new process could not load the model, or didn't end within ``TIMEOUT_S``.
    """
    output = output_of_python(
        ["-m", "automl_tl.models.reference_predictions", *(str(files[role]) for role in ROLES)],
        timeout_s=TIMEOUT_S,
        failed="The saved model can't be loaded by a new process",
        too_slow=f"A new process didn't load the saved model and predict {NUM_REFERENCE_IMAGES} images within {TIMEOUT_S} s, "
        "so the model is not verified. Is the machine busy, or short of memory? Try again: computed results stay in the cache.",
    )
    difference = float(json.loads(output)["largest_difference"])
    if not difference <= TOLERANCE:
        raise DisagreementError("The saved model", difference, TOLERANCE)
    return difference


def output_of_python(arguments: Sequence[str], *, timeout_s: float, failed: str, too_slow: str) -> str:
    """Run the Python interpreter in a new process and return its standard output.

    Args:
        arguments: of the interpreter.
        timeout_s: limit in seconds.
        failed: message if the process fails; the last line of its standard error follows.
        too_slow: message if the process takes longer than ``timeout_s``.

    Raises:
        ModelError: the process fails or takes too long.
        ResourceError: a full disk or a limit stopped it.
    """
    try:
        done = run_python(arguments, timeout_s=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise ModelError(too_slow) from error
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        if cause := find_cause(reason):
            raise resource_error(cause, None)
        raise ModelError(f"{failed}: {reason}")
    return done.stdout


def check_stand_in(files: Mapping[str, Path], classifier: Classifier) -> None:
    """Check a classifier whose network was built by another backbone than the one that was trained.

    Args:
        files: of the version, by role.
        classifier: built by the substitute.

    Raises:
        ModelError: its predictions differ from those of the trained model.
    """
    difference = _largest_difference(classifier, files[IMAGES_ROLE], files[PREDICTIONS_ROLE])
    if not difference <= TOLERANCE:
        facts = classifier.facts
        raise ModelError(
            f"Backbone {facts.backbone!r} is not installed, and its substitute disagrees on the reference images by up to "
            f"{difference:.2e} in probability (tolerance {TOLERANCE:.0e}). Install {facts.backbone_from}."
        )


def check_predictor(files: Mapping[str, Path], predictor: Predictor) -> None:
    """Check that a predictor, with the engine it uses, reproduces the reference predictions of a version.

    Args:
        files: of the version, by role.
        predictor: ready to predict.

    Raises:
        DisagreementError: it predicts something else.
    """
    difference = _difference(predictor, files[IMAGES_ROLE], files[PREDICTIONS_ROLE])
    if not difference <= TOLERANCE:
        name = f"The model in this process ({predictor.engine_name})"
        raise DisagreementError(name, difference, TOLERANCE, then="It is not used.")


def _largest_difference(classifier: Classifier, images_file: Path, predictions_file: Path) -> float:
    return _difference(_reference_predictor(classifier), images_file, predictions_file)


def _difference(predictor: Predictor, images_file: Path, predictions_file: Path) -> float:
    predicted = predictor.probabilities(load_file(images_file)["pixels"])
    return float(np.abs(predicted - load_file(predictions_file)["probability"]).max())


def _reference_predictor(classifier: Classifier) -> Predictor:
    return Predictor(classifier, EagerEngine(classifier.encoder, classifier.facts.preprocessing, torch.device("cpu")))


def _main(encoder_file: str, head_file: str, images_file: str, predictions_file: str) -> None:
    from automl_tl.models.bundle import load_bundle
    from automl_tl.plugin_host import discover

    classifier = load_bundle(Path(encoder_file), Path(head_file), discover())
    difference = _largest_difference(classifier, Path(images_file), Path(predictions_file))
    print(json.dumps({"largest_difference": difference}))


if __name__ == "__main__":
    _main(*sys.argv[1:])
