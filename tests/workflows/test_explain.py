from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from automl_tl.evaluation.reference_features import make_reference_features
from automl_tl.models.bundle import BundleFacts, Classifier
from automl_tl.models.heads import HeadShape, build_head
from automl_tl.values import Preprocessing
from automl_tl.workflows.explain import explain_image, to_html, to_picture

SIDE = 32


class Redness(nn.Module):
    """One channel: how red each eighth of the picture is."""

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
        preprocessing=Preprocessing(side_px=SIDE, mean=(0, 0, 0), std=(1, 1, 1)),
        backbone="tiny/redness",
        backbone_from="tests 0",
        strategy="by hand",
        head=shape,
        temperature=1.0,
    )
    return Classifier(nn.Sequential(*blocks).eval(), head.eval(), facts)


def red_corner() -> NDArray[np.uint8]:
    pixels = np.full((SIDE, SIDE, 3), 90, dtype=np.uint8)
    pixels[:12, :12] = (250, 20, 20)
    return pixels


def test_explain_image_heat_is_on_the_evidence() -> None:
    found = explain_image(classifier(Redness(), Mean()), "corner.png", red_corner())

    assert (found.label, found.method) == ("red", "Grad-CAM")
    assert found.heat.shape == (SIDE, SIDE)
    assert found.heat[:10, :10].mean() > 10 * found.heat[16:, 16:].mean()
    assert 0 <= found.heat.min() <= found.heat.max() <= 1


def test_explain_image_uses_occlusion_without_blocks() -> None:
    found = explain_image(classifier(nn.Sequential(Redness(), Mean())), "corner.png", red_corner())

    assert found.method == "occlusion"
    assert found.heat[:10, :10].mean() > 10 * found.heat[16:, 16:].mean()


def test_explain_image_gives_nearest_training_images_and_ood_score() -> None:
    generator = np.random.default_rng(0)
    features = np.concatenate([[[1.0, 0.0]], generator.uniform(0.4, 0.6, size=(60, 2))])
    reference = make_reference_features(features, np.zeros(61, dtype=int), tuple(f"{number}.jpg" for number in range(61)))

    found = explain_image(classifier(Redness(), Mean()), "corner.png", red_corner(), reference)

    assert found.neighbors[0].path == "0.jpg"
    assert found.neighbors[0].distance < found.neighbors[1].distance
    assert found.ood_score is not None
    assert found.ood_score > 1


def test_to_picture_shows_image_and_heat() -> None:
    found = explain_image(classifier(Redness(), Mean()), "corner.png", red_corner())

    assert to_picture(found).size == (2 * SIDE + 8, SIDE)


def test_to_html_is_self_contained_and_escapes_names() -> None:
    found = explain_image(classifier(Redness(), Mean()), "<script>.png", red_corner())

    page = to_html([found])

    assert "<script>" not in page
    assert "&lt;b&gt;blue&lt;/b&gt;" in page
    assert "http" not in page.replace("http-equiv", "")
