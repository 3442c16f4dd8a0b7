"""What every network of a zoo must keep: one network is built, cut, and put through all of it.

Weights are random but nowhere zero, so that a block left out, called twice or in the wrong place changes the logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from automl_tl.contracts import Backbone

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["check_whole_contract", "with_random_statistics"]

BATCH = 2
TOLERANCE = 1e-5  # of the largest logit, or absolute below one


def check_whole_contract(backbone: Backbone, side_px: int, folder: Path) -> None:
    """Fail with words unless the blocks, the head and the card of ``backbone`` are what the contract promises.

    Args:
        backbone: what is checked; its network is initialized at random.
        side_px: side of the images, as small as the network allows.
        folder: an empty folder for a file.
    """
    import torch

    torch.manual_seed(0)
    network = with_random_statistics(backbone.build(pretrained=False))
    blocks = list(backbone.cut(network))
    head = backbone.classifier(network)
    images = torch.randn(BATCH, 3, side_px, side_px)

    features = _check_boundaries(blocks, images)
    assert features.shape == (BATCH, backbone.card.feature_dim), f"features are {tuple(features.shape)}"
    _check_same_logits(network, head, images, features)
    _check_each_parameter_once(backbone, network, blocks, head)
    _check_facts(backbone, network, blocks)
    _check_only_the_last_block_learns(blocks, images)
    _check_file(blocks, folder / "encoder.safetensors", images, features)


def with_random_statistics(network: nn.Module) -> nn.Module:
    """``network`` with noise on whatever is initialized to a constant: biases, norms, scales, tokens, running means."""
    import torch

    with torch.no_grad():
        for name, value in [*network.named_parameters(), *network.named_buffers()]:
            is_constant = value.is_floating_point() and value.numel() > 1 and bool((value == value.flatten()[0]).all())
            if is_constant and "running_var" not in name:
                value.add_(torch.randn_like(value), alpha=0.1)
    return network


def _check_boundaries(blocks: Sequence[nn.Module], images: Tensor) -> Tensor:
    """One tensor per boundary, its first dimension B; and a block leaves its input as it is, which may be cached."""
    import torch

    x = images
    with torch.no_grad():
        for index, block in enumerate(blocks):
            before = x.clone()
            output = block(x)
            assert isinstance(output, torch.Tensor), f"block {index} gives a {type(output).__name__}"
            assert output.shape[0] == BATCH, f"block {index} gives {tuple(output.shape)}"
            assert torch.equal(before, x), f"block {index} changes its input in place"
            x = output
    return x


def _check_same_logits(network: nn.Module, head: nn.Module | None, images: Tensor, features: Tensor) -> None:
    import torch

    if head is None:
        return
    with torch.no_grad():
        expected, found = network(images), head(features)
    scale = max(1.0, float(expected.abs().max()))
    assert float(expected.std()) > 0, "the network gives constant logits: the check would say nothing"
    torch.testing.assert_close(found, expected, atol=TOLERANCE * scale, rtol=0)


def _check_each_parameter_once(
    backbone: Backbone, network: nn.Module, blocks: Sequence[nn.Module], head: nn.Module | None
) -> None:
    in_blocks = [id(parameter) for block in blocks for parameter in block.parameters()]
    in_head = set() if head is None else {id(parameter) for parameter in head.parameters()}
    left = [name for name, parameter in network.named_parameters() if id(parameter) not in {*in_blocks, *in_head}]

    assert len(in_blocks) == len(set(in_blocks)), "a parameter is in two blocks"
    assert not in_head & set(in_blocks), "a parameter of the classifier is in a block"
    own = {id(parameter) for parameter in network.parameters()}
    assert own.issuperset(in_blocks), "a block has a parameter that is not the network's own"
    assert all(_is_beside_the_features(name, has_head=head is not None) for name in left), f"in no block: {left}"


def _is_beside_the_features(name: str, *, has_head: bool) -> bool:
    """Auxiliary classifiers; and the classifier itself where features alone don't give its logits (VOLO, SqueezeNet)."""
    return name.startswith(("AuxLogits.", "aux_head.")) or (not has_head and name.startswith(("head.", "classifier.")))


def _check_facts(backbone: Backbone, network: nn.Module, blocks: Sequence[nn.Module]) -> None:
    card = backbone.card

    assert card.num_blocks == len(blocks)
    assert card.num_parameters == sum(parameter.numel() for parameter in network.parameters())


def _check_only_the_last_block_learns(blocks: Sequence[nn.Module], images: Tensor) -> None:
    """With all but the last block that has parameters frozen, gradients reach that one and no other."""
    from torch import nn

    encoder = nn.Sequential(*blocks).eval().requires_grad_(False)
    *_, last = (block for block in blocks if any(True for _ in block.parameters()))
    last.requires_grad_(True)
    encoder(images).square().sum().backward()

    reached = [parameter for parameter in last.parameters() if parameter.grad is not None and bool(parameter.grad.any())]
    outside = [parameter for block in blocks if block is not last for parameter in block.parameters()]
    assert reached, "no gradient reaches the last block"
    assert all(parameter.grad is None for parameter in outside), "a gradient reaches a frozen block"
    encoder.zero_grad(set_to_none=True)


def _check_file(blocks: Sequence[nn.Module], path: Path, images: Tensor, features: Tensor) -> None:
    """Saved with safetensors, zeroed and loaded again, the blocks give the same features; nothing is stored twice."""
    import torch
    from safetensors.torch import load_file, save_file
    from torch import nn

    encoder = nn.Sequential(*blocks)
    save_file(encoder.state_dict(), path)
    with torch.no_grad():
        for value in encoder.state_dict().values():
            value.zero_()
        encoder.load_state_dict(load_file(path), strict=True)
        torch.testing.assert_close(encoder(images), features, atol=1e-5 * max(1.0, float(features.abs().max())), rtol=0)
