"""The short way for small JPEGs gives what Pillow would have given, or leaves the file to Pillow."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from automl_tl.data import decoding
from automl_tl.data.decoding import Decoded, UndecodableError, decode
from automl_tl.data.plain_jpegs import MOST_PIXELS, plain_jpeg
from tests.data.pictures import encoded, picture


def by_pillow(data: bytes, monkeypatch: pytest.MonkeyPatch) -> Decoded:
    with monkeypatch.context() as patched:
        patched.setattr(decoding, "plain_jpeg", lambda *_: None)
        return decode(data)


def told(decoded: Decoded) -> dict[str, object]:
    return {name: getattr(decoded, name) for name in Decoded.__slots__ if name != "picture"} | {
        "pixels": decoded.pixels.tobytes()
    }


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    "options",
    [{}, {"quality": 30}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True}, {"restart_marker_blocks": 2}],
)
@pytest.mark.parametrize("size", [(1, 1), (7, 300), (64, 48), (255, 257)])
def test_pixels_and_facts_are_those_of_pillow(
    mode: str, options: dict[str, Any], size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(picture(1, *size).convert(mode), **options)

    assert plain_jpeg(data, inf)
    assert told(decode(data)) == told(by_pillow(data, monkeypatch))


def exif() -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = 6
    return made


@pytest.mark.parametrize(
    "data",
    [
        encoded(picture(1), exif=exif()),
        encoded(picture(1), xmp=b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'),
        encoded(picture(1), "MPO", save_all=True, append_images=[picture(2)]),
        encoded(picture(1).convert("CMYK")),
        encoded(picture(1), keep_rgb=True),
        encoded(picture(1), "PNG"),
        encoded(picture(1))[:-200],
        encoded(picture(1, MOST_PIXELS // 512, 513)),
        b"\xff\xd8\xff",
        b"",
    ],
    ids=["exif", "xmp", "mpo", "cmyk", "rgb", "png", "truncated", "large", "start", "empty"],
)
def test_what_is_not_plain_is_left_to_pillow(data: bytes) -> None:
    assert plain_jpeg(data, inf) is None


def test_a_picture_that_is_wanted_smaller_is_left_to_pillow() -> None:
    data = encoded(picture(1, 300, 200))

    assert plain_jpeg(data, 200)
    assert plain_jpeg(data, 199) is None


@given(st.integers(0, 2**32 - 1))
def test_damage_is_judged_as_before(seed: int) -> None:
    generator = np.random.default_rng(seed)
    data = bytearray(encoded(picture(seed % 100)))
    for at in generator.integers(len(data), size=generator.integers(1, 10)):
        data[at] = generator.integers(256)

    with pytest.MonkeyPatch.context() as monkeypatch:
        try:
            expected = told(by_pillow(bytes(data), monkeypatch))
        except UndecodableError:
            assert plain_jpeg(bytes(data), inf) is None
        else:
            assert told(decode(bytes(data))) == expected
