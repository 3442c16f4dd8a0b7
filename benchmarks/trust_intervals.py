"""Do the 95% intervals cover? Simulated test sets whose truth is known: how often each interval holds it, and how wide it is.

    python benchmarks/trust_intervals.py [--repeats 1000]

Accuracy and recall: Wilson, beside the textbook's normal approximation. Balanced accuracy and macro-F1:
``class_mean_intervals``, beside percentiles of the same bootstrap draws. The promise of ``--max-error``: how often the true
error rate of the answers stays below it, for confidences that are calibrated, too sure of themselves, and no use at all.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from automl_tl.evaluation import class_mean_intervals, wilson
from automl_tl.evaluation.abstention import guarantee_error_rate

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
SETTINGS = (
    ("2 classes x 20, recall 95%", [20] * 2, [0.95] * 2),
    ("2 classes, 70 and 83, 94 and 92%", [70, 83], [0.94, 0.92]),
    ("6 x 48, recall 77 to 90%", [48] * 6, [0.77, 0.79, 0.83, 0.85, 0.87, 0.9]),
    ("6 x 48, recall 99%", [48] * 6, [0.99] * 6),
    ("25 x 15, recall 60 to 100%", [15] * 25, list(np.linspace(0.6, 1, 25))),
    ("200, 20 and 8; 97, 80 and 60%", [200, 20, 8], [0.97, 0.8, 0.6]),
    ("200, 20 and 8; 99, 97 and 90%", [200, 20, 8], [0.99, 0.97, 0.9]),
    ("10 x 5, recall 90%", [5] * 10, [0.9] * 10),
)
FAR = 200_000  # images on which the true error rate of a promise is counted


def chances(recalls: list[float]) -> Floats:
    """Confusion of the truth: what is wrong is spread over the other classes."""
    others = (1 - np.array(recalls)) / (len(recalls) - 1)
    return np.asarray(np.diag(np.array(recalls) - others) + others[:, None])


def macro_f1(confusion: npt.NDArray[np.floating]) -> float:
    return float(np.mean(2 * confusion.diagonal() / np.maximum(confusion.sum(axis=0) + confusion.sum(axis=1), 1e-12)))


def percentiles(confusion: Counts, generator: np.random.Generator) -> Iterator[tuple[float, float]]:
    """The simpler way for both figures."""
    sizes = confusion.sum(axis=1)
    draws = np.stack([generator.multinomial(n, row / n, size=400) for n, row in zip(sizes, confusion, strict=True)], axis=1)
    for values in ([np.mean(draw.diagonal() / sizes) for draw in draws], [macro_f1(draw) for draw in draws]):
        low, high = np.percentile(values, [2.5, 97.5])
        yield float(low), float(high)


def normal(correct: int, total: int) -> tuple[float, float]:
    share = correct / total
    half = 1.96 * (share * (1 - share) / total) ** 0.5
    return share - half, share + half


def coverage(repeats: int) -> None:
    generator = np.random.default_rng(0)
    names = ("accuracy, normal", "accuracy, Wilson", "balanced, percentiles", "balanced", "macro-F1, percentiles", "macro-F1")
    print(f"{'coverage in % (mean width in points)':36s}" + "".join(f"{name:>23s}" for name in names))
    for title, sizes, recalls in SETTINGS:
        truth = chances(recalls)
        expected = truth * np.array(sizes)[:, None]
        accuracy = expected.trace() / sum(sizes)
        truths = [accuracy, accuracy, np.mean(recalls), np.mean(recalls), macro_f1(expected), macro_f1(expected)]
        found = []
        for _ in range(repeats):
            confusion = np.stack([generator.multinomial(n, row) for n, row in zip(sizes, truth, strict=True)])
            right, total = int(confusion.trace()), int(confusion.sum())
            by_draws = list(percentiles(confusion, generator))
            ours = class_mean_intervals(confusion, draws=400)
            found.append([normal(right, total), wilson(right, total), by_draws[0], ours[0], by_draws[1], ours[1]])
        edges = np.array(found)
        held = ((edges[:, :, 0] <= truths) & (truths <= edges[:, :, 1])).mean(axis=0)
        width = (edges[:, :, 1] - edges[:, :, 0]).mean(axis=0)
        print(
            f"{title:36s}" + "".join(f"{100 * h:15.1f} ({100 * w:4.1f})" for h, w in zip(held, width, strict=True)), flush=True
        )


def images(kind: str, number: int, generator: np.random.Generator) -> tuple[Counts, Floats]:
    """Labels and probabilities of two classes; about 8% wrong."""
    sure = 1 - 0.5 * generator.beta(0.5, 2.6, size=number)
    chance_right = {"calibrated": sure, "too sure": 0.5 + 0.8 * (sure - 0.5), "no use": np.full(number, 0.92)}[kind]
    right = generator.random(number) < chance_right
    return np.where(right, 1, 0), np.stack([1 - sure, sure], axis=1)


def promises(repeats: int) -> None:
    print("\npromise of --max-error, 95% sure: share of draws of N images whose promise is broken in truth (5% are allowed)")
    for kind in ("calibrated", "too sure", "no use"):
        generator = np.random.default_rng(1)
        labels, probabilities = images(kind, FAR, generator)
        sure, wrong = probabilities.max(axis=1), labels != probabilities.argmax(axis=1)
        for number in (150, 400, 1000):
            for rate in (0.1, 0.05):
                made = [guarantee_error_rate(*images(kind, number, generator), rate) for _ in range(repeats)]
                kept = [promise for promise in made if promise.kept]
                real = [float(wrong[sure > promise.threshold].mean()) for promise in kept]
                broken = sum(each > rate for each in real) / repeats
                coverage = np.mean([promise.coverage for promise in kept]) if kept else 0.0
                print(
                    f"  {kind:10s} N {number:5d}, at most {rate:4.0%} wrong: promised in {len(kept) / repeats:4.0%}, broken in "
                    f"{broken:5.1%}, answered {coverage:4.0%}",
                    flush=True,
                )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000)
    repeats = parser.parse_args().repeats
    print(f"{repeats} repeats, seeds 0 and 1, {Path(__file__).name}")
    coverage(repeats)
    promises(repeats)


if __name__ == "__main__":
    main()
