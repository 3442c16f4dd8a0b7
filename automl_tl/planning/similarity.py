"""How much the images are like what a backbone was pretrained on, and how well its features fit the labels.

``source_similarity`` is what plans use. The others are here to be compared with it and with the probe
(`benchmarks/transferability.py`): none of them says how accurate a model will be.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from automl_tl.evaluation import softmax, unit_length

__all__ = ["h_score", "log_me", "neighbor_agreement", "source_similarity"]

# Mean confidence of a classifier on ImageNet's own validation images: EfficientNet-Lite about 0.7 (planner notes, 2).
CONFIDENCE_AT_HOME: Final = 0.7
MAX_ROUNDS: Final = 11  # of LogME's fixed point, as in its authors' code


def source_similarity(logits: NDArray[np.floating]) -> float:
    """Similarity, 0 to 1, of images to the pretraining data, from logits ``(N, Z)`` of the pretrained classifier.

    Its mean confidence (largest softmax) by that on images of its own kind: Hendrycks and Gimpel, arXiv 1610.02136.
    """
    return float(min(1.0, softmax(logits).max(axis=1).mean() / CONFIDENCE_AT_HOME))


def neighbor_agreement(features: NDArray[np.floating], labels: NDArray[np.int64], num_neighbors: int = 5) -> float:
    """Share of images, 0 to 1, that most of their nearest others by cosine share the label of. ``features`` ``(N, D)``."""
    unit = unit_length(features)
    nearness = unit @ unit.T
    np.fill_diagonal(nearness, -np.inf)
    nearest = np.argsort(-nearness, axis=1)[:, : min(num_neighbors, len(labels) - 1)]
    votes = np.apply_along_axis(np.bincount, 1, labels[nearest], minlength=int(labels.max()) + 1)
    return float((votes.argmax(axis=1) == labels).mean())


def h_score(features: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """Shrunk H-score, larger is better: Ibrahim et al., arXiv 2110.06893. ``features`` ``(N, D)``."""
    from sklearn.covariance import ledoit_wolf

    centerd = features - features.mean(axis=0)
    covariance, _ = ledoit_wolf(centerd, assume_centered=True)
    means = np.stack([centerd[labels == label].mean(axis=0) for label in np.unique(labels)])
    weights = np.array([(labels == label).mean() for label in np.unique(labels)])
    between = np.linalg.solve(covariance, (means * weights[:, None]).T)
    return float(np.sum(means.T * between))


def log_me(features: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """LogME, larger is better: log evidence per image of Bayesian ridge on one-hot labels (You et al., arXiv 2102.11005)."""
    left, energies, _ = np.linalg.svd(features.astype(np.float64), full_matrices=False)
    sigma, (num_images, width) = energies**2, features.shape
    evidences = []
    for label in np.unique(labels):
        target = (labels == label).astype(np.float64)
        projected = left.T @ target
        rest = float(target @ target - projected @ projected)
        alpha, beta = 1.0, 1.0
        for _ in range(MAX_ROUNDS):
            gamma = float(np.sum(beta * sigma / (alpha + beta * sigma)))
            weights_sq = float(np.sum(sigma * (beta * projected / (alpha + beta * sigma)) ** 2))
            error = rest + float(np.sum((alpha * projected / (alpha + beta * sigma)) ** 2))
            alpha, beta = gamma / max(weights_sq, 1e-12), (num_images - gamma) / max(error, 1e-12)
        log_det = float(np.sum(np.log(alpha + beta * sigma))) + (width - len(sigma)) * np.log(alpha)
        weights_sq = float(np.sum(sigma * (beta * projected / (alpha + beta * sigma)) ** 2))
        error = rest + float(np.sum((alpha * projected / (alpha + beta * sigma)) ** 2))
        evidence = width * np.log(alpha) + num_images * np.log(beta / (2 * np.pi)) - beta * error - alpha * weights_sq - log_det
        evidences.append(evidence / (2 * num_images))
    return float(np.mean(evidences))
