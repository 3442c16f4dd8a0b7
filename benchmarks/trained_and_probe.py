"""A trained model, the best candidate without training, and their average, on validation images that none of them learned from.

    python -m benchmarks.trained_and_probe FOLDER... --seeds 2 --train tail@lite/efficientnet_lite0 --out FILE

For each folder and seed: the probe on multi-level features predicts the validation images out of fold, as in planning; each
STRATEGY@BACKBONE of ``--train`` is trained on the training split. Prints calibrated log loss and accuracy, and the log loss of
the average of their probabilities less that of the better one, paired by image. No test image is read. Results are kept in
``--out``, one line of JSON for each training, and the same command resumes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from automl_tl.evaluation import log_losses
from automl_tl.planning.decide import draft_plan
from automl_tl.plugin_host import discover
from automl_tl.runtime.budget import Deadline
from automl_tl.runtime.progress import QUIET
from automl_tl.values import Constraints
from automl_tl.workflows.dataset import load_dataset
from automl_tl.workflows.plan import evidence_collector, open_workspace

PROBE = "lite/efficientnet_lite0:levels"


def measure(folder: Path, seed: int, training: str) -> dict[str, Any]:
    """Return labels of the validation images, and the log-probabilities of the probe and the trained model."""
    strategy_name, _, backbone_name = training.partition("@")
    catalog, constraints = discover(), Constraints(seed=seed)
    dataset = load_dataset(folder, seed=seed)
    with open_workspace(Deadline(None), QUIET) as workspace:
        evidence = evidence_collector(dataset, constraints, workspace)
        # 1) The probe, out of fold.
        probe = evidence.probe(catalog.backbone(PROBE))
        _, rows = evidence.images["validation"].positions_in(evidence.sample())
        # 2) The trained model.
        backbone, strategy = catalog.backbone(backbone_name), catalog.strategy(strategy_name, {})
        recipe = strategy.recipe(evidence.situation(evidence.probe(backbone)))
        plan = draft_plan(evidence, backbone.card, strategy, recipe, processes=1)
        trial = evidence.trial(plan, backbone, sum(phase.epochs for phase in recipe.phases))
    assert trial is not None
    return {
        "images": folder.name,
        "seed": seed,
        "training": training,
        "labels": trial.labels.tolist(),
        "probe": np.round(probe.log_probabilities[rows], 4).tolist(),
        "trained": np.round(np.log(np.maximum(trial.trained, 1e-12)), 4).tolist(),
    }


def summary(measured: list[dict[str, Any]]) -> None:
    """Print one row for each training, and the mean over all images of each kind of training."""
    print("training, set, seed, images | log loss: probe trained average | accuracy: the same | average against the better")
    for training in dict.fromkeys(str(one["training"]) for one in measured):
        losses, hits = [], []
        for one in (one for one in measured if one["training"] == training):
            labels = np.array(one["labels"])
            members = [np.exp(np.array(one[name])) for name in ("probe", "trained")]
            members.append(np.mean(members, axis=0))
            losses.append(np.stack([log_losses(np.log(member), labels) for member in members]))
            hits.append(np.stack([member.argmax(axis=1) == labels for member in members]))
            print_row(training, f"{one['images']:14s} {one['seed']:4}", losses[-1], hits[-1])
        print_row(training, "all images         ", np.concatenate(losses, axis=1), np.concatenate(hits, axis=1))


def print_row(training: str, place: str, losses: NDArray[np.float64], hits: NDArray[np.bool_]) -> None:
    """Print means over images of ``losses`` and ``hits`` ``(3, M)``: of the probe, the trained model and their average."""
    probe, trained, _ = losses.mean(axis=1)
    gains = losses[2] - losses[0 if probe < trained else 1]
    loss_text = " ".join(f"{loss:.3f}" for loss in losses.mean(axis=1))
    hit_text = " ".join(f"{100 * share:5.1f}" for share in hits.mean(axis=1))
    error = gains.std() / np.sqrt(len(gains))
    print(f"{training:42s} {place} {len(gains):3d} | {loss_text} | {hit_text} | {gains.mean():+.3f} ± {error:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--train", action="append", required=True, metavar="STRATEGY@BACKBONE")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    lines = arguments.out.read_text().splitlines() if arguments.out.exists() else []
    measured = [json.loads(line) for line in lines]
    known = {(one["images"], one["seed"], one["training"]) for one in measured}
    for seed in range(arguments.seeds):
        for folder in arguments.folders:
            for training in arguments.train:
                if (folder.name, seed, training) not in known:
                    measured.append(measure(folder, seed, training))
                    with arguments.out.open("a") as file:
                        file.write(json.dumps(measured[-1]) + "\n")
    summary(measured)


if __name__ == "__main__":
    main()
