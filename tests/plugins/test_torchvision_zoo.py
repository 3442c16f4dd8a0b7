"""torchvision's models keep the contract, and their weights arrive safely or with one clear line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from automl_tl_torchvision import backbones
from tests.plugins.zoo_checks import check_whole_contract

BY_NAME = {backbone.card.name.partition("/")[2]: backbone for backbone in backbones()}

# (model, side of the images): each family, and each variant that is built in another way. As small as the network takes.
QUICK = (
    ("convnext_tiny", 64),
    ("densenet121", 64),
    ("efficientnet_b0", 64),
    ("efficientnet_v2_s", 64),
    ("googlenet", 64),
    ("inception_v3", 96),
    ("mnasnet0_5", 64),
    ("mnasnet1_3", 64),
    ("mobilenet_v2", 64),
    ("mobilenet_v3_large", 64),
    ("mobilenet_v3_small", 64),
    ("regnet_x_400mf", 64),
    ("regnet_y_400mf", 64),
    ("resnet18", 64),
    ("resnet50", 64),
    ("shufflenet_v2_x0_5", 64),
    ("shufflenet_v2_x2_0", 64),
    ("squeezenet1_0", 64),
    ("squeezenet1_1", 64),
    ("swin_t", 64),
    ("swin_v2_t", 64),
)
WIDE = (
    ("alexnet", 64),
    ("efficientnet_b3", 64),
    ("maxvit_t", 224),
    ("resnext50_32x4d", 64),
    ("vgg11", 64),
    ("vit_b_32", 224),
)


@pytest.mark.parametrize(("model", "side_px"), [*QUICK, *(pytest.param(*row, marks=pytest.mark.slow) for row in WIDE)])
def test_blocks_and_head_are_the_network(model: str, side_px: int, tmp_path: Path) -> None:
    check_whole_contract(BY_NAME[model], side_px, tmp_path)


# -------------------------------------------------------------------------------------------------------------- cards


def test_cards_are_read_without_torch() -> None:
    code = "import sys, automl_tl_torchvision as p; assert len(p.backbones()) > 100; assert 'torch' not in sys.modules"

    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_classification_model_has_a_card_with_its_default_weights() -> None:
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


def test_a_license_is_named_only_where_the_weights_have_their_own() -> None:
    assert BY_NAME["resnet18"].card.license is None
    assert BY_NAME["vit_b_16.IMAGENET1K_SWAG_E2E_V1"].card.license == "CC-BY-NC-4.0"


def test_a_card_says_cached_once_the_checkpoint_is_in_torchs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_the_example_in_the_documentation_runs() -> None:
    text = (Path(__file__).parents[2] / "docs" / "backbones.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)

    assert examples
    for example in examples:
        exec(compile(example, "docs/backbones.md", "exec"), {})
