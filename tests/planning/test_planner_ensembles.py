"""Ensembles: one backbone that sees red and one that sees green separate three colors, which neither does alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from automl_tl.contracts import Backbone, BackboneCard, Preprocessing, Recipe, Situation
from automl_tl.errors import UnknownBackboneError
from automl_tl.models.bundle import BundleFacts, Classifier, build_encoder, load_bundle, save_bundle
from automl_tl.models.heads import build_head
from automl_tl.planning import EvidenceCollector
from automl_tl.planning.candidates import probe_candidates
from automl_tl.plugin_host import Catalog, LoadedBackbone, discover
from automl_tl.plugin_host.ensemble import Ensemble
from automl_tl.training.run import new_head
from automl_tl.values import Constraints, Head
from automl_tl.workflows.dataset import Dataset
from tests.planning.conftest import MakePlan
from tests.planning.fake_plugins import ClosedForm, FixedProbes, Renamed, catalog_of, evidence_of

PAIR = "lite/efficientnet_lite0+lite/efficientnet_lite1"


class ChannelNetwork(nn.Module):
    """Two features: whether one channel is bright, and whether it is dark."""

    def __init__(self, channel: int) -> None:
        super().__init__()
        self.channel = channel
        self.register_buffer("ballast", torch.full((2**18,), float(channel)))  # 1 MiB; differs between the networks

    def forward(self, images: Tensor) -> Tensor:
        """Map ``(B, 3, H, W)`` to ``(B, 2)``."""
        is_bright = (images[:, self.channel].mean(dim=(1, 2)) > 0.5).float()
        return torch.stack([is_bright, 1 - is_bright], dim=1)


class OneChannel(Backbone):
    """Sees one color channel only."""

    def __init__(self, channel: int, side_px: int = 32) -> None:
        self.channel, self.side_px = channel, side_px

    @property
    def card(self) -> BackboneCard:
        """Facts."""
        return BackboneCard(
            name=f"toy/channel_{self.channel}",
            family="channel",
            preprocessing=Preprocessing(side_px=self.side_px, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
            feature_dim=2,
            num_blocks=1,
            num_parameters=0,
            num_macs=1000 + self.channel,
            license="MIT",
            weights="package",
            weights_mib=1.0,
        )

    def build(self, *, pretrained: bool) -> nn.Module:
        """The network."""
        return ChannelNetwork(self.channel).eval()

    def cut(self, network: nn.Module) -> Sequence[nn.Module]:
        """One block."""
        return [network]


class DefaultHead(ClosedForm):
    """The default closed-form head."""

    def recipe(self, situation: Situation) -> Recipe:
        """No phase."""
        return Recipe(head=Head(solver="average"))


def two_channels() -> Catalog:
    return catalog_of([OneChannel(0), OneChannel(1)], [DefaultHead()])


def test_make_plan_combines_backbones_that_complement_each_other(plan: MakePlan) -> None:
    result = plan(two_channels(), kind=EvidenceCollector)

    assert result.backbone == "toy/channel_0+toy/channel_1"
    assert result.expected.accuracy is not None
    assert result.expected.accuracy > 0.8
    assert result.expected.size_mib == pytest.approx(2.0, abs=0.01)


def test_make_plan_does_not_try_a_failed_ensemble_again(plan: MakePlan) -> None:
    catalog = two_channels()
    rest = catalog.without("toy/channel_0+toy/channel_1")
    rest.backbones, rest.strategies = catalog.backbones, catalog.strategies

    assert "+" not in plan(rest).backbone


def test_make_plan_rejects_an_ensemble_above_the_size_limit(plan: MakePlan) -> None:
    result = plan(two_channels(), Constraints(max_size_mib=1.5))

    verdicts = {verdict.backbone: verdict.verdict for verdict in result.candidates}
    assert result.backbone in ("toy/channel_0", "toy/channel_1")
    assert verdicts["toy/channel_0+toy/channel_1"] == "rejected"


def test_make_plan_combines_nothing_if_backbones_are_requested(plan: MakePlan) -> None:
    result = plan(two_channels(), Constraints(backbones=("toy/channel_0", "toy/channel_1")))

    assert not [verdict for verdict in result.candidates if "+" in verdict.backbone]


def test_probe_candidates_count_the_memory_of_the_widest_ensemble_for_all(colors: Dataset, tmp_path: Path) -> None:
    catalog = catalog_of([Renamed(name="toy/a"), Renamed(name="toy/b")], [ClosedForm()])
    evidence = evidence_of(colors, tmp_path, kind=FixedProbes)
    one, two = (evidence.probe(catalog.backbone(name)) for name in ("toy/a", "toy/b"))
    wide = np.broadcast_to(np.float32(0), (len(one.labels), 100_000))
    one, two = (replace(probe, features=wide, parts=((100_000,),)) for probe in (one, two))
    both = replace(evidence.probe_ensemble([one, two]), features=np.concatenate([wide, wide], axis=1))

    alone, _ = probe_candidates(evidence, [one, two], one)
    (together,) = probe_candidates(evidence, [both], one)

    assert alone.memory_mib is not None
    assert alone.memory_mib == pytest.approx(together.memory_mib, abs=2)
    assert alone.memory_mib > 1000 + 6 * wide.nbytes / 2**20


@pytest.mark.parametrize("side_px", [32, 24])
def test_ensemble_concatenates_features_of_unit_length(side_px: int) -> None:
    members = [
        LoadedBackbone(next(iter(catalog_of([member], []).backbones.values())).plugin, member)
        for member in (OneChannel(0), OneChannel(1, side_px))
    ]
    joined = Ensemble(members)
    images = torch.rand(4, 3, 32, 32)

    features = build_encoder(joined, pretrained=True)(images)

    smaller = functional.interpolate(images, size=(side_px, side_px), mode="bilinear", align_corners=False)
    alone = [ChannelNetwork(0)(images), ChannelNetwork(1)(smaller)]
    torch.testing.assert_close(features, torch.cat([functional.normalize(rows, dim=1) for rows in alone], dim=1))
    assert (joined.card.feature_dim, joined.card.license, joined.card.weights_mib) == (4, "MIT", 2.0)


def test_catalog_finds_ensembles_but_does_not_list_them() -> None:
    catalog = discover(only_host=True)
    card = catalog.backbone(PAIR).card

    assert (card.name, card.feature_dim, card.preprocessing.side_px) == (PAIR, 2560, 240)
    assert PAIR not in list(catalog.backbones)
    with pytest.raises(UnknownBackboneError):
        catalog.backbone("lite/efficientnet_lite0+lite/missing")
    with pytest.raises(UnknownBackboneError):
        catalog.without(PAIR).backbone(PAIR)


def test_load_bundle_restores_an_ensemble(tmp_path: Path) -> None:
    catalog = discover(only_host=True)
    backbone = catalog.backbone(PAIR)
    head = new_head(Head(start="random"), feature_dim=2560, num_classes=2)
    facts = BundleFacts(
        classes=("a", "b"),
        preprocessing=backbone.card.preprocessing,
        backbone=PAIR,
        backbone_from="automl-tl 0",
        same_network_as=(),
        strategy="linear_probe",
        head=head.shape,
        temperature=1.0,
    )
    classifier = Classifier(build_encoder(backbone, pretrained=False), head.eval(), facts)
    encoder_file, head_file, _ = save_bundle(tmp_path, classifier)
    images = torch.rand(1, 3, 240, 240)

    loaded = load_bundle(encoder_file, head_file, catalog)

    with torch.inference_mode():
        torch.testing.assert_close(loaded.encoder(images), classifier.encoder(images))
    assert build_head(facts.head).state_dict().keys() == head.state_dict().keys()
