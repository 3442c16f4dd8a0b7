from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from automl_tl.evaluation.reference_features import ReferenceFeatures, make_reference_features
from automl_tl.models.bundle import BundleFacts, Classifier
from automl_tl.models.heads import HeadShape, build_head
from automl_tl.reports import Explanation, render_explanations
from automl_tl.values import Preprocessing
from automl_tl.workflows.explain import _draw_heatmap, _explain_image

SIDE_PX = 32
JPEG = b"\xff\xd8\xff and so on"


class Redness(nn.Module):
    """Two channels: how red and how blue each patch of the image is."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, 3, H, W)`` to ``(B, 2, H / 4, W / 4)``."""
        red = nn.functional.avg_pool2d(x[:, :1] - x[:, 2:], 4)
        return torch.cat([torch.relu(red), torch.relu(-red)], dim=1)


class Mean(nn.Module):
    """Mean over height and width."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, h, w)`` to ``(B, C)``."""
        return x.mean(dim=(2, 3))


def classifier(*blocks: nn.Module) -> Classifier:
    shape = HeadShape(kind="trained", feature_dim=2, num_classes=2)
    head = build_head(shape)
    head.load_state_dict({"last.weight": torch.eye(2) * 30, "last.bias": torch.zeros(2)})
    facts = BundleFacts(
        classes=("red", "<b>blue</b>"),
        preprocessing=Preprocessing(side_px=SIDE_PX, mean=(0, 0, 0), std=(1, 1, 1)),
        backbone="tiny/redness",
        backbone_from="tests 0",
        strategy="by hand",
        head=shape,
        temperature=1.0,
    )
    return Classifier(nn.Sequential(*blocks).eval(), head.eval(), facts)


def red_corner() -> NDArray[np.uint8]:
    pixels = np.full((SIDE_PX, SIDE_PX, 3), 90, dtype=np.uint8)
    pixels[:12, :12] = (250, 20, 20)
    return pixels


def reference_features() -> ReferenceFeatures:
    features = np.concatenate([[[1.0, 0.0]], np.random.default_rng(0).uniform(0.4, 0.6, size=(60, 2))])
    return make_reference_features(features, np.zeros(61, dtype=int), tuple(f"{number}.jpg" for number in range(61)))


def explained(*blocks: nn.Module, path: str = "corner.png") -> tuple[Explanation, NDArray[np.float32]]:
    return _explain_image(classifier(*blocks), path, red_corner(), Path("001.jpg"), reference_features())


def test_explain_image_heat_is_on_the_evidence() -> None:
    explanation, heat = explained(Redness(), Mean())

    assert (explanation.label, explanation.method) == ("red", "Grad-CAM")
    assert heat.shape == (SIDE_PX, SIDE_PX)
    assert heat[:10, :10].mean() > 10 * heat[16:, 16:].mean()
    assert 0 <= heat.min() <= heat.max() <= 1


def test_explain_image_uses_occlusion_without_blocks() -> None:
    explanation, heat = explained(nn.Sequential(Redness(), Mean()))

    assert explanation.method == "occlusion"
    assert heat[:10, :10].mean() > 10 * heat[16:, 16:].mean()


def test_explain_image_gives_nearest_training_images_and_ood_score() -> None:
    explanation, _ = explained(Redness(), Mean())

    assert explanation.neighbors[0].path == "0.jpg"
    assert explanation.neighbors[0].distance < explanation.neighbors[1].distance
    assert explanation.ood_score > 1


def test_draw_heatmap_shows_the_image_twice() -> None:
    assert _draw_heatmap(red_corner(), np.zeros((SIDE_PX, SIDE_PX), dtype=np.float32)).size == (2 * SIDE_PX + 8, SIDE_PX)


def test_render_explanations_is_self_contained_and_escapes_names(tmp_path: Path) -> None:
    explanation, _ = explained(Redness(), Mean(), path="<script>.png")
    (tmp_path / "001.jpg").write_bytes(JPEG)

    page = render_explanations([explanation.model_copy(update={"heatmap": tmp_path / "001.jpg"})])

    assert "<script>" not in page
    assert "&lt;b&gt;blue&lt;/b&gt;" in page
    assert "data:image/jpeg;base64," in page
    assert "http" not in page.replace("http-equiv", "")
