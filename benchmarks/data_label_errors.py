"""Label issues: flip labels, and measure precision and recall of the labels that the audit lists.

    python benchmarks/data_label_errors.py ../shared/datasets/flowers5 ../shared/datasets/caltech25 --fraction 0.05 --seeds 3

All images of a dataset that the audit uses are pooled. Features are those of EfficientNet-Lite0, probabilities those of a
closed-form head out of fold, with near-duplicates in one fold: ridge as in `tl data check --labels`, logistic as in
`tl auto fit`. k is the number of flips: "p=r at k" is the share of flips among the k least probable labels; "listed" are the
labels that the audit lists. Labels that were wrong before count against the precision. ``--show N`` prints the first N labels
that are listed without any flip, for review.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from automl_tl.data import Thumbnails, audit_index, open_source, scan
from automl_tl.data.audit.groups import join_groups
from automl_tl.data.audit.label_issues import find_label_issues
from automl_tl.runtime.paths import cache_dir
from automl_tl.values import DataReport, ImageRecord

if TYPE_CHECKING:
    from automl_tl.training.closed_form import Solver

BACKBONE = "lite/efficientnet_lite0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", type=Path, nargs="+")
    parser.add_argument("--fraction", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--solvers", nargs="+", choices=("ridge", "logistic", "lda", "average"), default=["ridge", "logistic"])
    parser.add_argument("--show", type=int, default=0)
    options = parser.parse_args()
    print(f"{platform.machine()}, python {platform.python_version()}, {BACKBONE}, flips {options.fraction:.0%}")
    print("set          solver   seed images flips p=r at k listed precision recall listed when clean")
    for folder in options.sets:
        for row in rows(folder, options):
            print(row, flush=True)


def rows(folder: Path, options: argparse.Namespace) -> Iterator[str]:
    source = open_source(folder)
    thumbnails = Thumbnails()
    index = scan(source, cache_dir=cache_dir(), thumbnails=thumbnails)
    report = audit_index(index, thumbnails)
    out = {row.path for row in report.left_out}
    images = [image for image in index.images if image.path not in out]
    features = extract([image.path for image in images], source.read)
    groups = group_numbers(images, report)
    labels = np.array([index.classes.index(image.label) for image in images])
    num_classes = len(index.classes)
    clean = {solver: find_label_issues(labels, probabilities(features, labels, groups, solver)) for solver in options.solvers}
    for solver, seed in product(options.solvers, range(options.seeds)):
        flipped, noisy = flip(labels, options.fraction, num_classes, seed)
        predicted = probabilities(features, noisy, groups, solver)
        ranked = np.argsort(predicted[np.arange(len(noisy)), noisy], kind="stable")
        at_k = sum(position in flipped for position in ranked[: len(flipped)]) / len(flipped)
        listed = [issue.position for issue in find_label_issues(noisy, predicted)]
        hits = [position in flipped for position in listed]
        precision, recall = sum(hits) / max(1, len(hits)), sum(hits) / len(flipped)
        numbers = f"{len(listed):6} {precision:9.2f} {recall:6.2f} {len(clean[solver]):5}"
        yield f"{folder.name:12} {solver:8} {seed:4} {len(images):6} {len(flipped):5} {at_k:8.2f} {numbers}"
    for issue in clean[options.solvers[0]][: options.show]:
        yield f"  {images[issue.position].path} looks like {index.classes[issue.predicted]} (own label: {issue.own:.2f})"


def flip(labels: NDArray[np.int64], fraction: float, num_classes: int, seed: int) -> tuple[set[int], NDArray[np.int64]]:
    """Return the positions of the flips, and the labels after replacing each by another class at random."""
    generator = np.random.default_rng(seed)
    chosen = generator.choice(len(labels), size=round(fraction * len(labels)), replace=False)
    noisy = labels.copy()
    noisy[chosen] = (labels[chosen] + generator.integers(1, num_classes, size=len(chosen))) % num_classes
    return set(chosen.tolist()), noisy


def extract(paths: Sequence[str], read: object) -> NDArray[np.float32]:
    from torch import nn

    from automl_tl.models.engines import EagerEngine, embed
    from automl_tl.plugin_host import discover

    backbone = discover().backbone(BACKBONE)
    preprocessing = backbone.card.preprocessing
    blocks = nn.Sequential(*backbone.cut(backbone.build(pretrained=True)))
    return np.concatenate(list(embed(paths, read, EagerEngine(blocks, preprocessing), preprocessing)))  # type: ignore[arg-type]


def probabilities(
    features: NDArray[np.float32], labels: NDArray[np.int64], groups: NDArray[np.int64], solver: Solver
) -> NDArray[np.float64]:
    from automl_tl.training.closed_form import solve

    return np.exp(solve(features.copy(), labels, groups, solver=solver, num_classes=int(labels.max()) + 1, seed=0).out_of_fold)


def group_numbers(images: Sequence[ImageRecord], report: DataReport) -> NDArray[np.int64]:
    groups = join_groups((image.path for image in images), report.groups)
    number = {path: at for at, group in enumerate(groups) for path in group}
    return np.array([number[image.path] for image in images])


if __name__ == "__main__":
    main()
