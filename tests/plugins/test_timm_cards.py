"""Cards of timm models: they agree with timm, and with the caches of weights."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from automl_tl_timm import backbones, cards
from benchmarks.make_cards_timm import measure, pretrained_on, spdx

CARDS = {backbone.card.name.partition("/")[2]: backbone.card for backbone in backbones()}


def test_cards_are_read_without_torch() -> None:
    code = "import sys, automl_tl_timm as p; assert len(p.backbones()) > 3000; assert not {'torch', 'timm'} & {*sys.modules}"

    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(version("timm") != cards.read_table()["version"], reason="the table is that of another timm")
def test_cards_cover_every_architecture_and_tag_with_weights() -> None:
    import timm

    classifiers = {model for model in timm.list_models() if not model.endswith("_enc")}  # towers of language models
    tagged = {model for model in timm.list_models(pretrained=True) if not model.partition(".")[0].endswith("_enc")}

    assert classifiers | tagged <= set(CARDS)


@pytest.mark.parametrize("model", ["resnet18.a1_in1k", "vit_base_patch16_clip_224.openai", "tf_efficientnet_b0.ns_jft_in1k"])
def test_card_agrees_with_timm(model: str) -> None:
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(model, allow_unregistered=False)
    assert config is not None
    preprocessing = CARDS[model].preprocessing

    assert preprocessing.side_px == config.input_size[-1]
    assert preprocessing.crop_fraction == config.crop_pct
    assert preprocessing.interpolation == config.interpolation
    assert (preprocessing.mean, preprocessing.std) == (config.mean, config.std)
    assert CARDS[model].imagenet_top1 is None


def test_card_of_an_architecture_is_that_of_its_default_tag() -> None:
    assert CARDS["resnet18"] == CARDS["resnet18.a1_in1k"].model_copy(update={"name": "timm/resnet18"})


def test_card_without_weights_states_none() -> None:
    card = CARDS["test_vit_relpos"]

    assert (card.weights, card.pretrained_on, card.license, card.weights_mib) == ("none", None, None, None)
    assert CARDS["resnet10t"].weights == "download"


@pytest.mark.parametrize("model", ["test_resnet", "pit_ti_distilled_224"])
def test_card_states_what_make_cards_measures(model: str) -> None:
    facts = measure(model, CARDS[model].preprocessing.side_px)

    assert facts is not None
    assert facts._asdict().items() <= CARDS[model].model_dump().items()


def test_card_states_the_multiply_accumulates_of_the_literature() -> None:
    assert CARDS["resnet50"].num_macs == pytest.approx(4.09e9, rel=0.02)  # torchvision states 4.089 GMACs


def test_card_is_cached_if_the_hub_cache_has_a_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    repository = tmp_path / "hub" / "models--timm--resnet18.a1_in1k"
    (repository / "snapshots" / "abc").mkdir(parents=True)
    incomplete = {backbone.card.name: backbone.card.weights for backbone in backbones()}
    (repository / "snapshots" / "abc" / "model.safetensors").touch()

    complete = {backbone.card.name: backbone.card.weights for backbone in backbones()}

    assert incomplete["timm/resnet18.a1_in1k"] == "download"
    assert complete["timm/resnet18.a1_in1k"] == complete["timm/resnet18"] == "cached"
    assert complete["timm/resnet18.fb_swsl_ig1b_ft_in1k"] == "download"


@pytest.mark.parametrize(
    ("tag", "num_classes", "datasets"),
    [
        ("a1_in1k", 1000, "imagenet-1k"),
        ("augreg_in21k_ft_in1k", 1000, "imagenet-21k+imagenet-1k"),
        ("clip_laion2b_augreg_ft_in12k_in1k", 1000, "laion-2b+imagenet-12k+imagenet-1k"),
        ("openai", 512, "openai-wit-400m"),
        ("paddle", 1000, "imagenet-1k"),
        ("c_radio", 0, "unstated"),
    ],
)
def test_pretrained_on_reads_the_datasets_from_a_tag(tag: str, num_classes: int, datasets: str) -> None:
    assert pretrained_on(tag, num_classes) == datasets


@pytest.mark.parametrize(
    ("license", "identifier"),
    [
        ("apache-2.0", "Apache-2.0"),
        ("cc-by-nc-4.0", "CC-BY-NC-4.0"),
        ("gemma", "LicenseRef-gemma"),
        ("unknown", None),
    ],
)
def test_spdx_identifies_a_license(license: str, identifier: str | None) -> None:
    assert spdx(license) == identifier
