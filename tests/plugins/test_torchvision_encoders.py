"""Blocks and classifiers of torchvision networks, and their cards. ``benchmarks/zoo_sweep.py`` covers every model."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from automl_tl_torchvision import backbones
from tests.plugins.network_checks import check_backbone, check_network

BY_NAME = {backbone.card.name.partition("/")[2]: backbone for backbone in backbones()}
# Families without a small member, on networks of a few thousand parameters.
SMALL: dict[str, dict[str, Any]] = {
    "MaxVit": {
        **{"input_size": (32, 32), "stem_channels": 8, "partition_size": 2, "block_channels": [8, 16]},
        **{"block_layers": [1, 1], "head_dim": 4, "stochastic_depth_prob": 0.0},
    },
    "SwinTransformer": {
        **{"patch_size": [2, 2], "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": [2, 2]},
    },
    "VisionTransformer": {
        **{"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32},
    },
}


@pytest.mark.parametrize("kind", SMALL)
def test_cut_composes_to_the_network(kind: str, tmp_path: Path) -> None:
    import torch
    from torchvision import models

    from automl_tl_torchvision.encoders import classifier, cut

    torch.manual_seed(0)
    network = getattr(models, kind)(**SMALL[kind]).eval()

    check_network(network, cut(network), classifier(network), 32, tmp_path)


@pytest.mark.parametrize(
    ("model", "side_px"),
    [
        ("alexnet", 64),
        ("convnext_tiny", 64),
        ("densenet121", 64),
        ("efficientnet_b0", 64),
        ("googlenet", 64),
        ("inception_v3", 96),
        ("mnasnet0_5", 64),
        ("mobilenet_v2", 64),
        ("mobilenet_v3_small", 64),
        ("regnet_y_400mf", 64),
        ("resnet18", 64),
        ("shufflenet_v2_x0_5", 64),
        ("squeezenet1_1", 64),
    ],
)
def test_backbone_keeps_the_contract(model: str, side_px: int, tmp_path: Path) -> None:
    check_backbone(BY_NAME[model], side_px, tmp_path)


def test_cards_are_read_without_torch() -> None:
    code = "import sys, automl_tl_torchvision as p; assert len(p.backbones()) > 100; assert 'torch' not in sys.modules"

    subprocess.run([sys.executable, "-c", code], check=True)


def test_card_of_every_model_is_that_of_its_default_weights() -> None:
    from torchvision import models

    for model in models.list_models(module=models):
        default = models.get_model_weights(model).DEFAULT
        card = BY_NAME[model].card
        assert card == BY_NAME[f"{model}.{default.name}"].card.model_copy(update={"name": card.name})
        assert card.imagenet_top1 == pytest.approx(default.meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100)
        assert card.preprocessing.side_px == default.transforms().crop_size[0]
        assert card.preprocessing.side_px / card.preprocessing.crop_fraction == pytest.approx(
            default.transforms().resize_size[0]
        )


def test_card_states_a_license_only_if_the_weights_have_one() -> None:
    assert BY_NAME["resnet18"].card.license is None
    assert BY_NAME["vit_b_16.IMAGENET1K_SWAG_E2E_V1"].card.license == "CC-BY-NC-4.0"


def test_card_is_cached_if_torch_hub_has_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    before = {backbone.card.name: backbone.card.weights for backbone in backbones()}
    checkpoint = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()

    after = {backbone.card.name: backbone.card.weights for backbone in backbones()}

    assert set(before.values()) == {"download"}
    assert {name for name, state in after.items() if state == "cached"} == {
        "torchvision/resnet18",
        "torchvision/resnet18.IMAGENET1K_V1",
    }


def test_documentation_example_runs() -> None:
    text = (Path(__file__).parents[2] / "docs" / "backbones.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)

    assert examples
    for example in examples:
        exec(compile(example, "docs/backbones.md", "exec"), {})
