"""What prediction costs beside the bare network: images per second with decoding, resizing, doubts and rows, and without.

python benchmarks/trust_throughput.py MODEL FOLDER [--registry DIR]
"""

from __future__ import annotations

import argparse
import io
import time
from pathlib import Path

import numpy as np

from automl_tl.inference.features import BATCH_SIZE, load_pixels
from automl_tl.inference.pictures import find_pictures
from automl_tl.inference.predictor import Predictor
from automl_tl.inference.rows import open_rows
from automl_tl.trust import open_model

NUM_BARE = 160


def main() -> None:
    """Print both figures and their ratio; interleaved, because other programs may be running."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("folder")
    parser.add_argument("--registry", type=Path)
    arguments = parser.parse_args()
    trusted = open_model(arguments.model, registry=arguments.registry)
    predictor, pictures = Predictor(trusted.classifier), find_pictures([arguments.folder])
    names = list(pictures)[:BATCH_SIZE]
    pixels = np.stack([load_pixels(pictures.read(name), trusted.classifier.facts.preprocessing) for name in names])
    predictor.probabilities(pixels)
    bare, whole = [], []
    for _ in range(2):
        start = time.perf_counter()
        for _ in range(NUM_BARE // BATCH_SIZE):
            predictor.probabilities(pixels)
        bare.append(len(pixels) * (NUM_BARE // BATCH_SIZE) / (time.perf_counter() - start))
        start = time.perf_counter()
        with open_rows("jsonl", io.StringIO()) as write:
            for row in predictor.predict(pictures, pictures.read, doubts=trusted.doubts(None)):
                write(row)
        whole.append(len(pictures) / (time.perf_counter() - start))
    print(f"bare network {max(bare):.1f} images/s, tl predict {max(whole):.1f} images/s: {max(whole) / max(bare):.0%}")


if __name__ == "__main__":
    main()
