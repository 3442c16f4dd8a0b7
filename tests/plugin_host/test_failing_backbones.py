"""Backbones that look best by their cards and then fail: the planner warns and uses the next."""

from __future__ import annotations

from pathlib import Path

import pytest

import automl_tl
from automl_tl.errors import PluginError, PluginFailedError
from automl_tl.plugin_host import discover
from automl_tl.values import Constraints
from tests.fakes import write_colors
from tests.plugin_host.distributions import Package, install

SOURCE = """
from automl_tl.testing import ToyBackbone

class Net(ToyBackbone):
    provider = {name!r}

    @property
    def card(self):
        return super().card.model_copy(update={{"imagenet_top1": {top1}}})

    def build(self, *, pretrained):
        {build}

    def cut(self, network):
        return {cut}

def backbones():
    return [Net()]
"""
SOUND = "return super().build(pretrained=pretrained)"


def provider(name: str, top1: float, build: str = SOUND, cut: str = "list(network)") -> Package:
    source = SOURCE.format(name=name, top1=top1, build=build, cut=cut)
    return Package(f"tl-{name}", source, {f"backbones.{name}": "backbones"})


@pytest.fixture
def images(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images, with third-party backbones only: the two with the better cards fail."""
    install(site, provider("proud", 0.99, "raise RuntimeError('out of order')"))
    install(site, provider("vain", 0.98, cut="list(network)[::-1]"))
    install(site, provider("modest", 0.5))
    monkeypatch.setenv("TL_DISABLE_PLUGINS", "keras,lite,timm,torchvision")
    monkeypatch.setenv("PYTHONPATH", str(site))
    return write_colors(tmp_path / "images", per_class=12)


def test_fit_uses_the_next_best_backbone(images: Path) -> None:
    outcome = automl_tl.fit(images, constraints=Constraints(strategies=("linear_probe",)))

    assert outcome.plan.backbone == "modest/three_blocks"


def test_fit_names_a_requested_backbone_whose_blocks_fail(images: Path) -> None:
    with pytest.raises(PluginFailedError, match=r"'vain' .* failed while vain/three_blocks was probed: RuntimeError"):
        automl_tl.fit(images, constraints=Constraints(backbones=("vain/three_blocks",)))


def test_fit_names_a_requested_backbone_that_fails_to_build(images: Path) -> None:
    with pytest.raises(
        PluginFailedError, match=r"'proud' .* failed while building proud/three_blocks: RuntimeError: out of order"
    ):
        automl_tl.fit(images, constraints=Constraints(backbones=("proud/three_blocks",)))


def test_without_keeps_the_other_backbones(images: Path) -> None:
    catalog = discover().without("proud/three_blocks")

    assert list(catalog.backbones) == ["modest/three_blocks", "vain/three_blocks"]
    with pytest.raises(PluginError, match="No installed plugin provides backbone 'proud/three_blocks'"):
        catalog.backbone("proud/three_blocks")
