"""Checks on a backbone's network: its blocks are the network, nothing moves that should not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from automl_tl.contracts import Head, Phase, Recipe
from automl_tl.plugin_host.entries import cause
from automl_tl.testing.forward import fed_images, forward, largest_difference
from automl_tl.testing.subjects import BackboneSubject, Built
from automl_tl.testing.verdicts import CheckFailed, NotApplicable, Unreachable, require

if TYPE_CHECKING:
    from automl_tl.testing.trials import Trained

__all__ = ["NETWORK_CHECKS"]

SAME: Final = 1e-3  # relative to the largest feature: the same sum in another order differs by about 1e-6
NUM_LEARNING_IMAGES: Final = 12


def blocks_are_its_own_modules(subject: BackboneSubject) -> None:
    """The blocks hold the network's own parameters, no copies of them."""
    built = subject.built
    own = {id(parameter) for parameter in built.network.parameters()}
    copies = [i for i, block in enumerate(built.blocks) if any(id(each) not in own for each in block.parameters())]
    require(not copies, f"blocks {copies} hold parameters that are not the network's: cut must not copy")


def blocks_share_nothing(subject: BackboneSubject) -> None:
    """No two blocks hold the same parameter or buffer: else training one changes the other, which may be frozen."""
    owner: dict[int, int] = {}
    shared = set()
    for index, block in enumerate(subject.built.blocks):
        for tensor in (*block.parameters(), *block.buffers()):
            first = owner.setdefault(tensor.untyped_storage().data_ptr(), index)
            if first != index and tensor.numel():
                shared.add((first, index))
    require(not shared, f"blocks {sorted(shared)} share tensors; what can't be parted is one block")


def every_boundary_is_one_tensor(subject: BackboneSubject) -> None:
    """Each block maps one tensor to one tensor whose first dimension is the number of images."""
    import torch

    passed: object = fed_images(subject.offered.card, 2)
    for index, block in enumerate(subject.built.blocks):
        try:
            with torch.inference_mode():
                passed = block(passed)
        except Exception as error:
            raise CheckFailed(f"block {index} does not take what the block before gives: {cause(error)}") from error
        if not isinstance(passed, torch.Tensor):
            raise CheckFailed(f"block {index} gives {type(passed).__name__}, expected one tensor")
        require(passed.ndim > 0 and len(passed) == 2, f"for 2 images block {index} gives shape {tuple(passed.shape)}")


def features_have_the_promised_width(subject: BackboneSubject) -> None:
    """Two images give float32 features of the card's width, all of them numbers."""
    import torch

    features, width = forward(subject, subject.built, 2), subject.offered.card.feature_dim
    found = f"{features.dtype} {tuple(features.shape)}"
    require(found == f"{torch.float32} {(2, width)}", f"features are {found}, expected torch.float32 (2, {width})")
    require(bool(torch.isfinite(features).all()), "some features are no numbers")


def blocks_and_classifier_are_the_network(subject: BackboneSubject) -> None:
    """Blocks, then ``classifier``, give what the network itself gives."""
    import torch

    classifier = subject.offered.classifier(subject.built.network)
    if classifier is None:
        raise NotApplicable("it has no classifier to compare with")
    with torch.inference_mode():
        logits = subject.built.network(fed_images(subject.offered.card, 2))
        composed = classifier(forward(subject, subject.built, 2))
    difference = largest_difference(composed, logits)
    require(difference <= SAME, f"composed logits differ from the network's by {difference:.1e} of the largest")


def images_do_not_see_each_other(subject: BackboneSubject) -> None:
    """An image has the same features alone and beside others."""
    difference = largest_difference(forward(subject, subject.built, 1), forward(subject, subject.built, 3)[:1])
    require(difference <= SAME, f"features change by {difference:.1e} of the largest: is a norm layer in training mode?")


def looking_changes_nothing(subject: BackboneSubject) -> None:
    """Computing features changes no tensor of the network, and gives the same features again."""
    built = subject.build(pretrained=subject.has_weights)
    before = {name: tensor.clone() for name, tensor in built.state.items()}
    first = forward(subject, built, 2)
    moved = [name for name, tensor in built.state.items() if not tensor.equal(before[name])]
    require(not moved, f"looking at two images changed {', '.join(moved[:4])}")
    require(forward(subject, built, 2).equal(first), "the same images gave other features the second time: what is random?")


def takes_channels_last(subject: BackboneSubject) -> None:
    """Images that lie channels-last in memory, as the trainer has them, give the same features."""
    import torch

    images = fed_images(subject.offered.card, 2).contiguous(memory_format=torch.channels_last)
    difference = largest_difference(forward(subject, subject.built, images), forward(subject, subject.built, 2))
    require(difference <= SAME, f"features change by {difference:.1e} of the largest")


def takes_other_sides(subject: BackboneSubject) -> None:
    """Images of another side give features too, unless the card says that the side is fixed."""
    card = subject.offered.card
    if card.fixed_side:
        raise NotApplicable("its card says that the side is fixed")
    built, side_px = subject.built, card.preprocessing.side_px + 32
    try:
        features = forward(subject, built, fed_images(card, 1, side_px=side_px))
    except Unreachable as error:
        raise CheckFailed(f"{side_px} px: {error}; can it take no other side, the card says fixed_side") from error
    require(tuple(features.shape) == (1, card.feature_dim), f"features have the shape {tuple(features.shape)}")


def fresh_weights_follow_the_seed(subject: BackboneSubject) -> None:
    """Without pretraining, torch's seed decides the weights: one seed, one network; another seed, another."""
    import torch

    def fresh(seed: int) -> Built:
        torch.manual_seed(seed)
        return subject.build(pretrained=False)

    five, again, six = fresh(5).state, fresh(5).state, fresh(6).state
    different = [name for name, tensor in five.items() if not tensor.equal(again[name])]
    require(not different, f"built twice under one seed, {', '.join(different[:4])} differ: what is random without the seed?")
    require(any(not tensor.equal(six[name]) for name, tensor in five.items()), "another seed gives the same weights")


def pretrained_weights_are_always_the_same(subject: BackboneSubject) -> None:
    """Built twice with its weights, the network has the same weights, which are not those of a fresh one."""
    _require_weights(subject)
    one, two, fresh = (subject.build(pretrained=pretrained).state for pretrained in (True, True, False))
    different = [name for name, tensor in one.items() if not tensor.equal(two[name])]
    require(not different, f"built twice with its weights, {', '.join(different[:4])} differ")
    require(
        any(not tensor.equal(fresh[name]) for name, tensor in one.items()), "the pretrained weights are those of a fresh one"
    )


def gradients_reach_every_block(subject: BackboneSubject) -> None:
    """Each block that has parameters can learn."""
    built = subject.build(pretrained=subject.has_weights)
    features = forward(subject, built, 2, with_gradient=True)
    features.square().mean().backward()  # type: ignore[no-untyped-call]
    deaf = [
        index
        for index, block in enumerate(built.blocks)
        if (parameters := list(block.parameters())) and not any(p.grad is not None and bool(p.grad.any()) for p in parameters)
    ]
    require(not deaf, f"no gradient reaches blocks {deaf}: a detach, or an in-place step?")


def weights_survive_a_file(subject: BackboneSubject) -> None:
    """Written as safetensors and loaded into a fresh network, the weights give the same features."""
    from safetensors.torch import load, save
    from torch import nn

    file = save({name: tensor.detach().clone().contiguous() for name, tensor in subject.built.state.items()})
    fresh = subject.build(pretrained=False)
    try:
        nn.Sequential(*fresh.blocks).load_state_dict(load(file))
    except RuntimeError as error:
        raise CheckFailed(f"the weights don't fit a fresh network: {error}") from error
    same = forward(subject, fresh, 2).equal(forward(subject, subject.built, 2))
    require(same, "the loaded network gives other features: something that matters is in neither parameters nor buffers")


def frozen_blocks_stay(subject: BackboneSubject) -> None:
    """While one block learns, all others stay as they are, bit by bit."""
    learning, trained = _trained_on_top(subject)
    after = trained.blocks.state_dict()
    changed = {name.partition(".")[0] for name, tensor in trained.before.items() if not tensor.equal(after[name])}
    others = sorted(int(index) for index in changed - {str(learning)})
    require(not others, f"block {learning} alone was to learn, but blocks {others} changed as well")


def last_block_learns(subject: BackboneSubject) -> None:
    """The last block that has parameters changes when it is trained."""
    learning, trained = _trained_on_top(subject)
    after = trained.blocks.state_dict()
    own = [name for name in trained.before if name.partition(".")[0] == str(learning)]
    require(any(not trained.before[name].equal(after[name]) for name in own), f"block {learning} was trained, nothing changed")


def runs_on_a_gpu(subject: BackboneSubject) -> None:
    """On a CUDA device it gives the features of the CPU, within half a percent."""
    import torch
    from torch import nn

    if not torch.cuda.is_available():
        raise NotApplicable("this machine has no CUDA device")
    network = nn.Sequential(*subject.build(pretrained=subject.has_weights).blocks).cuda().eval()
    with torch.inference_mode():
        features = network(fed_images(subject.offered.card, 2).cuda()).cpu()
    difference = largest_difference(features, forward(subject, subject.built, 2))
    require(difference <= 5 * SAME, f"features differ by {difference:.1e} of the largest")


def _trained_on_top(subject: BackboneSubject) -> tuple[int, Trained]:
    """The topmost block that has parameters, and what one epoch of training it alone gives."""
    from automl_tl.testing.toy import toy_images
    from automl_tl.testing.trials import on_the_cpu, train_run, work_bench

    able: Sequence[int] = [index for index, block in enumerate(subject.built.blocks) if any(True for _ in block.parameters())]
    if not able:
        raise NotApplicable("no block has parameters")
    phase = Phase(
        name="last block",
        epochs=1,
        train_blocks=(able[-1],),
        head_lr=1e-2,
        encoder_lr=1e-2,
        warmup_fraction=0.0,
        augmentation="none",
    )
    # a random head: from a zero one no gradient reaches the block in the first step
    recipe = Recipe(head=Head(start="random"), phases=(phase,), pretrained=subject.has_weights, batch_size=6, weight_decay=0.0)
    images = toy_images()["train"].at(range(NUM_LEARNING_IMAGES))
    with on_the_cpu():
        return able[-1], train_run(recipe, work_bench(subject.folder / "top"), subject.offered, images=images)


def _require_weights(subject: BackboneSubject) -> None:
    if not subject.has_weights:
        raise NotApplicable(f"its weights are not on this machine (the card says {subject.offered.card.weights!r})")


NETWORK_CHECKS = (
    blocks_are_its_own_modules,
    blocks_share_nothing,
    every_boundary_is_one_tensor,
    features_have_the_promised_width,
    blocks_and_classifier_are_the_network,
    images_do_not_see_each_other,
    looking_changes_nothing,
    takes_channels_last,
    takes_other_sides,
    fresh_weights_follow_the_seed,
    pretrained_weights_are_always_the_same,
    gradients_reach_every_block,
    weights_survive_a_file,
    frozen_blocks_stay,
    last_block_learns,
    runs_on_a_gpu,
)
