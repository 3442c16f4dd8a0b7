"""A toy task for checks and tests: three classes of small noisy images, and a backbone that trains on them in seconds.

Nothing is downloaded: images and "pretrained" weights follow from fixed seeds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from io import BytesIO
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple

from automl_tl.contracts import Backbone, BackboneCard, Preprocessing, Recipe, Situation
from automl_tl.values import DatasetProfile, ImageRecord, Plan, SplitName

if TYPE_CHECKING:
    from torch import nn

    from automl_tl.training import LabeledImages

COLORS: Final = {"amber": (210, 140, 60), "jade": (70, 180, 120), "slate": (90, 110, 170)}
CLASSES: Final = tuple(COLORS)
IMAGES_PER_CLASS: Final[dict[SplitName, int]] = {"train": 32, "validation": 20, "test": 0}
NOISE: Final = 35.0
SIDE_PX, IMAGE_PX = 32, 36
WIDTHS: Final = (3, 8, 16, 32)
TIME_LIMIT_S: Final = 30.0


class ToyBackbone(Backbone):
    """Three blocks of convolution, batch norm and ReLU; the pretrained weights are those of seed 0."""

    provider: ClassVar[str] = "toy"

    @property
    def card(self) -> BackboneCard:
        """Metadata."""
        return BackboneCard(
            name=f"{self.provider}/three_blocks",
            family="toy",
            preprocessing=Preprocessing(side_px=SIDE_PX, crop_fraction=0.8),
            feature_dim=WIDTHS[-1],
            num_blocks=len(WIDTHS) - 1,
            num_parameters=6_144,
            num_macs=202_752,
            pretrained_on="nothing",
            imagenet_top1=0.1,
            license="Apache-2.0",
            weights="package",
            weights_mib=0.024,
        )

    def build(self, *, pretrained: bool) -> nn.Module:
        """Build the network; ``pretrained`` means the weights of seed 0."""
        import torch
        from torch import nn

        with torch.random.fork_rng(devices=[], enabled=pretrained):
            if pretrained:
                torch.manual_seed(0)
            blocks = [
                nn.Sequential(
                    nn.Conv2d(width_in, width, 3, stride=2, padding=1), nn.BatchNorm2d(width, momentum=0.3), nn.ReLU()
                )
                for width_in, width in pairwise(WIDTHS)
            ]
            blocks[-1].append(nn.AdaptiveAvgPool2d(1)).append(nn.Flatten())
            network = nn.Sequential(*blocks)
            if pretrained:
                _estimate_batch_statistics(network)
        return network.eval()

    def cut(self, network: nn.Module) -> Sequence[nn.Module]:
        """Return the three children."""
        return list(network.children())


def _estimate_batch_statistics(network: nn.Module) -> None:
    """Pass noise around random colors through the network, so that features have a sensible scale."""
    import torch

    with torch.no_grad():
        for _ in range(12):
            network(torch.randn(16, 3, 1, 1) + torch.randn(16, 3, SIDE_PX, SIDE_PX) * 0.7)


def toy_situation(*, num_blocks: int = len(WIDTHS) - 1) -> Situation:
    """Return what a strategy knows about the toy task."""
    return Situation(
        num_images=IMAGES_PER_CLASS["train"] * len(CLASSES),
        num_classes=len(CLASSES),
        min_images_per_class=IMAGES_PER_CLASS["train"],
        num_blocks=num_blocks,
        feature_dim=WIDTHS[-1],
        image_side_px=SIDE_PX,
        similarity=0.5,
        probe_accuracy=0.8,
    )


class ToyResult(NamedTuple):
    """Accuracy on images that the model did not learn from, and the indices of the blocks whose tensors changed."""

    accuracy: float
    changed_blocks: frozenset[int]


def train_on_toy_task(strategy: str, recipe: Recipe) -> ToyResult:
    """Carry out ``recipe`` with the real trainer on the CPU, within ``TIME_LIMIT_S``.

    Args:
        strategy: its name, for the plan.
        recipe: for ``toy_situation()``.
    """
    import torch

    from automl_tl.plugin_host import LoadedBackbone, PluginEntry
    from automl_tl.runtime.budget import Deadline
    from automl_tl.runtime.paths import scratch_folder
    from automl_tl.runtime.progress import QUIET
    from automl_tl.training import TrainingTask, Workspace, fit
    from automl_tl.training.loop import train
    from automl_tl.training.run import start_run

    entry = PluginEntry(kind="backbones", name="toy", distribution="automl-tl", version="0", entry_point="automl_tl.testing")
    backbone, images = LoadedBackbone(entry, ToyBackbone()), _toy_images()
    with scratch_folder("tl-check-") as folder:
        workspace = Workspace(folder, folder / "cache", Deadline(), QUIET, device=torch.device("cpu"))
        task = TrainingTask(_plan(backbone.card, strategy, recipe), backbone, CLASSES, images, workspace)
        if not recipe.phases:
            labels, probabilities = fit(task).held_out
            return ToyResult(float((probabilities.argmax(axis=1) == labels).mean()), frozenset())
        run, _, _ = start_run(task, images["train"], None, recipe)  # without validation the last epoch is kept
        before = {name: tensor.clone() for name, tensor in run.blocks.state_dict().items()}
        train(replace(run, workspace=replace(workspace, deadline=Deadline(TIME_LIMIT_S))))
        after = run.blocks.eval().state_dict()
        changed = frozenset(int(name.partition(".")[0]) for name in before if not torch.allclose(before[name], after[name]))
        features = torch.from_numpy(task.prefix(run.blocks, pretrained=False).plain(images["validation"]).all())
        with torch.inference_mode():
            predicted = run.head.eval()(features).argmax(dim=1).numpy()
        return ToyResult(float((predicted == images["validation"].labels).mean()), changed)


def _plan(card: BackboneCard, strategy: str, recipe: Recipe) -> Plan:
    num_images = sum(IMAGES_PER_CLASS.values())
    profile = DatasetProfile(
        num_images=num_images * len(CLASSES),
        num_test_images=0,
        num_classes=len(CLASSES),
        images_per_class=dict.fromkeys(CLASSES, num_images),
        min_images_per_class=num_images,
        imbalance=1.0,
        median_side_px=IMAGE_PX,
        max_side_px=IMAGE_PX,
        gray_fraction=0.0,
        num_groups=num_images * len(CLASSES),
        num_duplicates=0,
        fingerprint="toy",
    )
    return Plan(
        backbone=card.name,
        strategy=strategy,
        recipe=recipe,
        preprocessing=card.preprocessing,
        profile=profile,
        reasons=("contract check",),
    )


@cache
def _toy_images() -> dict[SplitName, LabeledImages]:
    """Return the images of each split, encoded in memory; there are no test images."""
    import numpy as np
    from PIL import Image

    from automl_tl.training import LabeledImages

    rng, encoded, splits = np.random.default_rng(7), {}, {}
    for split, per_class in IMAGES_PER_CLASS.items():
        labels = np.arange(per_class * len(CLASSES), dtype=np.int64) % len(CLASSES)
        records = []
        for number, label in enumerate(labels):
            color = np.array(COLORS[CLASSES[label]]) * rng.uniform(0.7, 1.2)
            pixels = color + rng.normal(0, NOISE, size=(IMAGE_PX, IMAGE_PX, 3))
            file = BytesIO()
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file, format="PNG")
            path, content = f"{split}/{number}.png", file.getvalue()
            encoded[path] = content
            records.append(
                ImageRecord(
                    path=path,
                    label=CLASSES[label],
                    digest=hashlib.sha256(content).hexdigest(),
                    num_bytes=len(content),
                    width_px=IMAGE_PX,
                    height_px=IMAGE_PX,
                    format="PNG",
                    mode="RGB",
                )
            )
        splits[split] = LabeledImages(tuple(records), labels, np.arange(len(labels), dtype=np.int64), encoded.__getitem__)
    return splits
