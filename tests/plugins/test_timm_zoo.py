"""timm's models keep the contract, and their cards say what timm says."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from automl_tl_timm import backbones, cards
from automl_tl_timm.provenance import pretrained_on, spdx
from tests.plugins.zoo_checks import check_whole_contract

BY_NAME = {backbone.card.name.partition("/")[2]: backbone for backbone in backbones()}

# (model, side of the images): each adapter and each row of CHAINS, by its smallest member and as small as that takes.
QUICK = (
    ("cait_xxs24_224", 224),
    ("coat_lite_tiny", 224),
    ("coat_tiny", 224),
    ("convit_tiny", 224),
    ("convnext_atto", 64),
    ("cs3darknet_focus_s", 64),
    ("deit_tiny_distilled_patch16_224", 224),
    ("densenet121", 64),
    ("dla46_c", 64),
    ("edgenext_xx_small", 64),
    ("efficientformerv2_s0", 224),
    ("efficientnet_lite0", 64),
    ("efficientvim_m1", 128),
    ("efficientvim_m1_dist", 128),
    ("efficientvit_b0", 64),
    ("efficientvit_m0", 224),
    ("ese_vovnet19b_slim_dw", 64),
    ("eva02_tiny_patch14_224", 224),
    ("fasternet_t0", 64),
    ("fastvit_t8", 64),
    ("ghostnet_050", 64),
    ("hgnetv2_b0", 64),
    ("hrnet_w18_small", 64),
    ("lcnet_035", 64),
    ("levit_128s", 224),
    ("mambaout_femto", 64),
    ("mixer_s32_224", 224),
    ("mobilenetv1_100", 64),
    ("mobilenetv4_conv_small_035", 64),
    ("mobilevit_xxs", 64),
    ("pit_ti_224", 224),
    ("pit_ti_distilled_224", 224),
    ("poolformer_s12", 64),
    ("pvt_v2_b0", 64),
    ("regnetx_002", 64),
    ("repghostnet_050", 64),
    ("repvgg_a0", 64),
    ("repvit_m0_9", 64),
    ("resnet10t", 64),
    ("rexnet_100", 64),
    ("selecsls42", 64),
    ("shvit_s1", 64),
    ("skresnet18", 64),
    ("starnet_s1", 64),
    ("swiftformer_xs", 224),
    ("test_maxvit", 160),
    ("test_nfnet", 64),
    ("test_vit", 160),
    ("test_vit_relpos", 160),
    ("tiny_vit_5m_224", 224),
    ("visformer_tiny", 224),
    ("vit_tiny_patch16_224.augreg_in21k", 224),
    ("xcit_nano_12_p16_224", 224),
)
WIDE = (
    ("beit_base_patch16_224", 224),
    ("convmixer_768_32", 64),
    ("crossvit_9_240", 240),
    ("dpn48b", 64),
    ("efficientformer_l1", 224),
    ("focalnet_tiny_srf", 64),
    ("gcvit_xxtiny", 224),
    ("hiera_tiny_224", 224),
    ("hieradet_small", 224),
    ("inception_next_atto", 64),
    ("inception_v3", 96),
    ("inception_v4", 96),
    ("mobilenetv5_base", 64),
    ("mvitv2_tiny", 224),
    ("nest_tiny", 224),
    ("resnest14d", 64),
    ("resnetv2_50", 64),
    ("sequencer2d_s", 224),
    ("swin_tiny_patch4_window7_224", 224),
    ("swinv2_cr_tiny_ns_224", 224),
    ("tnt_s_patch16_224", 224),
    ("twins_svt_small", 224),
    ("vgg11", 64),
    ("vit_relpos_small_patch16_224", 224),
    ("vit_small_patch16_dinov3", 64),
    ("volo_d1_224", 224),
    ("xception41", 64),
)


@pytest.mark.parametrize(("model", "side_px"), [*QUICK, *(pytest.param(*row, marks=pytest.mark.slow) for row in WIDE)])
def test_blocks_and_head_are_the_network(model: str, side_px: int, tmp_path: Path) -> None:
    check_whole_contract(BY_NAME[model], side_px, tmp_path)


def test_a_copy_of_the_blocks_shares_nothing_with_the_network() -> None:
    import copy

    import torch

    backbone = BY_NAME["pit_ti_224"]
    network = backbone.build(pretrained=False)
    blocks = torch.nn.Sequential(*backbone.cut(network))

    copied = copy.deepcopy(blocks)

    own = {id(parameter) for parameter in network.parameters()}
    assert own.isdisjoint(id(parameter) for parameter in copied.parameters())
    images = torch.randn(1, 3, 224, 224)
    torch.testing.assert_close(copied(images), blocks(images))


# -------------------------------------------------------------------------------------------------------------- cards


def test_cards_are_read_without_torch() -> None:
    code = "import sys, automl_tl_timm as p; assert len(p.backbones()) > 3000; assert not {'torch', 'timm'} & {*sys.modules}"

    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(version("timm") != cards.read_table()["version"], reason="the table is that of another timm")
def test_every_architecture_and_every_tag_with_weights_has_a_card() -> None:
    import timm

    classifiers = {model for model in timm.list_models() if not model.endswith("_enc")}  # towers of language models
    tagged = {model for model in timm.list_models(pretrained=True) if not model.partition(".")[0].endswith("_enc")}

    assert classifiers | tagged <= set(BY_NAME)


@pytest.mark.parametrize("model", ["resnet18.a1_in1k", "vit_base_patch16_clip_224.openai", "tf_efficientnet_b0.ns_jft_in1k"])
def test_a_card_says_what_timm_says(model: str) -> None:
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(model, allow_unregistered=False)
    assert config is not None
    card = BY_NAME[model].card

    assert card.preprocessing.side_px == config.input_size[-1]
    assert card.preprocessing.crop_fraction == config.crop_pct
    assert card.preprocessing.interpolation == config.interpolation
    assert (card.preprocessing.mean, card.preprocessing.std) == (config.mean, config.std)
    assert card.imagenet_top1 is None


def test_an_architectures_card_is_that_of_its_default_tag() -> None:
    default, tagged = BY_NAME["resnet18"].card, BY_NAME["resnet18.a1_in1k"].card

    assert default == tagged.model_copy(update={"name": "timm/resnet18"})


def test_an_architecture_without_weights_says_so() -> None:
    card = BY_NAME["resnet10t"].card.model_copy()
    without = BY_NAME["test_vit_relpos"].card

    assert (card.weights, without.weights) == ("download", "none")
    assert (without.pretrained_on, without.license, without.weights_mib) == (None, None, None)


def test_the_table_is_what_the_script_measures() -> None:
    from timm.models import get_pretrained_cfg

    from automl_tl_timm.make_cards import measure

    card = BY_NAME["resnet10t"].card

    facts = measure("resnet10t", get_pretrained_cfg("resnet10t"))

    assert facts is not None
    assert facts._asdict().items() <= card.model_dump().items()


def test_multiply_accumulates_are_those_of_the_literature() -> None:
    assert BY_NAME["resnet50"].card.num_macs == pytest.approx(4.09e9, rel=0.02)  # torchvision states 4.089 GMACs


def test_a_card_says_cached_once_the_hubs_cache_has_a_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    ("tag", "num_classes", "data"),
    [
        ("a1_in1k", 1000, "imagenet-1k"),
        ("augreg_in21k_ft_in1k", 1000, "imagenet-21k+imagenet-1k"),
        ("clip_laion2b_augreg_ft_in12k_in1k", 1000, "laion-2b+imagenet-12k+imagenet-1k"),
        ("openai", 512, "openai-wit-400m"),
        ("paddle", 1000, "imagenet-1k"),
        ("c_radio", 0, "unstated"),
    ],
)
def test_a_tag_tells_the_data_in_the_order_of_training(tag: str, num_classes: int, data: str) -> None:
    assert pretrained_on(tag, num_classes) == data


@pytest.mark.parametrize(
    ("license", "name"),
    [
        ("apache-2.0", "Apache-2.0"),
        ("cc-by-nc-4.0", "CC-BY-NC-4.0"),
        ("gemma", "LicenseRef-gemma"),
        ("unknown", None),
    ],
)
def test_licenses_have_their_spdx_names(license: str, name: str | None) -> None:
    assert spdx(license) == name
