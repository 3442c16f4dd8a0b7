"""Throughput of `tl predict` relative to the bare network: decoding, resizing, abstention and output rows included.

    python -m benchmarks.trust_throughput MODEL FOLDER [--registry DIR] [--rounds 5]

Once with PyTorch, once with the engine that `tl predict` selects for the number of images. Interleaved; medians of wall time,
and of this process's processor time, which depends less on the load of the machine.
"""

from __future__ import annotations

import argparse
import io
from functools import partial
from pathlib import Path

import numpy as np

from automl_tl.data.image_inputs import ImageInputs, find_images
from automl_tl.evaluation.abstention import make_policy
from automl_tl.models.engines import BATCH_SIZE, load_pixels
from automl_tl.models.predictor import Predictor
from automl_tl.models.rows import open_rows
from automl_tl.workflows.model import Model, load
from benchmarks.timing import function, interleaved


def compare(name: str, predictor: Predictor, model: Model, images: ImageInputs, rounds: int) -> None:
    """Print milliseconds per image of the bare network and of `tl predict`."""
    preprocessing, policy = model.classifier.facts.preprocessing, make_policy(model.reference, model.held_out, None)
    pixels = np.stack([load_pixels(images.read(path), preprocessing) for path in images])
    batches = [pixels[start : start + BATCH_SIZE] for start in range(0, len(pixels), BATCH_SIZE)]

    def bare() -> None:
        for batch in batches:
            predictor.probabilities(batch)

    def whole() -> None:
        with open_rows("jsonl", io.StringIO()) as write:
            for row in predictor.predict(images, images.read, policy=policy):
                write(row)

    predictor.probabilities(pixels[:BATCH_SIZE])
    spent = interleaved({"bare": partial(function, bare), "whole": partial(function, whole)}, rounds)
    per_image = 1000 / len(pixels)
    bare_ms, whole_ms = (spent[side].wall_s * per_image for side in ("bare", "whole"))
    bare_cpu, whole_cpu = (spent[side].cpu_s * per_image for side in ("bare", "whole"))
    print(
        f"{name:10s} bare network {bare_ms:6.1f} ms/image ({bare_cpu:6.1f} of processor), tl predict {whole_ms:6.1f} "
        f"({whole_cpu:6.1f}): {bare_ms / whole_ms:.0%} of the bare throughput, {bare_cpu / whole_cpu:.0%} by processor time",
        flush=True,
    )


def main() -> None:
    """Print one line for each engine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("folder", help="folder of readable images")
    parser.add_argument("--registry", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    model = load(arguments.model, registry=arguments.registry)
    images = find_images([arguments.folder])
    compare("torch", Predictor(model.classifier), model, images, arguments.rounds)
    compare("chosen", Predictor.for_many(model.classifier, len(images)), model, images, arguments.rounds)


if __name__ == "__main__":
    main()
