"""OOD scores: every dataset against every other, by nearest neighbors, Mahalanobis distance and confidence.

    python benchmarks/trust_ood.py FEATURES.npz FEATURES.npz ...     (from trust_features.py)

Half of each dataset is the reference; its other half and all other datasets are scored. Thresholds come from the reference
half, at 5% of its own images. Prints, for each score, AUROC and the shares of OOD and of own images that are rejected.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

from automl_tl.evaluation import unit_length
from automl_tl.evaluation.reference_features import nearest

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
NUM_FOLDS = 5


def neighbors(reference: Floats, labels: Labels, queries: Floats, k: int) -> Floats:
    return np.asarray(nearest(queries, reference, k)[1][:, -1], dtype=np.float64)


def mahalanobis(reference: Floats, labels: Labels, queries: Floats) -> Floats:
    from sklearn.covariance import ledoit_wolf

    present, index = np.unique(labels, return_inverse=True)
    means = np.stack([reference[labels == label].mean(axis=0) for label in present])
    covariance, _ = ledoit_wolf(reference - means[index], assume_centered=True)
    whitener = np.linalg.cholesky(np.linalg.inv(covariance))
    white, centers = queries @ whitener, means @ whitener
    return np.asarray(((white[:, None] - centers[None]) ** 2).sum(axis=-1).min(axis=1))


def low_confidence(reference: Floats, labels: Labels, queries: Floats) -> Floats:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=10.0, max_iter=200).fit(reference * np.sqrt(reference.shape[1]), labels)
    return np.asarray(1 - model.predict_proba(queries * np.sqrt(reference.shape[1])).max(axis=1))


SCORES = {
    "1st neighbor": lambda reference, labels, queries: neighbors(reference, labels, queries, 1),
    "5th neighbor": lambda reference, labels, queries: neighbors(reference, labels, queries, 5),
    "10th neighbor": lambda reference, labels, queries: neighbors(reference, labels, queries, 10),
    "Mahalanobis": mahalanobis,
    "1 - confidence": low_confidence,
}


def out_of_fold(score: str, reference: Floats, labels: Labels) -> Floats:
    fold = np.random.default_rng(0).permutation(len(labels)) % NUM_FOLDS
    scores = np.zeros(len(labels))
    for number in range(NUM_FOLDS):
        scores[fold == number] = SCORES[score](reference[fold != number], labels[fold != number], reference[fold == number])
    return scores


def main() -> None:
    """Print one line per score."""
    from sklearn.metrics import roc_auc_score

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path, nargs="+")
    sets = {file.stem: np.load(file) for file in parser.parse_args().features}
    for score, measure in SCORES.items():
        rows = []
        for name, own in sets.items():
            features, labels = unit_length(own["f"]).astype(np.float64), own["y"]
            half = np.random.default_rng(1).random(len(labels)) < 0.5
            limit = np.quantile(out_of_fold(score, features[half], labels[half]), 0.95)
            own_scores = measure(features[half], labels[half], features[~half])
            for other in (other for other in sets if other != name):
                ood_scores = measure(features[half], labels[half], unit_length(sets[other]["f"]).astype(np.float64))
                truth = np.repeat([0, 1], [len(own_scores), len(ood_scores)])
                auroc = roc_auc_score(truth, np.concatenate([own_scores, ood_scores]))
                rows.append((auroc, (ood_scores > limit).mean(), (own_scores > limit).mean()))
        mean, lowest = np.mean(rows, axis=0), np.min(rows, axis=0)
        print(
            f"{score:16s} AUROC {mean[0]:.4f} (min {lowest[0]:.3f})  OOD rejected {mean[1]:.3f} (min {lowest[1]:.3f})  "
            f"own rejected {mean[2]:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
