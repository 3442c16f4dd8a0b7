"""What is noted of a picture: by hand, and as Pillow has it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from automl_tl.data.measuring import measure, thumbnail
from tests.data.pictures import encoded, picture


def test_measure_matches_manual_computation() -> None:
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    pixels[1, 1] = (200, 200, 200)
    pixels[2, 2] = (255, 0, 0)  # luma 76

    facts = measure(encoded(Image.fromarray(pixels), "PNG"))

    luma = np.zeros(16)
    luma[5], luma[10] = 200, 76
    assert facts["brightness"] == round(luma.mean() / 255, 4)
    assert facts["contrast"] == round(luma.std() / 255, 4)
    assert facts["color"] == round(1 / 16, 4)
    assert facts["sharpness"] == round(float(np.var([-800, 276, 276, -304])), 2)


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (128, 128), (200, 256), (256, 90), (333, 500)])
def test_thumbnail_is_within_one_level_of_pillow(size: tuple[int, int]) -> None:
    luma = picture(7, *size).convert("L")

    small = thumbnail(np.asarray(luma))

    expected = np.asarray(luma.resize((32, 32), Image.Resampling.LANCZOS, reducing_gap=2.0), dtype=int)
    assert np.abs(small - expected).max() <= 1


def test_measure_gives_blank_image_zero_contrast() -> None:
    facts = measure(encoded(Image.new("RGB", (256, 255), (251, 251, 251)), "PNG"))

    assert (facts["contrast"], facts["sharpness"], facts["color"]) == (0.0, 0.0, 0.0)
