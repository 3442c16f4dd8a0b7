"""Facts about an image, computed by hand, and the cache."""

from __future__ import annotations

import numpy as np
from PIL import Image

from automl_tl.data.facts import measure
from tests.data.sample_images import encoded


def test_measure_matches_manual_computation() -> None:
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    pixels[1, 1] = (200, 200, 200)
    pixels[2, 2] = (255, 0, 0)  # luma 76

    facts = measure(encoded(Image.fromarray(pixels), "PNG")).fields

    luma = np.zeros(16)
    luma[5], luma[10] = 200, 76
    assert facts["brightness"] == round(luma.mean() / 255, 4)
    assert facts["contrast"] == round(luma.std() / 255, 4)
    assert facts["color"] == round(1 / 16, 4)
    assert facts["sharpness"] == round(float(np.var([-800, 276, 276, -304])), 2)


def test_measure_gives_blank_image_zero_contrast() -> None:
    facts = measure(encoded(Image.new("RGB", (256, 255), (251, 251, 251)), "PNG")).fields

    assert (facts["contrast"], facts["sharpness"], facts["color"]) == (0.0, 0.0, 0.0)
