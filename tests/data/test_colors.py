"""Deep pixels: one range for each image, which defects do not decide; 8-bit pixels stay as they are."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from automl_tl.data.colors import read_rgb, scale
from automl_tl.data.decode import UndecodableError, decode
from automl_tl.data.facts import measure
from automl_tl.exports.sample_files import KINDS as SAMPLE_KINDS
from tests.data.sample_images import encoded, sample_image

Deepen = Callable[[NDArray[np.uint16]], NDArray[np.uint16]]

COLOR = np.asarray(sample_image(1)).astype(np.uint16)
GRAY = np.asarray(sample_image(1).convert("L")).astype(np.uint16)
OPAQUE = np.full((*GRAY.shape, 1), 65535, np.uint16)


def contrast(values: NDArray[np.uint16]) -> float:
    return float(str(measure(encoded(Image.fromarray(values), "PNG")).fields["contrast"]))


def pixels(data: bytes) -> NDArray[np.int64]:
    return np.asarray(decode(data).image).astype(np.int64)


def png_16(values: NDArray[np.uint16], color_type: int, *extra: bytes) -> bytes:
    """A PNG of 16 bits per channel, which Pillow writes for gray only."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    chunks = (header, *extra, b"IDAT" + zlib.compress(rows), b"IEND")
    framed = (struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def tiff(
    values: NDArray[np.generic], order: Literal["<", ">"], *, photometric: int, planes: int = 1, nodata: bytes = b""
) -> bytes:
    """An uncompressed TIFF of any type of pixels."""
    height, width, channels = values.shape
    data = (values if planes == 1 else np.moveaxis(values, 2, 0)).astype(values.dtype.newbyteorder(order)).tobytes()
    bits, kind = 8 * values.dtype.itemsize, {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    numbers: dict[int, list[int]] = {256: [width], 257: [height], 258: [bits] * channels, 259: [1], 262: [photometric]}
    numbers |= {277: [channels], 278: [height], 284: [planes], 339: [kind] * channels}
    strips = channels if planes == 2 else 1
    numbers |= {273: [8 + at * len(data) // strips for at in range(strips)], 279: [len(data) // strips] * strips}
    fields = {tag: (4, len(entry), struct.pack(f"{order}{len(entry)}I", *entry)) for tag, entry in numbers.items()}
    if nodata:
        fields[42113] = (2, len(nodata), nodata)
    outside, entries, place = b"", b"", 8 + len(data) + 2 + 12 * len(fields) + 4
    for tag, (kind_of_field, count, packed) in sorted(fields.items()):
        if len(packed) > 4:
            packed, outside = struct.pack(f"{order}I", place + len(outside)), outside + packed
        entries += struct.pack(f"{order}HHI", tag, kind_of_field, count) + packed.ljust(4, b"\0")
    magic = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8 + len(data))
    return magic + data + struct.pack(f"{order}H", len(fields)) + entries + bytes(4) + outside


@pytest.mark.parametrize("unit", [1, 256, 257])
def test_decode_gives_8_bits_in_16_bit_file_unchanged(unit: int) -> None:
    assert (pixels(encoded(Image.fromarray(GRAY * unit), "PNG"))[..., 0] == GRAY).all()
    assert (pixels(png_16(COLOR * unit, 2)) == COLOR).all()
    assert (pixels(tiff(COLOR * unit, "<", photometric=2)) == COLOR).all()


@pytest.mark.parametrize("values", [GRAY.astype(np.float32), GRAY.astype(np.float32) / 255], ids=["to 255", "to 1"])
def test_decode_gives_8_bits_in_floats_unchanged(values: NDArray[np.float32]) -> None:
    assert (pixels(encoded(Image.fromarray(values), "TIFF"))[..., 0] == GRAY).all()


def test_decode_reads_all_bits_of_16_bit_colors() -> None:
    transparent = b"tRNS" + struct.pack(">HHH", *(COLOR[0, 0] * 16))

    for data in (
        png_16(COLOR * 16, 2),
        png_16(np.dstack([COLOR * 16, OPAQUE]), 6),
        tiff(COLOR * 16, "<", photometric=2),
        tiff(COLOR * 16, ">", photometric=2),
    ):
        assert np.abs(pixels(data) - COLOR).max() <= 1  # without the low bits they would be black
    assert np.abs(pixels(png_16(np.dstack([GRAY * 16, OPAQUE]), 4))[..., 0] - GRAY).max() <= 1
    assert pixels(png_16(COLOR * 16, 2, transparent))[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("value", [0, 5000, 65535])
@pytest.mark.parametrize("size", [8, 28, 48])
@pytest.mark.parametrize(
    "deepen", [lambda v: v * 16, lambda v: 51200 + v * 4, lambda v: 3000 + v], ids=["12 bits", "thermal", "256 levels"]
)
def test_decode_is_not_moved_by_hot_or_dead_pixels(
    deepen: Callable[[NDArray[np.uint16]], NDArray[np.uint16]], size: int, value: int
) -> None:
    clean = deepen(np.asarray(sample_image(1, size, size).convert("L")).astype(np.uint16))
    rows, columns = np.random.default_rng(0).integers(size, size=(2, max(1, size * size // 200)))
    broken = clean.copy()
    broken[rows, columns] = value

    difference = np.abs(pixels(encoded(Image.fromarray(clean), "PNG")) - pixels(encoded(Image.fromarray(broken), "PNG")))
    difference[rows, columns] = 0

    assert difference.max() <= 16


@pytest.mark.parametrize("line", [np.s_[5], np.s_[:, 7], np.s_[10:12, 10:12]], ids=["row", "column", "cluster"])
def test_decode_is_not_moved_by_lines_and_clusters_of_defects(line: tuple[slice, ...]) -> None:
    clean = 51200 + GRAY * 4
    broken = clean.copy()
    broken[line] = 65535

    difference = np.abs(pixels(encoded(Image.fromarray(clean), "PNG")) - pixels(encoded(Image.fromarray(broken), "PNG")))

    assert np.count_nonzero(difference.max(axis=2) > 4) <= broken[line].size


def test_decode_of_large_image_is_not_moved_by_any_hot_pixel() -> None:
    clean = 3000 + np.asarray(sample_image(1, 1500, 1200).convert("L")).astype(np.uint16)
    broken = clean.copy()
    broken[::97, ::89] = 65535

    levels, _ = scale(clean)
    difference = np.abs(scale(broken)[0].astype(int) - levels)
    difference[::97, ::89] = 0

    assert difference.max() <= 2
    assert (levels.min(), levels.max()) == (0, 255)


def test_decode_stretches_narrow_range_and_says_so() -> None:
    decoded = decode(encoded(Image.fromarray(51200 + GRAY * 4), "PNG"))

    gray = np.asarray(decoded.image)[..., 0]
    assert (gray.min(), gray.max()) == (0, 255)
    assert decoded.remarks[0].startswith("stretched to its own range (51")
    assert contrast(51200 + GRAY * 4) > 0.1


def test_decode_keeps_small_bright_objects() -> None:
    values = np.full((400, 400), 500, np.uint16)
    values[100:106, 100:106] = 3000  # 0.02% of the pixels

    gray = pixels(encoded(Image.fromarray(values), "PNG"))[..., 0]

    assert gray[103, 103] - gray[0, 0] > 100


def test_decode_does_not_stretch_noise_of_blank_image() -> None:
    noise = np.random.default_rng(0).integers(30_000, 30_006, size=(64, 64)).astype(np.uint16)

    assert contrast(noise) < 0.02


@pytest.mark.parametrize("missing", [np.nan, np.inf, -9999, -3.4e38])
def test_decode_ignores_missing_values(missing: float) -> None:
    values = 20 + GRAY.astype(np.float32)[..., None] / 100
    values[:20] = missing

    gray = pixels(tiff(values, "<", photometric=1, nodata=b"-9999\0"))[..., 0]

    assert not gray[:20].any()
    assert gray[20:].std() > 40


@pytest.mark.parametrize(
    ("values", "order"),
    [(GRAY.astype(np.int16) - 1000, "<"), (GRAY.astype(np.int32) * 1000 + 2**30, ">"), (GRAY.astype(np.uint32) * 2**24, "<")],
    ids=["signed 16 bits", "32 bits", "unsigned 32 bits"],
)
def test_decode_stretches_whole_numbers_of_other_types(values: NDArray[np.generic], order: Literal["<", ">"]) -> None:
    gray = pixels(tiff(values[..., None], order, photometric=1))[..., 0]

    assert np.corrcoef(gray.ravel(), GRAY.ravel())[0, 1] > 0.999


def test_decode_inverts_deep_tiff_whose_white_is_zero() -> None:
    gray = pixels(tiff(GRAY[..., None] * 16, "<", photometric=0))[..., 0]

    assert np.abs(gray - (255 - GRAY)).max() <= 1


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (tiff(COLOR * 16, "<", photometric=2, planes=2), "separate planes"),
        (tiff(COLOR.astype(np.float32), "<", photometric=2), "3 channels of 32-bit floats"),
        (tiff(np.dstack([COLOR, COLOR]), ">", photometric=2), "6 channels of 16-bit whole numbers"),
    ],
    ids=["planes", "float colors", "channels"],
)
def test_decode_refuses_tiff_that_pillow_would_misread(data: bytes, detail: str) -> None:
    with pytest.raises(UndecodableError, match=detail) as caught:
        decode(data)

    assert caught.value.reason == "unsupported"


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_scale_keeps_order_of_values(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    kind = data.draw(st.sampled_from([np.uint16, np.int32, np.float32]))
    top = data.draw(st.sampled_from([1, 300, 5000, 65535]))
    values = (np.random.default_rng(data.draw(st.integers(0, 99))).random((height, width)) * top).astype(kind)

    levels, _ = scale(values)

    order = np.argsort(values.ravel(), kind="stable")
    assert (np.diff(levels.ravel()[order].astype(int)) >= 0).all()


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def translucent(width: int, height: int) -> Image.Image:
    image = sample_image(1, width, height)
    image.putalpha(sample_image(2, width, height).convert("L"))
    return image


SEEN_BY_EXPORTS = {
    "RGB of 16 bits": png_16(COLOR * 16, 2),
    "12 bits in 16": encoded(Image.fromarray(51200 + GRAY * 4), "PNG"),
    "upside down": encoded(sample_image(1), exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x03\0\0\0\0\0\0"),
    "damaged EXIF": encoded(sample_image(1), exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"),
    "palette of alpha": encoded(sample_image(1).convert("RGBA").quantize(32), "PNG"),
    "gray and alpha": encoded(sample_image(1).convert("LA"), "PNG"),
    "large JPEG": encoded(sample_image(1, 900, 700)),
    "large CMYK": encoded(sample_image(1, 900, 700).convert("CMYK"), "TIFF"),
    "large palette": encoded(sample_image(1, 900, 700).quantize(64), "PNG"),
    "large animation": encoded(
        sample_image(1, 900, 700), "GIF", save_all=True, append_images=[sample_image(2, 900, 700)], loop=0
    ),
    "one bit": encoded(sample_image(1).convert("1"), "PNG"),
    "color that is transparent": encoded(sample_image(1).quantize(8).convert("RGB"), "PNG", transparency=(0, 0, 0)),
    "gray of 16 bits and alpha": png_16(np.dstack([GRAY * 99, OPAQUE - GRAY[..., None] * 200]), 4),
    "RGB of 16 bits and alpha": png_16(np.concatenate([COLOR * 201, OPAQUE - GRAY[..., None] * 200], axis=2), 6),
    "large and translucent": encoded(translucent(900, 700), "PNG"),
    "translucent WebP": encoded(translucent(90, 70), "WEBP", lossless=True),
    "inverted TIFF": tiff((GRAY * 16)[..., None], "<", photometric=0),
    "first of several": encoded(sample_image(1), "PNG", save_all=True, append_images=[sample_image(2)]),
    "PNG turned by EXIF": encoded(sample_image(1), "PNG", exif=orientation(8)),
    "WebP turned by EXIF": encoded(sample_image(1), "WEBP", exif=orientation(5)),
    "damaged metadata": png_16(COLOR * 16, 2, b"iCCP" + b"profile\0\0" + zlib.compress(bytes(10_000_000))[:50]),
    **{
        f"{file_format} file": encoded(sample_image(1), file_format)
        for file_format in ("BMP", "PPM", "JPEG2000", "AVIF", "ICO")
    },
    **{f"{name}, sample": encode(sample_image(1)) for name, encode in SAMPLE_KINDS.items()},
}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("side_px", [20, 4000])
@pytest.mark.parametrize("kind", SEEN_BY_EXPORTS)
def test_read_rgb_of_exports_equals_decode(kind: str, side_px: int, tmp_path: Path) -> None:
    data = SEEN_BY_EXPORTS[kind]
    file = tmp_path / "image"
    file.write_bytes(data)

    assert np.array_equal(np.asarray(read_rgb(str(file), side_px)), np.asarray(decode(data, side_px=side_px).image))


def test_read_rgb_of_exports_equals_decode_of_heic(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    data = encoded(sample_image(1, 64, 64), "HEIF", quality=80)
    (tmp_path / "image").write_bytes(data)

    assert np.array_equal(np.asarray(read_rgb(str(tmp_path / "image"), 20)), np.asarray(decode(data, side_px=20).image))


@pytest.mark.parametrize(
    "data",
    [
        encoded(sample_image(1), "TGA"),
        encoded(sample_image(1), "EPS"),
        encoded(sample_image(1), "PNG")[:900],
        encoded(sample_image(1))[:700],
        b"words",
        b"",
    ],
    ids=["TGA", "EPS", "truncated PNG", "truncated JPEG", "text", "empty"],
)
def test_read_rgb_of_exports_refuses_what_decode_refuses(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(data)

    with pytest.raises(UndecodableError):
        decode(data)
    with pytest.raises((OSError, SyntaxError)):
        read_rgb(str(tmp_path / "image"), 20)
