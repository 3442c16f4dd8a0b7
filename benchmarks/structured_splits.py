"""Structure in the order of files: predicted against official accuracy with and without blocks, coverage, and false alarms.

    python benchmarks/structured_splits.py DATASETS [--names brain_mri gtsrb14] [--shuffles 100]

For each folder in DATASETS: two plans (linear probe, one backbone), by blocks where the order matters and with ``none``,
against the accuracy of the fit on the official test split, whose images took no part in the plan. The 90% interval follows
from the 95% interval of the plan. Then the test of the order on images whose names are shuffled within each class.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import automl_tl
from automl_tl import data
from automl_tl.data.audit.order import MAX_P_VALUE, measure_order
from automl_tl.runtime.paths import cache_dir
from automl_tl.values import ImageRecord

BACKBONE = "lite/efficientnet_lite0"
TO_90 = 1.645 / 1.96
ROW = "{:14s} {:>9s} {:>8s} {:>7s} {:>7s}   {:>8s} {:>7s} {:>7s}   {:>10s}"


def fit(folder: Path, group_by: str | None) -> tuple[float, float, float, bool]:
    """Return expected accuracy, half of its 90% interval, the official accuracy, and whether images are grouped."""
    with TemporaryDirectory() as registry:
        outcome = automl_tl.fit(
            folder, backbone=BACKBONE, strategy="linear_probe", group_by=group_by, registry=registry, name="probe"
        )
    expected, interval = outcome.plan.expected.accuracy, outcome.plan.expected.accuracy_interval
    assert expected is not None
    assert interval is not None
    is_grouped = outcome.plan.profile.grouping is not None
    return expected, TO_90 * (expected - interval[0]), outcome.test.accuracy, is_grouped


def false_alarms(folder: Path, shuffles: int) -> tuple[int, int, float]:
    """Return the alarms among shuffles, those without the floor on the excess, and the excess of the files as they are."""
    with data.Thumbnails() as thumbnails:
        index = data.scan(data.open_source(folder), cache_dir=cache_dir(), thumbnails=thumbnails)
        report = data.audit_index(index, thumbnails)
        images = data.images_in_use(index, report)
        actual = measure_order(images, (), thumbnails)
        tests = [
            test
            for seed in range(shuffles)
            if (test := measure_order(shuffled(images, np.random.default_rng(seed)), (), thumbnails))
        ]
    num_small = sum(test.p_value <= MAX_P_VALUE for test in tests)
    return sum(test.is_structured for test in tests), num_small, actual.excess if actual else 0.0


def shuffled(images: tuple[ImageRecord, ...], generator: np.random.Generator) -> list[ImageRecord]:
    """Exchange the names of the images of each class and split."""
    classes: dict[tuple[str, str | None], list[ImageRecord]] = defaultdict(list)
    for image in images:
        classes[image.label, image.split].append(image)
    return [
        replace(image, path=listed[place].path, captured_at=None)
        for listed in classes.values()
        for image, place in zip(listed, generator.permutation(len(listed)), strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", type=Path)
    parser.add_argument("--names", nargs="*")
    parser.add_argument("--shuffles", type=int, default=100)
    arguments = parser.parse_args()
    folders = sorted(path for path in arguments.datasets.iterdir() if path.is_dir())
    folders = [folder for folder in folders if not arguments.names or folder.name in arguments.names]
    print(ROW.format("set", "official", "no group", "diff", "90% +-", "default", "diff", "90% +-", "shuffles"))
    print(" " * 14 + "  (accuracies in %, differences in pp; alarms among the shuffles, without the floor)")
    covered = [0, 0]
    for folder in folders:
        cells = []
        default = fit(folder, None)
        for place, (expected, half, official, _) in enumerate((fit(folder, "none") if default[3] else default, default)):
            covered[place] += abs(expected - official) <= half
            cells += [f"{100 * expected:.1f}", f"{100 * (expected - official):+.1f}", f"{100 * half:.1f}"]
        alarms, num_small, excess = false_alarms(folder, arguments.shuffles)
        alarm_cell = f"{alarms} ({num_small}), files {excess:+.2f}"
        print(ROW.format(folder.name, f"{100 * official:.1f}", *cells, alarm_cell), flush=True)
    print(f"90% intervals that cover the official accuracy, of {len(folders)}: none {covered[0]}, default {covered[1]}")


if __name__ == "__main__":
    main()
