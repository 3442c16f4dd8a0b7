"""Features of the images in folders of class folders, for the other trust benchmarks.

    python benchmarks/trust_features.py OUT_FOLDER IMAGES... [--backbone lite/efficientnet_lite0]

Writes ``OUT_FOLDER/<name>.npz`` with ``f`` (N, D), float32, and ``y`` (N,), int64, for each folder of images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from automl_tl.data import IMAGE_SUFFIXES
from automl_tl.models.bundle import build_encoder
from automl_tl.models.engines import EagerEngine, embed
from automl_tl.plugin_host import discover


def main() -> None:
    """Write one file for each folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--backbone", default="lite/efficientnet_lite0")
    arguments = parser.parse_args()
    backbone = discover().backbone(arguments.backbone)
    preprocessing = backbone.card.preprocessing
    engine = EagerEngine(build_encoder(backbone, pretrained=True), preprocessing)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for folder in arguments.images:
        files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
        classes = sorted({file.parent.name for file in files})
        labels = np.array([classes.index(file.parent.name) for file in files])
        batches = embed([str(file) for file in files], lambda path: Path(path).read_bytes(), engine, preprocessing)
        np.savez(arguments.out / f"{folder.name}.npz", f=np.concatenate(list(batches)), y=labels)
        print(f"{folder.name}: {len(files)} images, {len(classes)} classes", flush=True)


if __name__ == "__main__":
    main()
