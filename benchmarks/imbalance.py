"""Metrics on sets with imbalanced training images: out of fold and on the test split, by the metric that is asked for.

    python benchmarks/imbalance.py DATASETS [--ratio 50]

DATASETS has the folders hymenoptera, cifar10, brain_mri and trashnet. Each set becomes one of two classes, a rare and a
frequent one, with ``ratio`` times the training images; the test split stays as it is. It is measured once per fit, and
nothing is chosen by it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import automl_tl
from automl_tl.values import Metric

BACKBONE = "lite/efficientnet_lite0"
METRICS: tuple[Metric, ...] = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss")
RARE = {"hymenoptera": "ants", "cifar10": "cat", "brain_mri": "no_tumor", "trashnet": "trash"}
FREQUENT = {"hymenoptera": ["bees"], "cifar10": ["dog"]}  # else: all other classes together
ROW = "{:12s} {:>9s}  {:18s} {:>13s}  {:>8s} {:>8s} {:>8s} {:>8s} {:>11s}"


def make_set(source: Path, folder: Path, ratio: int) -> tuple[int, int]:
    """Link the images of two classes into ``folder``, and return the numbers of training images, the rare class first."""
    rare = RARE[source.name]
    others = FREQUENT.get(source.name) or [path.name for path in (source / "train").iterdir() if path.name != rare]
    generator, counts = np.random.default_rng(0), []
    frequent = [path for name in sorted(others) for path in sorted((source / "train" / name).iterdir())]
    limits = {"rare": max(3, round(len(frequent) / ratio)), "frequent": len(frequent)}
    for split in ("train", "test"):
        for title, names in (("rare", [rare]), ("frequent", sorted(others))):
            files = [path for name in names for path in sorted((source / split / name).iterdir())]
            if split == "train":
                files = [files[place] for place in generator.permutation(len(files))[: limits[title]]]
                counts.append(len(files))
            (folder / split / title).mkdir(parents=True)
            for path in files:
                Path(folder / split / title / f"{path.parent.name}-{path.name}").symlink_to(path.resolve())
    return counts[0], counts[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", type=Path)
    parser.add_argument("--ratio", type=int, default=50)
    parser.add_argument("--names", nargs="*", default=list(RARE))
    arguments = parser.parse_args()
    print(ROW.format("set", "train", "metric", "out of fold", "accuracy", "balanced", "macro F1", "log loss", "rare recall"))
    for name in arguments.names:
        with TemporaryDirectory() as root:
            counts = make_set(arguments.datasets / name, Path(root) / name, arguments.ratio)
            for metric in METRICS:
                outcome = automl_tl.fit(
                    Path(root) / name,
                    backbone=BACKBONE,
                    strategy="linear_probe",
                    metric=metric,
                    registry=Path(root) / "registry",
                )
                test, expected = outcome.test, outcome.plan.expected
                figures = (
                    test.accuracy,
                    test.balanced_accuracy,
                    test.macro_f1,
                    test.log_loss,
                    test.per_class["rare"].recall or 0,
                )
                cells = [f"{figure:.3f}" for figure in figures]
                print(ROW.format(name, f"{counts[0]}:{counts[1]}", metric, expected.metric_cells[0], *cells), flush=True)


if __name__ == "__main__":
    main()
