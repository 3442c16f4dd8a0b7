"""Checks for backbones: the card is accurate, and the blocks compose to the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from unittest import SkipTest
from unittest.mock import patch

from automl_tl.plugin_host.catalog import load
from automl_tl.plugin_host.composition import TOLERANCE, largest_difference, random_images
from automl_tl.testing.plugin_under_test import BackboneUnderTest

if TYPE_CHECKING:
    from torch import Tensor, nn

GPU_TOLERANCE: Final = 5e-3


def check_cards(plugin: BackboneUnderTest) -> None:
    """The provider lists the same cards each time, and the card states what the planner needs."""
    plugin.require_loaded()
    cards = [backbone.card for backbone in plugin.loaded.backbones.values()]
    again = [backbone.card for backbone in load(plugin.entry).backbones.values()]
    assert again == cards, "a second call returns different cards"
    wanted = f" called {plugin.model}" if plugin.model else ""
    assert any(plugin.model in (None, card.name) for card in cards), f"the provider offers no backbone{wanted}"
    card = plugin.backbone.card
    needed = ["family", "num_blocks", "num_parameters", "num_macs"]
    needed += [] if card.weights == "none" else ["pretrained_on", "weights_mib"]
    missing = [name for name in needed if not getattr(card, name)]
    assert not missing, f"the card of {card.name} lacks {', '.join(missing)}"


def check_builds_offline(plugin: BackboneUnderTest) -> None:
    """Without a network connection, ``build`` returns a float32 network in eval mode on the CPU, and ``cut`` its blocks."""
    refused = OSError("the contract checks refuse every connection")
    with patch("socket.socket.connect", side_effect=refused), patch("socket.getaddrinfo", side_effect=refused):
        network = plugin.build(pretrained=plugin.backbone.card.is_local).network
    assert not any(module.training for module in network.modules()), "some modules are in training mode; call .eval()"
    tensors = [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]
    kinds = {f"{tensor.dtype} on {tensor.device.type}" for tensor in tensors}
    assert kinds <= {"torch.float32 on cpu"}, f"tensors are {', '.join(sorted(kinds))}, expected torch.float32 on cpu"


def check_card_matches_network(plugin: BackboneUnderTest) -> None:
    """Numbers of parameters and blocks and the size of the weights are those on the card."""
    card, num_blocks = plugin.backbone.card, len(plugin.built.blocks)
    num_parameters = sum(parameter.numel() for parameter in plugin.built.network.parameters())
    assert card.num_parameters == num_parameters, f"{num_parameters} parameters, the card says {card.num_parameters}"
    assert card.num_blocks == num_blocks, f"{num_blocks} blocks, the card says {card.num_blocks}"
    if card.weights_mib is not None:
        size_mib = 4 * num_parameters / 2**20
        fits = 0.2 * size_mib <= card.weights_mib <= 1.5 * size_mib + 0.1
        assert fits, f"{num_parameters} float32 parameters are {size_mib:.2f} MiB, the card says {card.weights_mib}"


def check_blocks_are_separate_modules(plugin: BackboneUnderTest) -> None:
    """The blocks hold the network's own parameters, no copies, and no two blocks share a tensor."""
    network, blocks = plugin.built
    own = {id(parameter) for parameter in network.parameters()}
    copies = [index for index, block in enumerate(blocks) if any(id(each) not in own for each in block.parameters())]
    assert not copies, f"blocks {copies} hold parameters that are not the network's: cut must not copy"
    owner: dict[int, int] = {}
    for index, block in enumerate(blocks):
        for tensor in (*block.parameters(), *block.buffers()):
            first = owner.setdefault(tensor.untyped_storage().data_ptr(), index) if tensor.numel() else index
            assert first == index, f"blocks {first} and {index} share tensors; parts that cannot be separated are one block"


def check_features(plugin: BackboneUnderTest) -> None:
    """One tensor of B rows passes between blocks; the features are finite float32 of the width on the card."""
    import torch

    card, output = plugin.backbone.card, random_images(plugin.backbone.card, 2)
    with torch.inference_mode():
        for index, block in enumerate(plugin.built.blocks):
            output = block(output)
            assert isinstance(output, torch.Tensor), f"block {index} returns {type(output).__name__}, expected one tensor"
            assert output.shape[:1] == (2,), f"block {index} maps 2 images to shape {tuple(output.shape)}"
    description = f"{output.dtype} {tuple(output.shape)}"
    expected = f"torch.float32 {(2, card.feature_dim)}"
    assert description == expected, f"features are {description}, expected {expected}"
    assert torch.isfinite(output).all(), "some features are NaN or infinite"


def check_classifier(plugin: BackboneUnderTest) -> None:
    """The blocks followed by ``classifier`` compute what the network computes; without a classifier, if its shape is theirs."""
    network, blocks = plugin.built
    classifier, images = plugin.backbone.classifier(network), random_images(plugin.backbone.card, 2)
    parts = blocks if classifier is None else [*blocks, classifier]
    if classifier is None and _features([network], images).shape != (2, plugin.backbone.card.feature_dim):
        raise SkipTest("the backbone has no classifier")
    difference = largest_difference(network, parts, images)
    if difference is None:
        raise SkipTest("the logits are constant or not finite")
    assert difference <= TOLERANCE, f"logits differ by {difference:.1e} of the largest"


def check_features_are_independent(plugin: BackboneUnderTest) -> None:
    """An image has the same features alone, in a batch and in channels-last memory format."""
    import torch

    images, blocks = random_images(plugin.backbone.card, 3), plugin.built.blocks
    features = _features(blocks, images)
    alone = _difference(_features(blocks, images[:1]), features[:1])
    assert alone <= TOLERANCE, f"in a batch, features change by {alone:.1e} of the largest: is a norm layer in training mode?"
    channels_last = _difference(_features(blocks, images.contiguous(memory_format=torch.channels_last)), features)
    assert channels_last <= TOLERANCE, f"channels-last images change features by {channels_last:.1e} of the largest"


def check_inference_changes_nothing(plugin: BackboneUnderTest) -> None:
    """Computing features changes no tensor of the network, and gives the same features again."""
    built, images = plugin.build(pretrained=plugin.backbone.card.is_local), random_images(plugin.backbone.card, 2)
    before = {name: tensor.clone() for name, tensor in built.tensors.items()}
    features = _features(built.blocks, images)
    changed = _different(before, built.tensors)
    assert not changed, f"computing features changes {changed}"
    assert _features(built.blocks, images).equal(features), "the same images give other features the second time"


def check_other_image_sizes(plugin: BackboneUnderTest) -> None:
    """Larger images give features, too, unless the card says ``fixed_side``."""
    card = plugin.backbone.card
    if card.fixed_side:
        raise SkipTest("the card says fixed_side")
    side_px = card.preprocessing.side_px + 32
    try:
        shape = tuple(_features(plugin.built.blocks, random_images(card, 1, side_px)).shape)
    except Exception as error:
        raise AssertionError(
            f"fails at {side_px} px: {error}. If only one size works, the card says fixed_side=True"
        ) from error
    assert shape == (1, card.feature_dim), f"at {side_px} px the features have shape {shape}"


def check_random_weights_follow_seed(plugin: BackboneUnderTest) -> None:
    """Without pretraining, torch's global seed determines the weights."""
    import torch

    def build(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(seed)
        return plugin.build(pretrained=False).tensors

    first, same, other = build(5), build(5), build(6)
    different = _different(first, same)
    assert not different, f"two networks built with one seed differ in {different}: what ignores the seed?"
    assert _different(first, other), "two networks built with different seeds have the same weights"


def check_pretrained_weights_are_stable(plugin: BackboneUnderTest) -> None:
    """Two pretrained networks have the same weights, and those differ from random ones."""
    if not plugin.backbone.card.is_local:
        raise SkipTest(f"the weights are not on this machine (weights={plugin.backbone.card.weights!r})")
    first, second, random = (plugin.build(pretrained=pretrained).tensors for pretrained in (True, True, False))
    different = _different(first, second)
    assert not different, f"two pretrained networks differ in {different}"
    assert _different(first, random), "the pretrained weights are those of a random network"


def check_weights_survive_safetensors(plugin: BackboneUnderTest) -> None:
    """Weights saved as safetensors and loaded into a new network give the same features."""
    from safetensors.torch import load as load_tensors
    from safetensors.torch import save
    from torch import nn

    content = save({name: tensor.detach().clone().contiguous() for name, tensor in plugin.built.tensors.items()})
    fresh, images = plugin.build(pretrained=False), random_images(plugin.backbone.card, 2)
    nn.Sequential(*fresh.blocks).load_state_dict(load_tensors(content))
    same = _features(fresh.blocks, images).equal(_features(plugin.built.blocks, images))
    assert same, "the loaded network gives other features: something is in neither parameters nor buffers"


def check_training_changes_trained_block_only(plugin: BackboneUnderTest) -> None:
    """Gradients reach every block, and a training step of the last one leaves the others as they are."""
    import torch

    built, images = plugin.build(pretrained=plugin.backbone.card.is_local), random_images(plugin.backbone.card, 6)
    trainable = [index for index, block in enumerate(built.blocks) if any(True for _ in block.parameters())]
    if not trainable:
        raise SkipTest("no block has parameters")
    before = {name: tensor.clone() for name, tensor in built.tensors.items()}
    last = built.blocks[trainable[-1]]
    with torch.enable_grad():
        _features(built.blocks, images, gradient=True).square().mean().backward()  # type: ignore[no-untyped-call]
        unreached = [i for i in trainable if not any(p.grad is not None and p.grad.any() for p in built.blocks[i].parameters())]
        assert not unreached, f"no gradient reaches blocks {unreached}: a detach, or an in-place operation?"
        last.train()
        _features(built.blocks, images, gradient=True)  # updates batch statistics of the last block
        torch.optim.SGD(last.parameters(), lr=1.0).step()
    changed = {int(name.partition(".")[0]) for name, tensor in built.tensors.items() if not tensor.equal(before[name])}
    assert changed == {trainable[-1]}, f"training block {trainable[-1]} changes blocks {sorted(changed)}"


def check_runs_on_gpu(plugin: BackboneUnderTest) -> None:
    """On an accelerator (CUDA, MPS, XPU ...) the features are those of the CPU, within half a percent."""
    from torch import nn

    from automl_tl.models.engines import best_device

    device = best_device()
    if device.type == "cpu":
        raise SkipTest("no accelerator")
    images = random_images(plugin.backbone.card, 2)
    network = nn.Sequential(*plugin.build(pretrained=plugin.backbone.card.is_local).blocks).to(device)
    difference = _difference(_features([network], images.to(device)).cpu(), _features(plugin.built.blocks, images))
    assert difference <= GPU_TOLERANCE, f"features differ by {difference:.1e} of the largest"


def _features(blocks: Sequence[nn.Module], images: Tensor, *, gradient: bool = False) -> Tensor:
    """Pass ``images`` through ``blocks``."""
    import torch

    with torch.set_grad_enabled(gradient):
        for block in blocks:
            images = block(images)
    return images


def _difference(features: Tensor, expected: Tensor) -> float:
    """Return the largest difference relative to the largest value; infinite for other shapes."""
    if features.shape != expected.shape:
        return float("inf")
    return float((features - expected).abs().max() / expected.abs().max().clamp(min=1e-12))


def _different(tensors: dict[str, Tensor], others: dict[str, Tensor]) -> str:
    """Return the names of the first tensors that differ, or an empty string."""
    return ", ".join([name for name, tensor in tensors.items() if not tensor.equal(others[name])][:4])


BACKBONE_CHECKS = (
    check_cards,
    check_builds_offline,
    check_card_matches_network,
    check_blocks_are_separate_modules,
    check_features,
    check_classifier,
    check_features_are_independent,
    check_inference_changes_nothing,
    check_other_image_sizes,
    check_random_weights_follow_seed,
    check_pretrained_weights_are_stable,
    check_weights_survive_safetensors,
    check_training_changes_trained_block_only,
    check_runs_on_gpu,
)
