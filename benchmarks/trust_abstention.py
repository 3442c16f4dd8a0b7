"""Abstention: whether error guarantees hold and OOD images are rejected, on twenty random splits of cached features.

    python benchmarks/trust_abstention.py OWN.npz OOD.npz [--max-error 0.05]

Each file holds ``f`` (N, D) features and ``y`` (N,) labels, written by ``benchmarks/trust_features.py``. Prints, over the
splits, the realized error rate, the coverage, and the share of OOD images that are rejected.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

from automl_tl.evaluation import fit_temperature, softmax, unit_length
from automl_tl.evaluation.abstention import guarantee_error_rate
from automl_tl.evaluation.reference_features import ood_scores, ood_threshold

Floats = npt.NDArray[np.float64]
NUM_SPLITS, NUM_FOLDS, HELD_OUT = 20, 5, 0.4
HEAD_C = 10.0


def head(features: Floats, labels: npt.NDArray[np.int64], queries: Floats) -> Floats:
    """Return scores ``(M, C)`` of a logistic head fitted on ``features``, for ``queries``."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=HEAD_C, max_iter=200).fit(features, labels)
    scores = model.decision_function(queries)
    return np.asarray(np.stack([-scores / 2, scores / 2], axis=1) if scores.ndim == 1 else scores)


def out_of_fold(features: Floats, labels: npt.NDArray[np.int64], generator: np.random.Generator) -> Floats:
    """Return the scores of every image by a head that was not trained on it."""
    fold = generator.permutation(len(labels)) % NUM_FOLDS
    folds = [
        (fold == number, head(features[fold != number], labels[fold != number], features[fold == number]))
        for number in range(NUM_FOLDS)
    ]
    scores = np.zeros((len(labels), folds[0][1].shape[1]))
    for rows, fold_scores in folds:
        scores[rows] = fold_scores
    return scores


def one_split(own: tuple[Floats, npt.NDArray[np.int64]], ood: Floats, max_error: float, seed: int) -> dict[str, float]:
    """Fit thresholds on the training images of one split and measure on the others."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(own[1]))
    test, learn = np.split(order, [round(HELD_OUT * len(order))])
    features, labels = own[0], own[1]
    scores = out_of_fold(features[learn], labels[learn], generator)
    temperature = fit_temperature(scores, labels[learn])
    guarantee = guarantee_error_rate(labels[learn], softmax(scores, temperature), max_error)
    limit = ood_threshold(features[learn])

    def answered(queries: Floats) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
        probabilities = softmax(head(features[learn], labels[learn], queries), temperature)
        in_distribution = ood_scores(queries, features[learn]) <= limit
        return in_distribution, probabilities.max(axis=1) > guarantee.threshold, probabilities.argmax(axis=1)

    in_distribution, confident, best = answered(features[test])
    answered_rows = in_distribution & confident
    ood_in_distribution, ood_confident, _ = answered(ood)
    wrong = best[answered_rows] != labels[test][answered_rows]
    return {
        "guaranteed": float(guarantee.kept),
        "accuracy without": float((best == labels[test]).mean()),
        "wrong among answers": float(wrong.mean()) if len(wrong) else 0.0,
        "answered": float(answered_rows.mean()),
        "own images called OOD": float((~in_distribution).mean()),
        "OOD images rejected as OOD": float((~ood_in_distribution).mean()),
        "OOD images rejected in total": float((~(ood_in_distribution & ood_confident)).mean()),
    }


def main() -> None:
    """Print one line per measure: mean and range over the splits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("own", type=Path, nargs="+", help="files of the model's own dataset, then one of OOD images")
    parser.add_argument("--max-error", type=float, default=0.05)
    arguments = parser.parse_args()
    *own_files, ood_file = arguments.own
    loaded = [np.load(file) for file in own_files]
    raw = np.concatenate([arrays["f"] for arrays in loaded])
    own = unit_length(raw).astype(np.float64) * np.sqrt(raw.shape[1]), np.concatenate([arrays["y"] for arrays in loaded])
    ood = unit_length(np.load(ood_file)["f"]).astype(np.float64) * np.sqrt(raw.shape[1])
    rows = [one_split(own, ood, arguments.max_error, seed) for seed in range(NUM_SPLITS)]
    print(f"{len(own[1])} own images, {len(ood)} OOD images, {NUM_SPLITS} splits, at most {arguments.max_error:.0%} wrong")
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        print(f"{name:30s} mean {values.mean():.3f}   {values.min():.3f} to {values.max():.3f}")
    violated = np.mean([row["wrong among answers"] > arguments.max_error for row in rows])
    print(f"splits whose test images had a higher error rate than guaranteed: {violated:.0%}")


if __name__ == "__main__":
    main()
