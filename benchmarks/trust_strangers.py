"""Which score tells strangers best? Every set against every other: nearest neighbors, Mahalanobis, confidence.

    python benchmarks/trust_strangers.py FEATURES.npz FEATURES.npz ...     (from trust_features.py)

Half of each set is remembered, the other half and all other sets are asked. Thresholds come from the remembered half alone, at
5% of its own images. Prints, for each score, AUROC and the share of strangers and of own images that are refused.
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


def neighbors(memory: Floats, labels: Labels, asked: Floats, k: int) -> Floats:
    return np.asarray(nearest(asked, memory, k)[1][:, -1], dtype=np.float64)


def mahalanobis(memory: Floats, labels: Labels, asked: Floats) -> Floats:
    from sklearn.covariance import ledoit_wolf

    present, index = np.unique(labels, return_inverse=True)
    means = np.stack([memory[labels == label].mean(axis=0) for label in present])
    covariance, _ = ledoit_wolf(memory - means[index], assume_centered=True)
    whitener = np.linalg.cholesky(np.linalg.inv(covariance))
    white, centers = asked @ whitener, means @ whitener
    return np.asarray(((white[:, None] - centers[None]) ** 2).sum(axis=-1).min(axis=1))


def unsure(memory: Floats, labels: Labels, asked: Floats) -> Floats:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=10.0, max_iter=200).fit(memory * np.sqrt(memory.shape[1]), labels)
    return np.asarray(1 - model.predict_proba(asked * np.sqrt(memory.shape[1])).max(axis=1))


SCORES = {
    "1st neighbor": lambda memory, labels, asked: neighbors(memory, labels, asked, 1),
    "5th neighbor": lambda memory, labels, asked: neighbors(memory, labels, asked, 5),
    "10th neighbor": lambda memory, labels, asked: neighbors(memory, labels, asked, 10),
    "Mahalanobis": mahalanobis,
    "1 - confidence": unsure,
}


def out_of_fold(score: str, memory: Floats, labels: Labels) -> Floats:
    fold = np.random.default_rng(0).permutation(len(labels)) % NUM_FOLDS
    scores = np.zeros(len(labels))
    for number in range(NUM_FOLDS):
        scores[fold == number] = SCORES[score](memory[fold != number], labels[fold != number], memory[fold == number])
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
            mine = measure(features[half], labels[half], features[~half])
            for other in (other for other in sets if other != name):
                theirs = measure(features[half], labels[half], unit_length(sets[other]["f"]).astype(np.float64))
                truth = np.repeat([0, 1], [len(mine), len(theirs)])
                auroc = roc_auc_score(truth, np.concatenate([mine, theirs]))
                rows.append((auroc, (theirs > limit).mean(), (mine > limit).mean()))
        mean, least = np.mean(rows, axis=0), np.min(rows, axis=0)
        print(
            f"{score:16s} AUROC {mean[0]:.4f} (least {least[0]:.3f})  strangers refused {mean[1]:.3f} (least {least[1]:.3f})  "
            f"own refused {mean[2]:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
