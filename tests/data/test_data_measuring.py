"""What is noted of a picture: by hand, as Pillow has it, and the same whatever it is described beside."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from automl_tl.data.measuring import describe, measure, see
from automl_tl.data.thumbnails import thumbnails
from tests.data.pictures import encoded, picture

SIDES = st.integers(1, 300)


def test_the_facts_are_those_computed_by_hand() -> None:
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


@settings(max_examples=30, deadline=None)
@given(sides=st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=6))
def test_company_changes_nothing(sides: list[tuple[int, int]]) -> None:
    data = [encoded(picture(seed, *side), "PNG") for seed, side in enumerate([*sides, *sides])]

    together = describe([see(one) for one in data])

    assert together == [measure(one) for one in data]


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (128, 128), (200, 256), (256, 90), (333, 500)])
def test_a_thumbnail_is_within_one_level_of_pillows(size: tuple[int, int]) -> None:
    luma = picture(7, *size).convert("L")

    small = thumbnails(np.asarray(luma)[None])

    expected = np.asarray(luma.resize((32, 32), Image.Resampling.LANCZOS, reducing_gap=2.0), dtype=int)
    assert np.abs(small[0] - expected).max() <= 1


def test_a_blank_picture_has_no_contrast_to_the_last_digit() -> None:
    facts = measure(encoded(Image.new("RGB", (256, 255), (251, 251, 251)), "PNG"))

    assert (facts["contrast"], facts["sharpness"], facts["color"]) == (0.0, 0.0, 0.0)
