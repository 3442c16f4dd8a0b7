"""Are promises kept, and are strangers refused? Twenty random splits of cached features, a linear head, no network in the loop.

    python benchmarks/trust_abstention.py OWN.npz STRANGERS.npz [--max-error 0.05]

Each file holds ``f`` (N, D) features and ``y`` (N,) labels; ``benchmarks/trust_features.py`` writes them. Prints, over the
splits, the error rate realized at the promise, the coverage that it costs, and the share of strangers that are refused.
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


def head(features: Floats, labels: npt.NDArray[np.int64], asked: Floats) -> Floats:
    """Scores ``(M, C)`` of a logistic head fitted on ``features``, for ``asked``."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=HEAD_C, max_iter=200).fit(features, labels)
    scores = model.decision_function(asked)
    return np.asarray(np.stack([-scores / 2, scores / 2], axis=1) if scores.ndim == 1 else scores)


def out_of_fold(features: Floats, labels: npt.NDArray[np.int64], generator: np.random.Generator) -> Floats:
    """Scores of every image by a head that didn't see it."""
    fold = generator.permutation(len(labels)) % NUM_FOLDS
    parts = [
        (fold == number, head(features[fold != number], labels[fold != number], features[fold == number]))
        for number in range(NUM_FOLDS)
    ]
    scores = np.zeros((len(labels), parts[0][1].shape[1]))
    for rows, part in parts:
        scores[rows] = part
    return scores


def one_split(own: tuple[Floats, npt.NDArray[np.int64]], strangers: Floats, max_error: float, seed: int) -> dict[str, float]:
    """What one split gives; the threshold comes from the learning part, everything else is measured on the rest."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(own[1]))
    test, learn = np.split(order, [round(HELD_OUT * len(order))])
    features, labels = own[0], own[1]
    scores = out_of_fold(features[learn], labels[learn], generator)
    temperature = fit_temperature(scores, labels[learn])
    promise = guarantee_error_rate(labels[learn], softmax(scores, temperature), max_error)
    limit = ood_threshold(features[learn])

    def answered(asked: Floats) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
        said = softmax(head(features[learn], labels[learn], asked), temperature)
        known = ood_scores(asked, features[learn]) <= limit
        return known, said.max(axis=1) > promise.threshold, said.argmax(axis=1)

    known, sure, best = answered(features[test])
    given = known & sure
    strange_known, strange_sure, _ = answered(strangers)
    return {
        "promised": float(promise.kept),
        "accuracy without": float((best == labels[test]).mean()),
        "wrong among answers": float((best[given] != labels[test][given]).mean()) if given.any() else 0.0,
        "answered": float(given.mean()),
        "own called strange": float((~known).mean()),
        "strangers refused as strange": float((~strange_known).mean()),
        "strangers refused in all": float((~(strange_known & strange_sure)).mean()),
    }


def main() -> None:
    """Print one line per figure: mean and range over the splits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("own", type=Path, nargs="+", help="one or more files of the model's own kind, then one of strangers")
    parser.add_argument("--max-error", type=float, default=0.05)
    arguments = parser.parse_args()
    *own_files, stranger_file = arguments.own
    loaded = [np.load(file) for file in own_files]
    raw = np.concatenate([each["f"] for each in loaded])
    own = unit_length(raw).astype(np.float64) * np.sqrt(raw.shape[1]), np.concatenate([each["y"] for each in loaded])
    strangers = unit_length(np.load(stranger_file)["f"]).astype(np.float64) * np.sqrt(raw.shape[1])
    rows = [one_split(own, strangers, arguments.max_error, seed) for seed in range(NUM_SPLITS)]
    print(f"{len(own[1])} own images, {len(strangers)} strangers, {NUM_SPLITS} splits, at most {arguments.max_error:.0%} wrong")
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        print(f"{name:30s} mean {values.mean():.3f}   {values.min():.3f} to {values.max():.3f}")
    broken = np.mean([row["wrong among answers"] > arguments.max_error for row in rows])
    print(f"splits whose test part had more errors than promised: {broken:.0%}")


if __name__ == "__main__":
    main()
