"""Seconds to make the cross-validation folds of a linear probe, by the number of groups: linear, not quadratic.

python benchmarks/folds.py
"""

from __future__ import annotations

import time

import numpy as np

from automl_tl.training.closed_form import _folds

IMAGES_PER_GROUP = 2


def main() -> None:
    """Print one line per number of groups."""
    for num_classes in (10, 1000):
        for num_groups in (5_000, 50_000, 500_000):
            rng = np.random.default_rng(0)
            groups = rng.permutation(np.repeat(np.arange(num_groups), IMAGES_PER_GROUP))
            labels = rng.integers(0, num_classes, num_groups)[groups]
            started_s = time.perf_counter()
            num_folds = sum(1 for _ in _folds(labels, groups, seed=0))
            seconds = time.perf_counter() - started_s
            print(f"{num_groups:>9,} groups, {num_classes:>5,} classes: {num_folds} folds in {seconds:.2f} s", flush=True)


if __name__ == "__main__":
    main()
