"""Activation cache: seconds per epoch with cached views, and with the frozen blocks run on fresh views, per boundary.

    python -m benchmarks.activation_cache FOLDER [--backbone lite/efficientnet_lite0] [--images 128] [--epochs 3]

FOLDER holds one folder of images per class. Both ways train the same blocks on the same augmented views; "differs by" is the
largest difference of an activation at the boundary, cached against recomputed, as a share of the largest activation (the
cache keeps float16 in front of the last block, and another engine may fill it).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch

from automl_tl.models.bundle import build_encoder
from automl_tl.plugin_host import LoadedBackbone, discover
from automl_tl.runtime.budget import Deadline
from automl_tl.runtime.progress import QUIET
from automl_tl.training import LabeledImages, Workspace
from automl_tl.training.loop import train
from automl_tl.training.run import TrainingRun, new_head
from automl_tl.training.views import Prefix, make_inputs
from automl_tl.values import Head, Phase, Recipe
from automl_tl.workflows.dataset import load_dataset
from benchmarks.timing import machine

VIEWS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description="Epochs with and without the activation cache.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", default="lite/efficientnet_lite0")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    backbone = discover().backbone(arguments.backbone)
    dataset = load_dataset(arguments.folder, seed=0, progress=QUIET)
    images = dataset.images["train"]
    images = images.at(sorted(np.random.default_rng(0).permutation(len(images))[: arguments.images].tolist()))
    settings = f"{arguments.backbone}, {len(images)} images, {VIEWS} views, {arguments.epochs} epochs"
    print(f"{machine('torch', 'openvino')}; {settings}\n")
    print("| trained blocks | fresh, s/epoch | cached, s/epoch | speed-up | filling, s | pays from epoch | differs by |")
    print(f"|{' --- |' * 7}")
    num_blocks = backbone.card.num_blocks or 1
    for boundary in range(num_blocks, 0, -1):
        with TemporaryDirectory() as folder:
            workspace = Workspace(folder=Path(folder) / "run", cache_dir=Path(folder), deadline=Deadline(), progress=QUIET)
            run = new_run(backbone, images, boundary, len(dataset.index.classes), workspace, arguments.epochs)
            fresh_s, _ = epoch_and_rest(replace(run, recipe=with_views(run.recipe, 0)))
            cached_s, filling_s = epoch_and_rest(run)
            pays = f"{filling_s / (fresh_s - cached_s):.1f}" if fresh_s > cached_s else "never"
            print(
                f"| {num_blocks - boundary} of {num_blocks} and the head | {fresh_s:.1f} | {cached_s:.2f} "
                f"| {fresh_s / cached_s:.1f} | {filling_s:.1f} | {pays} | {difference(run, boundary):.1g} |",
                flush=True,
            )


def new_run(
    backbone: LoadedBackbone, images: LabeledImages, boundary: int, num_classes: int, workspace: Workspace, epochs: int
) -> TrainingRun:
    blocks, card = build_encoder(backbone, pretrained=True), backbone.card
    trained = tuple(range(boundary, len(blocks)))
    phase = Phase(name="measured", epochs=epochs, train_blocks=trained, head_lr=1e-3, encoder_lr=1e-4, cached_views=VIEWS)
    return TrainingRun(
        blocks=blocks,
        head=new_head(Head(start="zero"), feature_dim=card.feature_dim, num_classes=num_classes),
        recipe=Recipe(head=Head(start="zero"), phases=(phase,)),
        preprocessing=card.preprocessing,
        train=images,
        validation=None,
        num_classes=num_classes,
        flips=True,
        seed=0,
        workspace=workspace,
    )


def with_views(recipe: Recipe, views: int) -> Recipe:
    return recipe.model_copy(update={"phases": tuple(p.model_copy(update={"cached_views": views}) for p in recipe.phases)})


def epoch_and_rest(run: TrainingRun) -> tuple[float, float]:
    """Return the median seconds of an epoch, and the seconds before the first."""
    clock = Deadline()
    seconds = [float(row["seconds"]) for row in train(run).curves]
    return median(seconds), clock.spent_s - sum(seconds)


@torch.no_grad()
def difference(run: TrainingRun, boundary: int) -> float:
    fresh_blocks = run.blocks[:boundary]
    phase = run.recipe.phases[0]
    prefix = Prefix(fresh_blocks, run.preprocessing, run.workspace.cache, gives_features=boundary == len(run.blocks))
    cached = prefix.view(run.train, 1, phase=phase, flips=run.flips, seed=run.seed)
    fresh = phase.model_copy(update={"cached_views": 0})
    inputs = make_inputs(prefix, run.train, phase=fresh, flips=run.flips, seed=run.seed, device=torch.device("cpu"))
    positions = np.arange(min(32, len(run.train)))
    expected = inputs(positions, 1).numpy()
    return float(np.abs(cached.at(positions) - expected).max() / np.abs(expected).max())


if __name__ == "__main__":
    main()
