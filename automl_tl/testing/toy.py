"""The toy task: three kinds of small pictures that any working strategy tells apart, and a network small enough to wait for.

Nothing is downloaded and nothing is written: pictures are made from a seed, the network's "pretrained" weights too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from io import BytesIO
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from automl_tl.contracts import Backbone, BackboneCard, Preprocessing, Situation
from automl_tl.values import DatasetProfile, ImageRecord, SplitName

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from automl_tl.training.images import LabeledImages

__all__ = ["CLASSES", "NUM_IMAGES", "ToyBackbone", "toy_images", "toy_profile", "toy_situation"]

CLASSES: Final = ("amber", "jade", "slate")
COLORS: Final = {"amber": (210, 140, 60), "jade": (70, 180, 120), "slate": (90, 110, 170)}
NOISE: Final = 35.0
SIDE_PX, PICTURE_PX = 32, 36
NUM_IMAGES: Final[Mapping[SplitName, int]] = {"train": 32, "validation": 6, "test": 20}  # per class
WIDTHS: Final = (3, 8, 16, 24, 32)


class ToyBackbone(Backbone):
    """Four blocks of convolution, batch norm and ReLU; its weights are those of a fixed seed."""

    def __init__(self, provider: str = "toy") -> None:
        self._provider = provider

    @property
    def card(self) -> BackboneCard:
        """Facts."""
        return BackboneCard(
            name=f"{self._provider}/four_blocks",
            family="toy",
            preprocessing=Preprocessing(side_px=SIDE_PX, crop_fraction=0.9, mean=(0.5,) * 3, std=(0.25,) * 3),
            feature_dim=WIDTHS[-1],
            num_blocks=len(WIDTHS) - 1,
            num_parameters=11_896,
            num_macs=211_968,
            pretrained_on="a seed",
            imagenet_top1=0.001,
            license="Apache-2.0",
            weights="package",
            weights_mib=0.046,
        )

    def build(self, *, pretrained: bool) -> nn.Module:
        """The network; ``pretrained`` means the weights of seed 0."""
        import torch
        from torch import nn

        def block(width_in: int, width: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(width_in, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())

        with torch.random.fork_rng(devices=[], enabled=pretrained):
            if pretrained:
                torch.manual_seed(0)
            blocks = [block(*widths) for widths in pairwise(WIDTHS)]
            blocks[-1].append(nn.AdaptiveAvgPool2d(1)).append(nn.Flatten())
            network = nn.Sequential(*blocks)
            if pretrained:
                _settle(network)
        return network.eval()

    def cut(self, network: nn.Module) -> Sequence[nn.Module]:
        """Its four children."""
        return list(network.children())


def _settle(network: nn.Module) -> None:
    """Let batch norm see noise around every color, as pretraining would: features then have a sensible scale."""
    import torch
    from torch import nn

    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.3
    with torch.no_grad():
        for _ in range(12):
            network(torch.randn(16, 3, 1, 1) + torch.randn(16, 3, SIDE_PX, SIDE_PX) * 0.7)


@lru_cache(maxsize=1)
def toy_images() -> dict[SplitName, LabeledImages]:
    """Train, validation and test images of the toy task, encoded in memory; always the same."""
    import numpy as np

    from automl_tl.training.images import LabeledImages

    rng, encoded, parts = np.random.default_rng(7), {}, {}
    for part, per_class in NUM_IMAGES.items():
        records = []
        for number in range(per_class * len(CLASSES)):
            label, path = CLASSES[number % len(CLASSES)], f"{part}/{number}.png"
            encoded[path] = _picture(label, rng)
            records.append(_record(path, label, part, encoded[path]))
        labels = np.arange(len(records), dtype=np.int64) % len(CLASSES)
        groups = np.arange(len(records), dtype=np.int64)
        parts[part] = LabeledImages(tuple(records), labels, groups, encoded.__getitem__)
    return parts


def _picture(label: str, rng: np.random.Generator) -> bytes:
    import numpy as np
    from PIL import Image

    light = rng.uniform(0.7, 1.2)
    pixels: NDArray[np.float64] = np.array(COLORS[label]) * light + rng.normal(0, NOISE, size=(PICTURE_PX, PICTURE_PX, 3))
    file = BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file, format="PNG")
    return file.getvalue()


def _record(path: str, label: str, part: SplitName, encoded: bytes) -> ImageRecord:
    return ImageRecord(
        path=path,
        label=label,
        split=part,
        digest=hashlib.sha256(encoded).hexdigest(),
        num_bytes=len(encoded),
        width_px=PICTURE_PX,
        height_px=PICTURE_PX,
        format="PNG",
        mode="RGB",
    )


def toy_situation(*, num_blocks: int = len(WIDTHS) - 1) -> Situation:
    """What a strategy may know about the toy task."""
    return Situation(
        num_images=NUM_IMAGES["train"] * len(CLASSES),
        num_classes=len(CLASSES),
        min_images_per_class=NUM_IMAGES["train"],
        num_blocks=num_blocks,
        feature_dim=WIDTHS[-1],
        image_side_px=SIDE_PX,
        similarity=0.5,
        probe_accuracy=0.8,
    )


def toy_profile() -> DatasetProfile:
    """The profile of the toy task."""
    per_class = NUM_IMAGES["train"] + NUM_IMAGES["validation"]
    return DatasetProfile(
        num_images=per_class * len(CLASSES),
        num_test_images=NUM_IMAGES["test"] * len(CLASSES),
        num_classes=len(CLASSES),
        images_per_class=dict.fromkeys(CLASSES, per_class),
        min_images_per_class=per_class,
        imbalance=1.0,
        median_side_px=PICTURE_PX,
        max_side_px=PICTURE_PX,
        gray_fraction=0.0,
        num_groups=per_class * len(CLASSES),
        num_duplicates=0,
        fingerprint="toy",
    )
