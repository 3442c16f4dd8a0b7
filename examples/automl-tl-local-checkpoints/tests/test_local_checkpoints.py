"""The plugin contract, and what is special about local checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from automl_tl.testing import Check, parametrize_with_checks
from safetensors.torch import save_file
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from automl_tl_local_checkpoints import FOLDER_VARIABLE, backbones


def write_checkpoint(file: Path, *, bottleneck: bool = False, **metadata: str) -> ResNet:
    torch.manual_seed(0)
    network = ResNet(Bottleneck if bottleneck else BasicBlock, [1, 1, 1, 1], num_classes=3)
    save_file(network.state_dict(), file, metadata={"side_px": "64", **metadata})
    return network


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two networks and a file without one."""
    folder = tmp_path_factory.mktemp("checkpoints")
    write_checkpoint(folder / "my leaves.safetensors", license="CC0-1.0", pretrained_on="leaves")
    write_checkpoint(folder / "deep.safetensors", bottleneck=True)
    (folder / "notes.safetensors").write_text("not a checkpoint")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER_VARIABLE, str(folder))
        yield folder


@parametrize_with_checks("checkpoints", "checkpoints/deep")
def test_backbone_keeps_contract(check: Check) -> None:
    check()


def test_card_states_metadata_of_file() -> None:
    card = {backbone.card.name: backbone.card for backbone in backbones()}["checkpoints/my_leaves"]

    assert (card.license, card.pretrained_on, card.weights, card.preprocessing.side_px) == ("CC0-1.0", "leaves", "file", 64)


def test_backbones_skips_other_files_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        names = [backbone.card.name for backbone in backbones()]

    assert names == ["checkpoints/deep", "checkpoints/my_leaves"]
    assert "notes.safetensors is skipped" in caplog.text


def test_card_counts_multiply_accumulates_of_network(folder: Path) -> None:
    backbone = next(backbone for backbone in backbones() if backbone.card.name == "checkpoints/deep")
    network, counts = backbone.build(pretrained=False), []
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda kind, _, out: counts.append(kind.weight.numel() * out.shape[2] * out.shape[3]))

    network(torch.zeros(1, 3, 64, 64))

    assert backbone.card.num_macs == sum(counts)


def test_backbones_without_folder_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE)

    assert backbones() == []
