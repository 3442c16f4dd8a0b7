"""Checks of one network and its blocks, with random weights.

No weight is constant, so that a block that is missing, called twice or in the wrong place changes the logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from automl_tl.contracts import Backbone

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["check_backbone", "check_network"]

BATCH = 2
TOLERANCE = 1e-5  # of the largest value, or absolute below one
UNUSED_WITH_HEAD = ("AuxLogits.",)  # auxiliary classifiers
UNUSED_WITHOUT_HEAD = ("AuxLogits.", "head.", "head_dist.", "classifier.", "heads")


def check_backbone(backbone: Backbone, side_px: int, folder: Path) -> None:
    """Check the network of ``backbone`` and the numbers on its card.

    Args:
        backbone: its network is initialized at random.
        side_px: side of the images.
        folder: for a file.
    """
    import torch

    torch.manual_seed(0)
    network = backbone.build(pretrained=False)
    blocks = list(backbone.cut(network))
    features = check_network(network, blocks, backbone.classifier(network), side_px, folder)
    card = backbone.card
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    assert (card.feature_dim, card.num_blocks, card.num_parameters) == (features.shape[1], len(blocks), num_parameters)


def check_network(
    network: nn.Module, blocks: Sequence[nn.Module], head: nn.Module | None, side_px: int, folder: Path
) -> Tensor:
    """Check the blocks and the head of ``network`` against the contract.

    Args:
        network: in eval mode.
        blocks: of the network.
        head: of the network.
        side_px: side of the images.
        folder: for a file.

    Returns:
        Features of random images.
    """
    import torch

    _add_noise(network)
    images = torch.randn(BATCH, 3, side_px, side_px, generator=torch.Generator().manual_seed(0))
    features = _run_blocks(blocks, images)
    if head is not None:
        with torch.no_grad():
            _check_close(head(features), network(images))
    _check_parameters(network, blocks, head)
    _check_gradients(blocks, images)
    _check_file(blocks, folder / "encoder.safetensors", images, features)
    return features


def _add_noise(network: nn.Module) -> None:
    """Add noise to constant tensors: biases, norms, scales, tokens, running means."""
    import torch

    with torch.no_grad():
        for name, value in [*network.named_parameters(), *network.named_buffers()]:
            is_constant = value.is_floating_point() and value.numel() > 1 and bool((value == value.flatten()[0]).all())
            if is_constant and "running_var" not in name:
                value.add_(torch.randn_like(value), alpha=0.1)


def _run_blocks(blocks: Sequence[nn.Module], images: Tensor) -> Tensor:
    import torch

    x = images
    with torch.no_grad():
        for index, block in enumerate(blocks):
            before = x.clone()
            output = block(x)
            assert isinstance(output, torch.Tensor), f"block {index} returns {type(output).__name__}"
            assert output.shape[0] == BATCH, f"block {index} returns {tuple(output.shape)}"
            assert torch.equal(before, x), f"block {index} modifies its input"
            x = output
    assert x.ndim == 2
    return x


def _check_close(actual: Tensor, expected: Tensor) -> None:
    import torch

    assert float(expected.std()) > 0, "constant values cannot show a difference"
    torch.testing.assert_close(actual, expected, atol=TOLERANCE * max(1.0, float(expected.abs().max())), rtol=0)


def _check_parameters(network: nn.Module, blocks: Sequence[nn.Module], head: nn.Module | None) -> None:
    """Each parameter is in one block or in the head."""
    in_blocks = [id(parameter) for block in blocks for parameter in block.parameters()]
    in_head = set() if head is None else {id(parameter) for parameter in head.parameters()}
    unused = UNUSED_WITHOUT_HEAD if head is None else UNUSED_WITH_HEAD
    rest = [name for name, parameter in network.named_parameters() if id(parameter) not in {*in_blocks, *in_head}]

    assert len(in_blocks) == len(set(in_blocks)), "a parameter is in two blocks"
    assert not in_head & set(in_blocks), "a parameter of the classifier is in a block"
    assert {id(parameter) for parameter in network.parameters()}.issuperset(in_blocks), "a block has parameters of its own"
    assert all(name.startswith(unused) for name in rest), f"in no block: {rest}"


def _check_gradients(blocks: Sequence[nn.Module], images: Tensor) -> None:
    """If only the last block with parameters is trainable, it alone has gradients."""
    from torch import nn

    encoder = nn.Sequential(*blocks).eval().requires_grad_(False)
    *_, last = (block for block in blocks if any(True for _ in block.parameters()))
    last.requires_grad_(True)
    encoder(images).square().sum().backward()

    others = [parameter for block in blocks if block is not last for parameter in block.parameters()]
    assert any(parameter.grad is not None and bool(parameter.grad.any()) for parameter in last.parameters())
    assert all(parameter.grad is None for parameter in others), "a gradient reaches a frozen block"
    encoder.zero_grad(set_to_none=True)


def _check_file(blocks: Sequence[nn.Module], path: Path, images: Tensor, features: Tensor) -> None:
    """Saved, zeroed and loaded again, the blocks compute the same features."""
    import torch
    from safetensors.torch import load_file, save_file
    from torch import nn

    encoder = nn.Sequential(*blocks)
    save_file(encoder.state_dict(), path)
    with torch.no_grad():
        for value in encoder.state_dict().values():
            value.zero_()
        encoder.load_state_dict(load_file(path), strict=True)
        _check_close(encoder(images), features)
