"""Coverage and width of the 95% intervals on simulated test sets with known true values.

    python benchmarks/trust_intervals.py [--repeats 1000]

Accuracy and recall: Wilson, compared with the normal approximation. Balanced accuracy and macro-F1: ``class_mean_intervals``,
compared with percentiles of a bootstrap. The guarantee of ``--max-error``: how often the true error rate of the answers stays
below it, for calibrated, overconfident and uninformative confidences.
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
FAR = 200_000  # images that measure the true error rate of a guarantee


def true_confusion(recalls: list[float]) -> Floats:
    """Return the true confusion probabilities: errors are spread evenly over the other classes."""
    others = (1 - np.array(recalls)) / (len(recalls) - 1)
    return np.asarray(np.diag(np.array(recalls) - others) + others[:, None])


def macro_f1(confusion: npt.NDArray[np.floating]) -> float:
    return float(np.mean(2 * confusion.diagonal() / np.maximum(confusion.sum(axis=0) + confusion.sum(axis=1), 1e-12)))


def percentiles(confusion: Counts, generator: np.random.Generator) -> Iterator[tuple[float, float]]:
    """Yield percentile intervals of balanced accuracy and macro-F1."""
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
    print(f"{'coverage in % (mean width in pp)':36s}" + "".join(f"{name:>23s}" for name in names))
    for title, sizes, recalls in SETTINGS:
        truth = true_confusion(recalls)
        expected = truth * np.array(sizes)[:, None]
        accuracy = expected.trace() / sum(sizes)
        truths = [accuracy, accuracy, np.mean(recalls), np.mean(recalls), macro_f1(expected), macro_f1(expected)]
        rows = []
        for _ in range(repeats):
            confusion = np.stack([generator.multinomial(n, row) for n, row in zip(sizes, truth, strict=True)])
            correct, total = int(confusion.trace()), int(confusion.sum())
            by_draws = list(percentiles(confusion, generator))
            ours = class_mean_intervals(confusion, draws=400)
            rows.append([normal(correct, total), wilson(correct, total), by_draws[0], ours[0], by_draws[1], ours[1]])
        edges = np.array(rows)
        covered = ((edges[:, :, 0] <= truths) & (truths <= edges[:, :, 1])).mean(axis=0)
        width = (edges[:, :, 1] - edges[:, :, 0]).mean(axis=0)
        print(
            f"{title:36s}" + "".join(f"{100 * h:15.1f} ({100 * w:4.1f})" for h, w in zip(covered, width, strict=True)),
            flush=True,
        )


def images(kind: str, number: int, generator: np.random.Generator) -> tuple[Counts, Floats]:
    """Return labels and probabilities of two classes; about 8% wrong."""
    confidence = 1 - 0.5 * generator.beta(0.5, 2.6, size=number)
    accuracy = {
        "calibrated": confidence,
        "overconfident": 0.5 + 0.8 * (confidence - 0.5),
        "uninformative": np.full(number, 0.92),
    }[kind]
    correct = generator.random(number) < accuracy
    return np.where(correct, 1, 0), np.stack([1 - confidence, confidence], axis=1)


def guarantees(repeats: int) -> None:
    print("\nguarantee of --max-error, 95% confidence: share of draws of N images whose guarantee is violated (5% allowed)")
    for kind in ("calibrated", "overconfident", "uninformative"):
        generator = np.random.default_rng(1)
        labels, probabilities = images(kind, FAR, generator)
        confidence, wrong = probabilities.max(axis=1), labels != probabilities.argmax(axis=1)
        for number in (150, 400, 1000):
            for rate in (0.1, 0.05):
                drawn = [guarantee_error_rate(*images(kind, number, generator), rate) for _ in range(repeats)]
                supported = [guarantee for guarantee in drawn if guarantee.kept]
                errors = [float(wrong[confidence > guarantee.threshold].mean()) for guarantee in supported]
                violated = sum(error > rate for error in errors) / repeats
                coverage = np.mean([guarantee.coverage for guarantee in supported]) if supported else 0.0
                print(
                    f"  {kind:13s} N {number:5d}, at most {rate:4.0%} wrong: given in {len(supported) / repeats:4.0%}, "
                    f"violated in {violated:5.1%}, answered {coverage:4.0%}",
                    flush=True,
                )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000)
    repeats = parser.parse_args().repeats
    print(f"{repeats} repeats, seeds 0 and 1, {Path(__file__).name}")
    coverage(repeats)
    guarantees(repeats)


if __name__ == "__main__":
    main()
