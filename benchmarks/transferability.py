"""Transferability scores: whether they rank backbones, and whether similarity predicts the gain of fine-tuning.

    python -m benchmarks.transferability FOLDER... [--backbone lite/efficientnet_lite0 ...] [--cells regret/cells]

FOLDER has a test split. Per dataset and backbone: similarity to the pretraining data (confidence of the pretrained classifier),
neighbor agreement, LogME, shrunk H-score and out-of-fold accuracy, all without test images, and the test accuracy of the linear
probe. Then the rank correlation (Kendall) of each score with the test accuracy over backbones, averaged over datasets, and over
datasets for each backbone. With the cells of benchmarks/strategies.py: the rank correlation of similarity with the gain of the
best trained strategy over the probe.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import kendalltau
from sklearn.covariance import ledoit_wolf

from automl_tl.evaluation.reference_features import nearest
from automl_tl.models.heads import ClosedFormHead
from automl_tl.planning import EvidenceCollector, make_profile
from automl_tl.plugin_host import discover
from automl_tl.runtime.budget import Deadline
from automl_tl.runtime.progress import QUIET
from automl_tl.training import Workspace
from automl_tl.training.closed_form import head_of
from automl_tl.training.views import Prefix
from automl_tl.values import BenchCell, Constraints
from automl_tl.workflows.dataset import load_dataset
from benchmarks.timing import machine

LITE = [f"lite/efficientnet_lite{variant}" for variant in range(3)]
SCORES = ("similarity", "neighbor agreement", "LogME", "H-score", "out of fold")
Row = dict[str, float]
MAX_ROUNDS = 11  # of LogME's fixed point, as in its authors' code


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare transferability scores.")
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--backbone", action="append")
    parser.add_argument("--cells", type=Path)
    arguments = parser.parse_args()
    backbones = arguments.backbone or LITE
    rows: dict[tuple[str, str], Row] = {}
    print(f"{machine('torch', 'openvino', 'scikit-learn')}; seed 0\n")
    print(f"| dataset | backbone | {' | '.join(SCORES)} | test |\n|{' --- |' * (len(SCORES) + 3)}")
    for folder in arguments.folders:
        for backbone, row in scores_of(folder, backbones).items():
            rows[folder.name, backbone] = row
            values = " | ".join(f"{row[name]:.3f}" for name in (*SCORES, "test"))
            print(f"| {folder.name} | {backbone.rpartition('/')[2]} | {values} |", flush=True)
    print("\n| score | over backbones, mean of datasets | over datasets, mean of backbones |\n| --- | --- | --- |")
    sets = [folder.name for folder in arguments.folders]
    for score in SCORES:
        within = correlation(rows, score, groups=[[(name, backbone) for backbone in backbones] for name in sets])
        across = correlation(rows, score, groups=[[(name, backbone) for name in sets] for backbone in backbones])
        print(f"| {score} | {within:+.2f} | {across:+.2f} |")
    if arguments.cells:
        print_gains(arguments.cells, rows, backbones[0])


def scores_of(folder: Path, backbones: Sequence[str]) -> Mapping[str, Row]:
    """Return the scores of each backbone on the images of ``folder``."""
    catalog, dataset, rows = discover(), load_dataset(folder, seed=0, progress=QUIET), {}
    with TemporaryDirectory() as place:
        workspace = Workspace(folder=Path(place) / "run", cache_dir=Path(place), deadline=Deadline(), progress=QUIET)
        profile = make_profile(dataset.records, dataset.report)
        evidence = EvidenceCollector(profile, dataset.images, dataset.index.classes, workspace, Constraints())
        for name in backbones:
            backbone, images, test = catalog.backbone(name), evidence.sample(), dataset.images["test"]
            probe = evidence.probe(backbone)
            solution = workspace.solve(probe.features, images, solver="average", num_classes=len(dataset.index.classes), seed=0)
            network = backbone.build(pretrained=True)
            encoder = torch.nn.Sequential(*backbone.cut(network)).eval()
            features = Prefix(encoder, backbone.card.preprocessing, workspace.cache, gives_features=True).plain(test).all()
            rows[name] = {
                "similarity": probe.similarity or 0.0,
                "neighbor agreement": neighbor_agreement(probe.features, probe.labels),
                "LogME": log_me(probe.features, probe.labels),
                "H-score": h_score(probe.features, probe.labels),
                "out of fold": probe.accuracy,
                "test": accuracy(head_of(solution), features, test.labels),
            }
    return rows


def neighbor_agreement(features: NDArray[np.floating], labels: NDArray[np.int64], num_neighbors: int = 5) -> float:
    """Return the share of images, 0 to 1, whose label is that of most of their nearest neighbors by cosine similarity.

    Args:
        features: ``(N, D)``.
        labels: ``(N,)``.
        num_neighbors: that vote.
    """
    neighbors, _ = nearest(features, features, num_neighbors, leave_self_out=True)
    votes = np.apply_along_axis(np.bincount, 1, labels[neighbors], minlength=int(labels.max()) + 1)
    return float((votes.argmax(axis=1) == labels).mean())


def h_score(features: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """Return the shrunk H-score, larger is better: Ibrahim et al., arXiv 2110.06893.

    Args:
        features: ``(N, D)``.
        labels: ``(N,)``.
    """
    centered = features - features.mean(axis=0)
    covariance, _ = ledoit_wolf(centered, assume_centered=True)
    means = np.stack([centered[labels == label].mean(axis=0) for label in np.unique(labels)])
    weights = np.array([(labels == label).mean() for label in np.unique(labels)])
    between = np.linalg.solve(covariance, (means * weights[:, None]).T)
    return float(np.sum(means.T * between))


def log_me(features: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """Return LogME, larger is better: log evidence per image of Bayesian ridge on one-hot labels, arXiv 2102.11005.

    Args:
        features: ``(N, D)``.
        labels: ``(N,)``.
    """
    # 1) One decomposition for all classes.
    left, energies, _ = np.linalg.svd(features.astype(np.float64), full_matrices=False)
    sigma, (num_images, width) = energies**2, features.shape
    evidences = []
    for label in np.unique(labels):
        target = (labels == label).astype(np.float64)
        projected = left.T @ target
        rest = float(target @ target - projected @ projected)
        # 2) Fixed point of the precisions of weights (alpha) and noise (beta).
        alpha, beta = 1.0, 1.0
        for _ in range(MAX_ROUNDS):
            gamma = float(np.sum(beta * sigma / (alpha + beta * sigma)))
            weights_sq = float(np.sum(sigma * (beta * projected / (alpha + beta * sigma)) ** 2))
            error = rest + float(np.sum((alpha * projected / (alpha + beta * sigma)) ** 2))
            alpha, beta = gamma / max(weights_sq, 1e-12), (num_images - gamma) / max(error, 1e-12)
        # 3) Log evidence at the fixed point.
        log_det = float(np.sum(np.log(alpha + beta * sigma))) + (width - len(sigma)) * np.log(alpha)
        weights_sq = float(np.sum(sigma * (beta * projected / (alpha + beta * sigma)) ** 2))
        error = rest + float(np.sum((alpha * projected / (alpha + beta * sigma)) ** 2))
        evidence = width * np.log(alpha) + num_images * np.log(beta / (2 * np.pi)) - beta * error - alpha * weights_sq - log_det
        evidences.append(evidence / (2 * num_images))
    return float(np.mean(evidences))


@torch.inference_mode()
def accuracy(head: ClosedFormHead, features: np.ndarray, labels: np.ndarray) -> float:
    return float((head(torch.from_numpy(features)).numpy().argmax(axis=1) == labels).mean())


def correlation(rows: Mapping[tuple[str, str], Row], score: str, groups: Sequence[Sequence[tuple[str, str]]]) -> float:
    """Kendall's tau-b of ``score`` with the test accuracy in each group, averaged over those where it is defined."""
    taus = [kendalltau([rows[key][score] for key in group], [rows[key]["test"] for key in group]).statistic for group in groups]
    return float(np.nanmean(taus))


def print_gains(folder: Path, rows: Mapping[tuple[str, str], Row], backbone: str) -> None:
    """Gain of the best trained strategy over the probe, against similarity and errors of the probe."""
    cells = [BenchCell.model_validate_json(path.read_bytes()) for path in folder.rglob("*.json")]
    gains: list[tuple[str, float, float]] = []
    print("\n| dataset | similarity | probe, test | best trained | gain, pp |\n| --- | --- | --- | --- | --- |")
    for (name, of), row in rows.items():
        accuracies = {
            cell.strategy: cell.accuracy
            for cell in cells
            if (cell.images, cell.backbone, cell.seed) == (name, of, 0) and cell.accuracy is not None
        }
        probe = accuracies.pop("linear_probe", None)
        if of != backbone or probe is None or not accuracies:
            continue
        best = max(accuracies, key=lambda strategy: accuracies[strategy])
        gain = 100 * (accuracies[best] - probe)
        gains.append((name, row["similarity"], gain / max(1 - probe, 1e-9)))
        trained = f"{best} {100 * accuracies[best]:.1f}%"
        print(f"| {name} | {row['similarity']:.2f} | {100 * probe:.1f}% | {trained} | {gain:+.1f} |")
    if len(gains) > 2:
        tau = kendalltau([similarity for _, similarity, _ in gains], [gain for _, _, gain in gains]).statistic
        print(f"\nsimilarity against the share of the probe's errors that the best trained strategy removed: tau {tau:+.2f}")


if __name__ == "__main__":
    main()
