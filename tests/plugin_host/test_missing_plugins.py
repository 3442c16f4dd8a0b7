"""Models whose plugin is missing: an installed backbone with the same network replaces it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

import automl_tl
from automl_tl.cli.app import app
from automl_tl.errors import ModelError
from automl_tl.models.bundle import BundleFacts, Classifier, build_encoder, load_bundle, save_bundle
from automl_tl.models.heads import HeadShape, build_head
from automl_tl.plugin_host import discover
from automl_tl.values import Constraints
from tests.fakes import write_colors
from tests.plugin_host.distributions import SOUND_STRATEGY, Package, importable, install

PROVIDER = """
from automl_tl.testing import ToyBackbone

class Net(ToyBackbone):
    provider = {name!r}

    @property
    def card(self):
        return super().card.model_copy(update={{"same_network_as": {same!r}}})

    def cut(self, network):
        return {cut}

def backbones():
    return [Net()]
"""
REGROUPED = "[network[0], __import__('torch').nn.Sequential(network[1], network[2])]"
DARKENED = "[__import__('torch').nn.Sequential(__import__('torch').nn.ReLU(), *network)]"


def provider(name: str, *, same: tuple[str, ...] = (), cut: str = "list(network)") -> Package:
    source = PROVIDER.format(name=name, same=same, cut=cut)
    return Package(f"tl-{name}", source, {f"backbones.{name}": "backbones"})


@dataclass(frozen=True)
class Orphan:
    """A model fitted with a provider and a strategy that are no longer installed."""

    registry: Path
    image: Path
    probability: float | None


@pytest.fixture(scope="module")
def orphan(tmp_path_factory: pytest.TempPathFactory) -> Orphan:
    folder = tmp_path_factory.mktemp("orphan")
    images = write_colors(folder / "images", per_class=12)
    constraints = Constraints(backbones=("first/three_blocks",), strategies=("sound",))
    with pytest.MonkeyPatch.context() as patch, importable(folder, patch):
        patch.setenv("PYTHONPATH", str(folder))
        install(folder, provider("first", same=("second/three_blocks",)))
        install(folder, SOUND_STRATEGY)
        automl_tl.fit(images, name="orphan", constraints=constraints, registry=folder / "registry")
        image = images / "red" / "000.png"
        (before,) = automl_tl.load("orphan", registry=folder / "registry").predict([image])
    return Orphan(folder / "registry", image, before.probability)


def test_load_uses_a_backbone_with_the_same_network(orphan: Orphan, site: Path) -> None:
    install(site, provider("second", cut=REGROUPED))

    (after,) = automl_tl.load("orphan", registry=orphan.registry).predict([orphan.image])

    assert after.probability == pytest.approx(orphan.probability, abs=1e-5)


def test_load_uses_a_backbone_that_claims_the_same_network(orphan: Orphan, site: Path) -> None:
    install(site, provider("third", same=("first/three_blocks",)))

    (after,) = automl_tl.load("orphan", registry=orphan.registry).predict([orphan.image])

    assert after.probability == pytest.approx(orphan.probability, abs=1e-5)


def test_load_refuses_a_backbone_with_other_predictions(orphan: Orphan, site: Path) -> None:
    install(site, provider("second", cut=DARKENED))

    with pytest.raises(ModelError, match=r"'first/three_blocks' is not installed, .* disagrees .* Install tl-first 1\.0"):
        automl_tl.load("orphan", registry=orphan.registry)


@pytest.mark.parametrize("command", ["predict", "explain", "data drift", "export", "report"])
def test_commands_refuse_a_backbone_with_other_predictions(orphan: Orphan, site: Path, command: str) -> None:
    install(site, provider("second", cut=DARKENED))
    images = [] if command in ("export", "report") else [str(orphan.image)]

    with pytest.raises(ModelError, match=r"disagrees on the reference images"):
        CliRunner().invoke(
            app, [*command.split(), "orphan", *images, "--registry", str(orphan.registry)], catch_exceptions=False
        )


def test_load_names_the_package_to_install(orphan: Orphan, site: Path) -> None:
    with pytest.raises(ModelError, match=r"'first/three_blocks', which no installed plugin provides\. Install tl-first 1\.0"):
        automl_tl.load("orphan", registry=orphan.registry)


def test_load_uses_timm_for_the_packaged_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    backbone = discover().backbone("lite/efficientnet_lite0")
    head = HeadShape(kind="trained", feature_dim=1280, num_classes=2)
    facts = BundleFacts(
        classes=("a", "b"),
        preprocessing=backbone.card.preprocessing,
        backbone=backbone.card.name,
        backbone_from="automl-tl",
        same_network_as=backbone.card.same_network_as,
        strategy="tail",
        head=head,
        temperature=1.0,
    )
    saved = Classifier(build_encoder(backbone, pretrained=True), build_head(head).eval(), facts)
    encoder_file, head_file, _ = save_bundle(tmp_path, saved)
    monkeypatch.setenv("TL_DISABLE_PLUGINS", "lite")

    loaded = load_bundle(encoder_file, head_file, discover())

    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(loaded.encoder(images), saved.encoder(images), atol=1e-4)
