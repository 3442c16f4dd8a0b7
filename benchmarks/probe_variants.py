"""Variants of the linear probe, by cross-validation on the training images; no test image is read.

    python -m benchmarks.probe_variants FOLDER... [--second lite/efficientnet_lite1]

For each folder, out-of-fold accuracy and calibrated log loss of EfficientNet-Lite0 with: its last features; multi-level
features; the same with mirrored images in the folds that are learned from, in prediction, and in both; 4,096 random Fourier
features of the multi-level features (Rahimi and Recht 2007), for three widths of the kernel, and their average with the linear
probe; ensembles with a second backbone, on last features and on multi-level ones. Variants of one set share folds.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from automl_tl.evaluation import log_losses
from automl_tl.models.engines import EagerEngine, Read, load_batches, load_pixels
from automl_tl.planning import EvidenceCollector
from automl_tl.planning.evidence import Probe
from automl_tl.plugin_host import Catalog, discover
from automl_tl.plugin_host.levels import Parts
from automl_tl.runtime.budget import Deadline
from automl_tl.runtime.progress import QUIET
from automl_tl.training.closed_form import solve
from automl_tl.values import Constraints, Preprocessing
from automl_tl.workflows.dataset import load_dataset
from automl_tl.workflows.plan import evidence_collector, open_workspace

BACKBONE = "lite/efficientnet_lite0"
NUM_RANDOM = 4096
WIDTHS = (0.5, 1.0, 2.0)  # of the kernel, times the median distance between two images
LEVEL_WEIGHT = 4.0  # of the intermediate levels, relative to the last: what cross-validation chose for most sets (decision 61)

Scores = NDArray[np.float64]


def measure(folder: Path, catalog: Catalog, second: str) -> Mapping[str, tuple[float, float]]:
    """Return accuracy and log loss of each variant."""
    dataset = load_dataset(folder, seed=0)
    with open_workspace(Deadline(None), QUIET) as workspace:
        evidence = evidence_collector(dataset, Constraints(), workspace)
        last, levels = evidence.probe_with_levels(catalog.backbone(BACKBONE))
        others = evidence.probe_with_levels(catalog.backbone(second))
        variants = {"last": last.log_probabilities, "levels": levels.log_probabilities}
        variants |= mirrored(evidence, levels)
        variants |= random_features(evidence, levels)
        variants["last of two"] = evidence.probe_ensemble([last, others[0]]).log_probabilities
        variants["levels of two"] = evidence.probe_ensemble([levels, others[1]]).log_probabilities
    labels = levels.labels
    return {
        name: (float((scores.argmax(axis=1) == labels).mean()), float(log_losses(scores, labels).mean()))
        for name, scores in variants.items()
    }


def out_of_fold(evidence: EvidenceCollector, features: NDArray[np.float32], num_views: int, parts: Parts) -> Scores:
    """Return out-of-fold log-probabilities ``(num_views * N, C)``; all views of an image are in one fold."""
    images = evidence.sample()
    labels, groups = (np.tile(values, num_views) for values in (images.labels, images.groups))
    num_classes = len(evidence.classes)
    solution = solve(features.copy(), labels, groups, solver="average", num_classes=num_classes, seed=0, parts=parts)
    return solution.out_of_fold


def mirrored(evidence: EvidenceCollector, levels: Probe) -> Mapping[str, Scores]:
    """Return variants that learn from mirrored images as well, and average predictions over both."""
    images, preprocessing = evidence.sample(), levels.card.preprocessing
    encoder = levels.backbone.blocks(levels.backbone.build(pretrained=True))
    engine = EagerEngine(encoder, preprocessing)
    read = partial(load_mirrored, read=images.read, preprocessing=preprocessing)
    flipped = np.concatenate([engine(pixels) for pixels in load_batches(images.paths, read)])
    both = out_of_fold(evidence, np.concatenate([levels.features, flipped]), 2, levels.parts)
    plain, mirror = both[: len(images)], both[len(images) :]
    return {"flips in probe": plain, "flips in both": average([plain, mirror])}


def load_mirrored(path: str, *, read: Read, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Return the mirrored pixels of an image."""
    return np.ascontiguousarray(load_pixels(read(path), preprocessing)[:, ::-1])


def random_features(evidence: EvidenceCollector, levels: Probe) -> Mapping[str, Scores]:
    """Return heads on random Fourier features of the levels, and their average with the linear probe."""
    # 1) Levels of equal variance, weighted as the linear head does.
    (sizes,) = levels.parts
    weights = [np.sqrt(LEVEL_WEIGHT / (len(sizes) - 1))] * (len(sizes) - 1) + [1.0]
    parts = np.split(levels.features - levels.features.mean(axis=0), np.cumsum(sizes)[:-1], axis=1)
    rows = np.concatenate(
        [w * part / np.sqrt((part**2).sum(axis=1).mean()) for w, part in zip(weights, parts, strict=True)], axis=1
    )
    # 2) cos(x'w + b), whose inner products approach a Gaussian kernel.
    squares = (rows**2).sum(axis=1)
    distance = np.sqrt(np.median(np.maximum(squares[:, None] + squares - 2 * rows @ rows.T, 0)))
    rng, variants = np.random.default_rng(0), dict[str, Scores]()
    directions, shifts = rng.standard_normal((rows.shape[1], NUM_RANDOM)), rng.uniform(0, 2 * np.pi, NUM_RANDOM)
    for width in WIDTHS:
        features = np.cos(rows @ directions / (width * distance) + shifts).astype(np.float32)
        scores = out_of_fold(evidence, features, 1, ())
        variants |= {f"kernel {width:g}": scores, f"kernel {width:g} + levels": average([scores, levels.log_probabilities])}
    return variants


def average(log_probabilities: Sequence[Scores]) -> Scores:
    """Return the logarithm of the mean of probabilities."""
    return np.asarray(np.logaddexp.reduce(np.stack(log_probabilities), axis=0) - np.log(len(log_probabilities)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--second", default="lite/efficientnet_lite1")
    arguments = parser.parse_args()
    catalog, by_set = discover(), []
    for folder in arguments.folders:
        by_set.append(measure(folder, catalog, arguments.second))
        print_row(folder.name, by_set[-1])
    means = {name: tuple(np.mean([each[name] for each in by_set], axis=0)) for name in by_set[0]}
    print_row(f"mean of {len(by_set)}", means)


def print_row(name: str, measured: Mapping[str, tuple[float, float]]) -> None:
    """Print accuracy in % and log loss of each variant."""
    print(
        f"{name:14s} " + "; ".join(f"{key} {100 * hits:.1f} {loss:.3f}" for key, (hits, loss) in measured.items()), flush=True
    )


if __name__ == "__main__":
    main()
