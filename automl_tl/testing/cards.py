"""Checks on what a backbone says of itself, and on building it."""

from __future__ import annotations

from unittest.mock import patch

from automl_tl.errors import PluginError
from automl_tl.plugin_host.loading import load
from automl_tl.testing.processes import probe_cards
from automl_tl.testing.subjects import BackboneSubject
from automl_tl.testing.verdicts import CheckFailed, require

__all__ = ["CARD_CHECKS"]


def lists_the_same_again(subject: BackboneSubject) -> None:
    """Asked a second time, the provider offers the same backbones with the same cards."""
    first = [backbone.card for backbone in subject.loaded.backbones]
    again = load(subject.loadable)
    require([backbone.card for backbone in again.backbones] == first, "asked twice, it gave two different lists of cards")


def cards_need_no_torch(subject: BackboneSubject) -> None:
    """Listing the backbones and reading their cards loads no torch."""
    _ = subject.offered
    probe = probe_cards(subject.entry.point)
    require(probe.error is None, f"in a new process the cards can't be read: {probe.error}")
    require(not probe.heavy, f"reading the cards loads {', '.join(probe.heavy)}; the facts must be there without")


def card_is_complete(subject: BackboneSubject) -> None:
    """The card says all that the planner weighs: blocks, parameters, multiply-accumulates, weights and their size."""
    if not subject.loaded.backbones and subject.loaded.plugin.problem is None:
        raise CheckFailed("it offers no backbone at all")
    card = subject.offered.card
    needed = ["num_blocks", "num_parameters", "num_macs"]
    needed += [] if card.weights == "none" else ["pretrained_on", "weights_mib"]
    missing = [name for name in needed if getattr(card, name) is None]
    require(not missing and bool(card.family.strip()), f"the card of {card.name} lacks {', '.join(missing) or 'a family'}")


def builds_on_the_cpu(subject: BackboneSubject) -> None:
    """``build`` gives a network in eval mode, float32, on the CPU, and ``cut`` its blocks."""
    import torch

    try:
        network = subject.offered.build(pretrained=subject.has_weights)
        subject.offered.cut(network)
    except PluginError as error:
        raise CheckFailed(str(getattr(error, "problem", error))) from error
    require(not any(module.training for module in network.modules()), "parts of it are in training mode; call .eval()")
    floating = [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]
    found = {f"{tensor.dtype} on {tensor.device.type}" for tensor in floating} - {f"{torch.float32} on cpu"}
    require(not found, f"some of its tensors are {', '.join(sorted(found))}; expected is torch.float32 on cpu")


def builds_without_the_network(subject: BackboneSubject) -> None:
    """Weights that are said to be on this machine are: the network is built with every connection refused."""
    _ = subject.built
    refused = OSError("the conformance kit refuses every connection")
    with patch("socket.socket.connect", side_effect=refused), patch("socket.getaddrinfo", side_effect=refused):
        try:
            subject.offered.build(pretrained=subject.has_weights)
        except PluginError as error:
            raise CheckFailed(f"weights are {subject.offered.card.weights!r}, but offline: {error}") from error


def parameters_are_counted(subject: BackboneSubject) -> None:
    """The network has as many parameters as its card says, and the weights the size that follows."""
    card, counted = subject.offered.card, sum(parameter.numel() for parameter in subject.built.network.parameters())
    require(card.num_parameters == counted, f"the card says {card.num_parameters} parameters, the network has {counted}")
    if card.weights_mib is not None:
        expected_mib = 4 * counted / 2**20
        text = f"the card says {card.weights_mib} MiB of weights, {counted} parameters in float32 are {expected_mib:.2f}"
        require(0.2 * expected_mib <= card.weights_mib <= 1.5 * expected_mib + 0.1, text)


def blocks_are_counted(subject: BackboneSubject) -> None:
    """The network is cut into as many blocks as its card says."""
    said, found = subject.offered.card.num_blocks, len(subject.built.blocks)
    require(said in (None, found), f"the card says {said} blocks, cut gives {found}")


CARD_CHECKS = (
    lists_the_same_again,
    cards_need_no_torch,
    card_is_complete,
    builds_on_the_cpu,
    builds_without_the_network,
    parameters_are_counted,
    blocks_are_counted,
)
