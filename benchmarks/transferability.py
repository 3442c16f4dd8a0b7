"""What the scores of features are worth: do they rank backbones, and does similarity tell what fine-tuning gains?

    python -m benchmarks.transferability FOLDER... [--backbone lite/efficientnet_lite0 ...] [--cells regret/cells]

FOLDER has a test part. Per data set and backbone: similarity to the pretraining (confidence of its own classifier), neighbor
agreement, LogME, shrunk H-score and accuracy out of fold, all without the test images, beside the accuracy of the linear probe
on the test. Then the rank correlation (Kendall) of each score with the test accuracy over the backbones of a set, averaged over
sets, and over sets for each backbone. With the cells of benchmarks/strategies.py: the rank correlation of similarity with what
the best trained strategy gained over the probe.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from scipy.stats import kendalltau

from automl_tl.models.heads import ClosedFormHead
from automl_tl.planning import Lab
from automl_tl.planning.similarity import h_score, log_me, neighbor_agreement
from automl_tl.plugin_host import discover
from automl_tl.runtime.budget import Deadline
from automl_tl.runtime.progress import QUIET
from automl_tl.training import Workspace
from automl_tl.training.closed_form import head_of
from automl_tl.training.views import Prefix
from automl_tl.values import BenchCell, Constraints
from automl_tl.workflows.dataset import load_dataset
from benchmarks.turns import machine

LITE = [f"lite/efficientnet_lite{variant}" for variant in range(3)]
SCORES = ("similarity", "neighbor agreement", "LogME", "H-score", "out of fold")
Row = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description="What scores of features are worth.")
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--backbone", action="append")
    parser.add_argument("--cells", type=Path)
    arguments = parser.parse_args()
    backbones = arguments.backbone or LITE
    rows: dict[tuple[str, str], Row] = {}
    print(f"{machine('torch', 'openvino', 'scikit-learn')}; seed 0\n")
    print(f"| data set | backbone | {' | '.join(SCORES)} | test |\n|{' --- |' * (len(SCORES) + 3)}")
    for folder in arguments.folders:
        for backbone, row in scores_of(folder, backbones).items():
            rows[folder.name, backbone] = row
            values = " | ".join(f"{row[name]:.3f}" for name in (*SCORES, "test"))
            print(f"| {folder.name} | {backbone.rpartition('/')[2]} | {values} |", flush=True)
    print("\n| score | over backbones, mean of sets | over sets, mean of backbones |\n| --- | --- | --- |")
    sets = [folder.name for folder in arguments.folders]
    for score in SCORES:
        within = correlation(rows, score, groups=[[(name, backbone) for backbone in backbones] for name in sets])
        across = correlation(rows, score, groups=[[(name, backbone) for name in sets] for backbone in backbones])
        print(f"| {score} | {within:+.2f} | {across:+.2f} |")
    if arguments.cells:
        tell_gains(arguments.cells, rows, backbones[0])


def scores_of(folder: Path, backbones: Sequence[str]) -> Mapping[str, Row]:
    """Of each backbone on the images of ``folder``."""
    catalog, found, rows = discover(), load_dataset(folder, seed=0, progress=QUIET), {}
    with TemporaryDirectory() as place:
        workspace = Workspace(folder=Path(place) / "run", cache_dir=Path(place), deadline=Deadline(), progress=QUIET)
        lab = Lab(found.images, found.index.classes, workspace, Constraints())
        for name in backbones:
            backbone, images, test = catalog.backbone(name), lab.learning, found.images["test"]
            probe = lab.probe(backbone, images)
            solution = workspace.solve(probe.features, images, solver="average", num_classes=len(found.index.classes), seed=0)
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


@torch.inference_mode()
def accuracy(head: ClosedFormHead, features: np.ndarray, labels: np.ndarray) -> float:
    return float((head(torch.from_numpy(features)).numpy().argmax(axis=1) == labels).mean())


def correlation(rows: Mapping[tuple[str, str], Row], score: str, groups: Sequence[Sequence[tuple[str, str]]]) -> float:
    """Kendall's tau-b of ``score`` with the test accuracy in each group, averaged over those where it is defined."""
    taus = [kendalltau([rows[key][score] for key in group], [rows[key]["test"] for key in group]).statistic for group in groups]
    return float(np.nanmean(taus))


def tell_gains(folder: Path, rows: Mapping[tuple[str, str], Row], backbone: str) -> None:
    """Gain of the best trained strategy over the probe, against similarity and errors of the probe."""
    cells = [BenchCell.model_validate_json(path.read_bytes()) for path in folder.glob("*.json")]
    found: list[tuple[str, float, float]] = []
    print("\n| data set | similarity | probe, test | best trained | gain, points |\n| --- | --- | --- | --- | --- |")
    for (name, of), row in rows.items():
        here = {
            cell.strategy: cell.accuracy
            for cell in cells
            if (cell.images, cell.backbone, cell.seed) == (name, of, 0) and cell.accuracy is not None
        }
        probe = here.pop("linear_probe", None)
        if of != backbone or probe is None or not here:
            continue
        best = max(here, key=lambda strategy: here[strategy])
        gain = 100 * (here[best] - probe)
        found.append((name, row["similarity"], gain / max(1 - probe, 1e-9)))
        trained = f"{best} {100 * here[best]:.1f}%"
        print(f"| {name} | {row['similarity']:.2f} | {100 * probe:.1f}% | {trained} | {gain:+.1f} |")
    if len(found) > 2:
        tau = kendalltau([similarity for _, similarity, _ in found], [gain for _, _, gain in found]).statistic
        print(f"\nsimilarity against the share of the probe's errors that the best trained strategy removed: tau {tau:+.2f}")


if __name__ == "__main__":
    main()
