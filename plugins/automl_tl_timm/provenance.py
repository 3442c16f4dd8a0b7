"""What timm's tags and license names mean. Used when the table is made."""

from __future__ import annotations

from typing import Final

__all__ = ["pretrained_on", "spdx"]

# Part of a tag -> data. In a tag the data stands in the order of training: augreg_in21k_ft_in1k.
DATA: Final = {
    "in1k": "imagenet-1k",
    "in12k": "imagenet-12k",
    "in21k": "imagenet-21k",
    "in22k": "imagenet-21k",  # the same data, by another group's count of its classes
    "inw21k": "imagenet-21k",
    "fcmae": "imagenet-1k",
    "mae": "imagenet-1k",
    "dino": "imagenet-1k",
    "bamboo": "bamboo",
    "cc12m": "cc-12m",
    "laion2b": "laion-2b",
    "laion400m": "laion-400m",
    "laiona": "laion-aesthetic",
    "datacompxl": "datacomp-1b",
    "datacomp1b": "datacomp-1b",
    "mclip": "datacomp-dr-1b",
    "mclip2": "datacomp-dfn-dr",
    "dfn2b": "dfn-2b",
    "dfn5b": "dfn-5b",
    "dfndr2b": "dfn-dr-2b",
    "openai": "openai-wit-400m",
    "metaclip": "metaclip",
    "metaclip2": "metaclip-2",
    "merged2b": "merged-2b",
    "m30m": "merged-30m",
    "m38m": "merged-38m",
    "lvd142m": "lvd-142m",
    "lvd1689m": "lvd-1689m",
    "sat493m": "sat-493m",
    "webli": "webli",
    "pali": "webli",
    "pali2": "webli",
    "yfcc100m": "yfcc-100m",
    "yfcc15m": "yfcc-15m",
    "ig1b": "instagram-1b",
    "swag": "instagram-3.6b",
    "seer": "instagram-1b",
    "jft": "jft-300m",
    "sa1b": "sa-1b",
    "r896": "sa-v",  # Segment Anything 2
    "r1024": "sa-v",
    "florence2": "fld-5b",
}
# Number of classes -> data, where the tag is silent.
CLASSES: Final = {
    1000: "imagenet-1k",
    11821: "imagenet-12k",
    11221: "imagenet-21k",
    19168: "imagenet-21k",
    21841: "imagenet-21k",
    21842: "imagenet-21k",
    21843: "imagenet-21k",
}
UNSTATED: Final = "unstated"

SPDX: Final = {
    "apache-2.0": "Apache-2.0",
    "mit": "MIT",
    "bsd-3-clause": "BSD-3-Clause",
    "cc-by-4.0": "CC-BY-4.0",
    "cc-by-nc-4.0": "CC-BY-NC-4.0",
    "unknown": None,
}


def pretrained_on(tag: str, num_classes: int) -> str:
    """Data that the weights with ``tag`` have seen, in the order of training, such as ``imagenet-21k+imagenet-1k``."""
    words = tag.split("_")
    seen = [DATA[word] for word in words if word in DATA]
    last = CLASSES.get(num_classes)
    if last and last not in seen:
        seen.append(last)
    return "+".join(dict.fromkeys(seen)) or UNSTATED


def spdx(license: str | None) -> str | None:
    """SPDX name of ``license`` as timm writes it; what SPDX has no name for becomes a ``LicenseRef``."""
    if not license:
        return None
    return SPDX.get(license, f"LicenseRef-{license}")
