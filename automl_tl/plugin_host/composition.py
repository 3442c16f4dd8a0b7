"""Whether the blocks of a backbone compute what its network computes, checked once per model and version of its library.

``Backbone.cut`` follows the forward pass of another package. If a release of that package changes the pass, the blocks would
silently compute other features.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from automl_tl.contracts import Backbone, BackboneCard
from automl_tl.runtime.paths import cache_dir, write_whole

if TYPE_CHECKING:
    from torch import Tensor, nn

TOLERANCE: Final = 1e-3  # relative to the largest logit; the same sum in another order differs by about 1e-6


def libraries_of(network: nn.Module) -> str:
    """Return the packages that the modules of ``network`` come from, with versions, such as "timm 1.0.31, torch 2.9.1"."""
    names = sorted({type(module).__module__.partition(".")[0] for module in network.modules()} | {"torch"})
    versions = {name: getattr(sys.modules.get(name), "__version__", None) for name in names}
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version)


def check_composition(backbone: Backbone, provider: str, network: nn.Module, blocks: Sequence[nn.Module]) -> None:
    """Compare blocks followed by the classifier with the network on one image, unless these versions passed before.

    Args:
        backbone: gives the card and the classifier; without a classifier there is nothing to compare.
        provider: distribution and version of the plugin.
        network: that ``backbone`` built, pretrained or not.
        blocks: that it was cut into.

    Raises:
        ValueError: they differ.
    """
    card, libraries = backbone.card, libraries_of(network)
    key = sha256(f"{card.name} {provider} {libraries}".encode()).hexdigest()
    file = cache_dir() / "checks" / f"{key}.json"
    if file.is_file() or (classifier := backbone.classifier(network)) is None:
        return
    difference = largest_difference(network, [*blocks, classifier], random_images(card, 1))
    if difference is None:  # random weights may say nothing; pretrained ones will
        return
    if not difference <= TOLERANCE:
        raise ValueError(
            f"with {libraries} its blocks and classifier give other logits than its network, by {difference:.1%} of the "
            "largest: the library's forward pass has changed. Install another version of it, or use another backbone"
        )
    facts = {"backbone": card.name, "libraries": libraries, "difference": difference}
    with suppress(OSError):  # compared again next time
        write_whole(file, json.dumps(facts, allow_nan=False).encode())


def largest_difference(network: nn.Module, chain: Sequence[nn.Module], images: Tensor) -> float | None:
    """Return how far the modules of ``chain``, one after another, differ from ``network``, relative to its largest logit.

    Args:
        network: in eval mode, like the chain.
        chain: modules of the network.
        images: ``(B, 3, H, W)``, normalized.

    Returns:
        Infinite for another shape; ``None`` if the network's logits are constant or not finite, which proves nothing.
    """
    import torch

    with torch.no_grad():  # not inference mode: what a module keeps from this pass may be trained on later
        expected = network(images)
        if not (torch.isfinite(expected).all() and expected.std() > 0):
            return None
        output = images
        for module in chain:
            output = module(output)
    if output.shape != expected.shape:
        return float("inf")
    return float((output - expected).abs().max() / expected.abs().max())


def random_images(card: BackboneCard, num_images: int, side_px: int | None = None) -> Tensor:
    """Return random normalized images ``(B, 3, side_px, side_px)``, the same for each call; torch's generator is left alone.

    Args:
        card: gives the side.
        num_images: B.
        side_px: another side.
    """
    import torch

    side_px = side_px or card.preprocessing.side_px
    return torch.randn(num_images, 3, side_px, side_px, generator=torch.Generator().manual_seed(0))
