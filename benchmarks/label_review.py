"""Label review: flip labels, review the first part of the queue with a script that knows the truth, and fit before and after.

    python benchmarks/label_review.py ../shared/datasets/{flowers5,trashnet,pets3,sign_digits,neu_defects} --seeds 5

For each set and seed, the images in use are written to a temporary folder with their test split; 5% of the labels outside of
the test split are replaced by another class at random. The test labels stay as they are. Then:

1. queue: rank the training folder as `tl review` does, without a model. "found" is the share of the flips among the first 10%;
   random order finds 10% of them. "suggested" is the share of the found ones whose suggested class is the true one.
2. before: fit with the flips.
3. after: correct the flips among the first 10%, confirm the others, and fit again with these corrections.
4. clean: fit with all flips corrected, which is what a complete review would reach.

All fits use one backbone and strategy, so that labels are the only difference; accuracies are those on the same test images.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path, PurePosixPath
from statistics import mean, stdev
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from automl_tl.data import Correction, append_correction
from automl_tl.planning import make_plan
from automl_tl.plugin_host import discover
from automl_tl.runtime.budget import Deadline
from automl_tl.runtime.progress import QUIET
from automl_tl.training import TrainingTask, fit
from automl_tl.values import Constraints, ImageRecord
from automl_tl.workflows.dataset import load_dataset
from automl_tl.workflows.plan import evidence_collector, open_workspace
from automl_tl.workflows.review import review

STUDENT_T = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}  # two-sided 95%, by number of seeds


@dataclass(frozen=True)
class Run:
    """One set with one seed; fractions."""

    num_flips: int
    num_reviewed: int
    found: float
    suggested: float
    before: float
    after: float
    clean: float
    num_gained: int
    num_lost: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", type=Path, nargs="+")
    parser.add_argument("--flips", type=float, default=0.05, help="fraction of the labels outside of the test split")
    parser.add_argument("--reviewed", type=float, default=0.1, help="fraction of the queue")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--backbone", default="lite/efficientnet_lite0")
    parser.add_argument("--strategy", default="linear_probe")
    options = parser.parse_args()
    print(f"{platform.machine()}, python {platform.python_version()}, {options.backbone}, {options.strategy}", end=", ")
    print(f"{options.flips:.0%} flipped, the first {options.reviewed:.0%} reviewed, {options.seeds} seeds\n")
    print("| set | seed | flips | reviewed | found | suggested | before | after | clean | newly right | newly wrong |")
    print("| --- |" + " ---: |" * 10)
    runs: dict[str, list[Run]] = {}
    for folder in options.sets:
        runs[folder.name] = []
        for seed in range(options.seeds):
            run = measure(folder, seed, options)
            runs[folder.name].append(run)
            accuracies = f"{run.before:.1%} | {run.after:.1%} | {run.clean:.1%} | {run.num_gained} | {run.num_lost}"
            shares = f"{run.num_flips} | {run.num_reviewed} | {run.found:.0%} | {run.suggested:.0%}"
            print(f"| {folder.name} | {seed} | {shares} | {accuracies} |", flush=True)
    print("\nMeans over the seeds; intervals are 95%, by Student's t over the seeds.\n")
    print("| set | found | suggested | accuracy before | after | clean | after - before |")
    print("| --- |" + " ---: |" * 6)
    for name, of_set in runs.items():
        print(summarize(name, of_set))
    print(summarize("all", [run for of_set in runs.values() for run in of_set]))


def summarize(name: str, runs: Sequence[Run]) -> str:
    found, suggested = (mean(values) for values in ([run.found for run in runs], [run.suggested for run in runs]))
    before, after, clean = (mean(getattr(run, field) for run in runs) for field in ("before", "after", "clean"))
    gains = [100 * (run.after - run.before) for run in runs]
    margin = STUDENT_T.get(len(runs), 2.06) * stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else float("nan")
    gain = f"{mean(gains):+.1f} ± {margin:.1f} pp"
    return f"| {name} | {found:.0%} | {suggested:.0%} | {before:.1%} | {after:.1%} | {clean:.1%} | {gain} |"


def measure(folder: Path, seed: int, options: argparse.Namespace) -> Run:
    constraints = Constraints(backbones=(options.backbone,), strategies=(options.strategy,), seed=seed)
    with TemporaryDirectory(prefix="tl-label-review-") as temporary:
        work = Path(temporary)
        images, reviewed, everything = work / "images", work / "reviewed.csv", work / "everything.csv"
        truth, flipped = write_flipped(folder, images, seed, options.flips)
        # The queue of the training images alone: the test images have their true labels.
        items = review(images / "train").items
        items = items[: ceil(options.reviewed * len(items))]
        for item in items:
            decision = ("relabel", truth[item.digest]) if item.digest in flipped else ("keep", "")
            append_correction(reviewed, Correction(item.digest, item.paths[0], *decision))
        for digest in flipped:
            append_correction(everything, Correction(digest, "", "relabel", truth[digest]))
        before, after, clean = (is_right(images, constraints, file) for file in (None, reviewed, everything))
    found = [item for item in items if item.digest in flipped]
    return Run(
        num_flips=len(flipped),
        num_reviewed=len(items),
        found=len(found) / len(flipped),
        suggested=sum(item.label == truth[item.digest] for item in found) / max(1, len(found)),
        before=float(before.mean()),
        after=float(after.mean()),
        clean=float(clean.mean()),
        num_gained=int((after & ~before).sum()),
        num_lost=int((before & ~after).sum()),
    )


def is_right(images: Path, constraints: Constraints, corrections: Path | None) -> NDArray[np.bool_]:
    """Fit as `tl auto fit` does, without publishing; return whether each test image is classified correctly."""
    dataset = load_dataset(images, seed=constraints.seed, corrections=corrections)
    catalog = discover()
    with open_workspace(Deadline(), QUIET) as workspace:
        plan = make_plan(catalog, evidence_collector(dataset, constraints, workspace))
        task = TrainingTask(plan, catalog.backbone(plan.backbone), dataset.index.classes, dataset.images, workspace)
        probabilities = fit(task).probabilities(dataset.images["test"])
    right: NDArray[np.bool_] = probabilities.argmax(axis=1) == dataset.images["test"].labels
    return right


def write_flipped(folder: Path, target: Path, seed: int, fraction: float) -> tuple[dict[str, str], set[str]]:
    """Write train/ with flips and test/ without; return the true class by digest, and the digests of the flips."""
    dataset = load_dataset(folder, seed=seed)
    classes = dataset.index.classes
    pool = sorted((*dataset.records["train"], *dataset.records["validation"]), key=lambda record: record.digest)
    generator = np.random.default_rng(seed)
    chosen = generator.choice(len(pool), size=round(fraction * len(pool)), replace=False)
    shift = dict(zip(chosen.tolist(), generator.integers(1, len(classes), size=len(chosen)).tolist(), strict=True))
    for at, record in enumerate(pool):
        label = classes[(classes.index(record.label) + shift.get(at, 0)) % len(classes)]
        write(target / "train" / label, record, dataset.source.read(record.path))
    for record in dataset.records["test"]:
        write(target / "test" / record.label, record, dataset.source.read(record.path))
    return {record.digest: record.label for record in pool}, {pool[at].digest for at in shift}


def write(folder: Path, record: ImageRecord, content: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{record.digest[:16]}{PurePosixPath(record.path).suffix}").write_bytes(content)


if __name__ == "__main__":
    main()
