"""What every backbone promises, and what is special about these."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from automl_tl.testing import BoundCheck, backbone_checks
from safetensors.torch import save_file
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from automl_tl_local_checkpoints import FOLDER_VARIABLE, backbones

CHECKS = backbone_checks("checkpoints")


def write_checkpoint(file: Path, *, bottleneck: bool = False, **metadata: str) -> ResNet:
    torch.manual_seed(0)
    network = ResNet(Bottleneck if bottleneck else BasicBlock, [1, 1, 1, 1], num_classes=3)
    save_file(network.state_dict(), file, metadata={"side_px": "64", **metadata})
    return network


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two networks and a file that is none."""
    made = tmp_path_factory.mktemp("checkpoints")
    write_checkpoint(made / "my leaves.safetensors", license="CC0-1.0", pretrained_on="leaves")
    write_checkpoint(made / "deep.safetensors", bottleneck=True)
    (made / "notes.safetensors").write_text("not a checkpoint")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER_VARIABLE, str(made))
        yield made


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_the_contract_is_kept(check: BoundCheck) -> None:
    check()


def test_no_check_was_left_out() -> None:
    CHECKS.report().require()


def test_a_deep_one_keeps_the_contract_too() -> None:
    backbone_checks("checkpoints/deep").report().require()


def test_a_card_says_what_the_file_says() -> None:
    card = {backbone.card.name: backbone.card for backbone in backbones()}["checkpoints/my_leaves"]

    assert (card.license, card.pretrained_on, card.weights, card.preprocessing.side_px) == ("CC0-1.0", "leaves", "file", 64)


def test_a_file_that_is_no_network_is_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        names = [backbone.card.name for backbone in backbones()]

    assert names == ["checkpoints/deep", "checkpoints/my_leaves"]
    assert "notes.safetensors is left out" in caplog.text


def test_the_cost_on_the_card_is_what_the_network_does(folder: Path) -> None:
    backbone = next(each for each in backbones() if each.card.name == "checkpoints/deep")
    network, counted = backbone.build(pretrained=False), []
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda kind, _, out: counted.append(kind.weight.numel() * out.shape[2] * out.shape[3]))

    network(torch.zeros(1, 3, 64, 64))

    assert backbone.card.num_macs == sum(counted)


def test_without_a_folder_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE)

    assert backbones() == []
