"""Decoding: every file becomes an upright 8-bit RGB image, or an error with a reason."""

from __future__ import annotations

import struct
import sys
import zlib
from datetime import datetime
from io import BytesIO

import numpy as np
import PIL
import pytest
from PIL import Image

from automl_tl.data.colors import FORMATS
from automl_tl.data.decode import DAMAGED, MAX_PIXELS, NO_METADATA, UndecodableError, decode, quiet_pillow, to_input
from automl_tl.values import Preprocessing
from tests.data.sample_images import encoded, sample_image

WHITE = (255, 255, 255)
PNG, JPEG = encoded(sample_image(1), "PNG"), encoded(sample_image(1))
JPEG_SIZE = JPEG.index(b"\xff\xc0")


def corners(image: Image.Image) -> list[tuple[int, ...]]:
    """Mean color of the four quarters, clockwise from the upper left."""
    w, h = image.width // 2, image.height // 2
    boxes = ((0, 0, w, h), (w, 0, 2 * w, h), (w, h, 2 * w, 2 * h), (0, h, w, 2 * h))
    return [tuple(np.asarray(image.crop(box)).reshape(-1, 3).mean(axis=0).round().astype(int).tolist()) for box in boxes]


def quarters() -> Image.Image:
    """Red, green, blue, white, clockwise from the upper left; 32 x 16 px."""
    image = Image.new("RGB", (32, 16), WHITE)
    for box, color in (((0, 0, 16, 8), (255, 0, 0)), ((16, 0, 32, 8), (0, 255, 0)), ((16, 8, 32, 16), (0, 0, 255))):
        image.paste(color, box)
    return image


def png_of_declared_size(width: int, height: int) -> bytes:
    """A PNG that declares its size and holds hardly any data."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (header, b"IDAT" + zlib.compress(b"\0" * 100), b"IEND")
    packed = (struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_decode_applies_exif_orientation(orientation: int) -> None:
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transpositions that a viewer would take back
    image = quarters()
    stored = image if orientation == 1 else image.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation

    decoded = decode(encoded(stored, "PNG", exif=exif))

    assert (decoded.width_px, decoded.height_px) == decoded.image.size == (32, 16)
    assert corners(decoded.image) == corners(image)
    assert any("EXIF" in remark for remark in decoded.remarks) == (orientation > 1)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_decode_blends_transparency_on_white(mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0)).convert(mode)

    decoded = decode(encoded(image, "PNG"))

    assert decoded.image.getcolors() == [(64, WHITE)]
    assert decoded.remarks == ("transparency on white",)


def test_decode_blends_transparent_palette_color_on_white() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([255, 0, 0, 0, 255, 0])

    assert decode(encoded(image, "PNG", transparency=1)).image.getcolors() == [(64, WHITE)]
    assert decode(encoded(image, "PNG")).image.getcolors() == [(64, (0, 255, 0))]


@pytest.mark.parametrize(
    ("pixels", "format_name", "expected"),
    [
        (np.array([[0, 32768], [65535, 257]], dtype=np.uint16), "PNG", [[0, 128], [255, 1]]),
        (np.array([[0, 2048], [4095, 16]], dtype=np.uint16), "PNG", [[0, 128], [255, 1]]),
        (np.array([[0, 7], [255, 16]], dtype=np.uint16), "PNG", [[0, 7], [255, 16]]),
        (np.array([[0, 0.5], [1, 0.25]], dtype=np.float32), "TIFF", [[0, 128], [255, 64]]),
        (np.array([[0, 100], [255, 3]], dtype=np.float32), "TIFF", [[0, 100], [255, 3]]),
        (np.array([[-1, 0], [1, np.nan]], dtype=np.float32), "TIFF", [[0, 128], [255, 0]]),
        (np.array([[0, 100_000], [200_000, 0]], dtype=np.int32), "TIFF", [[0, 128], [255, 0]]),
    ],
    ids=["16 bits", "12 in 16 bits", "8 in 16 bits", "floats to 1", "floats to 255", "floats with nan", "32 bits"],
)
def test_decode_scales_deep_pixels_by_smallest_common_range(
    pixels: np.ndarray[tuple[int, int], np.dtype[np.generic]], format_name: str, expected: list[list[int]]
) -> None:
    decoded = decode(encoded(Image.fromarray(pixels), format_name))

    assert np.asarray(decoded.image)[:, :, 0].tolist() == expected


@pytest.mark.parametrize("mode", ["L", "1", "CMYK", "LAB", "YCbCr", "P"])
def test_decode_converts_color_modes_to_rgb(mode: str) -> None:
    image = sample_image(1).convert("L").convert("RGB")
    format_name = "JPEG" if mode in ("CMYK", "YCbCr") else "TIFF"
    stored = Image.merge("LAB", (image.getchannel("R"), *2 * [Image.new("L", image.size, 128)])) if mode == "LAB" else image

    decoded = decode(encoded(stored.convert(mode) if mode != "LAB" else stored, format_name))

    difference = np.abs(np.asarray(decoded.image, dtype=float) - np.asarray(image)).mean()
    assert decoded.image.mode == "RGB"
    assert difference < (150 if mode == "1" else 25)


@pytest.mark.parametrize("format_name", ["GIF", "PNG", "WEBP", "TIFF"])
def test_decode_takes_first_frame_with_remark(format_name: str) -> None:
    frames = [Image.new("RGB", (16, 16), color) for color in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]

    decoded = decode(encoded(frames[0], format_name, save_all=True, append_images=frames[1:]))

    red, green, blue = np.asarray(decoded.image).reshape(-1, 3).mean(axis=0)
    assert (red > 240, green < 15, blue < 15) == (True, True, True)
    assert decoded.num_frames == 3
    assert decoded.remarks == ("first frame (of 3)",)


def test_decode_reduces_large_jpeg() -> None:
    data = encoded(sample_image(1, 1600, 1200))

    decoded = decode(data, side_px=64)

    assert decoded.image.size == (200, 150)
    assert (decoded.width_px, decoded.height_px) == (1600, 1200)


@pytest.mark.parametrize("side", [10_000, 65_500, 2**31 - 1])
def test_decode_refuses_bomb_by_declared_size(side: int) -> None:
    with pytest.raises(UndecodableError) as caught:
        decode(png_of_declared_size(side, side))

    assert caught.value.reason == "too_many_pixels"


def test_decode_accepts_largest_allowed_size() -> None:
    side = int(MAX_PIXELS**0.5)

    with pytest.raises(UndecodableError) as caught:
        decode(png_of_declared_size(side, side))

    assert caught.value.reason == "truncated"


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        (b"", "empty", "0 bytes"),
        (b"hello, I am text" * 10, "not_an_image", "plain text"),
        (b"<!DOCTYPE html><html>", "not_an_image", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1\n", "not_an_image", "git lfs pull"),
        (b"%PDF-1.7", "not_an_image", "PDF"),
        (b"\0\0\0\x14ftypqt  " + bytes(40), "not_an_image", "video"),
        (b"\0\0\0\x18ftypmp42" + bytes(40), "not_an_image", "video"),
        (bytes(128) + b"DICM" + bytes(40), "unsupported", "DICOM"),
        (bytes(344) + b"n+1\0", "unsupported", "NIfTI"),
        (b"\x93NUMPY\1\0", "unsupported", "NumPy"),
        (b"8BPS\0\1" + bytes(40), "unsupported", "Photoshop"),
        (b"\xff\x0a" + bytes(40), "unsupported", "JPEG XL"),
        (b"<?xml version='1.0'?><svg>", "unsupported", "SVG"),
        (bytes(500), "not_an_image", "only zero bytes"),
        (PNG[:29] + b"bad!" + PNG[33:], "damaged", "header"),
        (JPEG[: JPEG_SIZE + 4] + b"\x0c" + JPEG[JPEG_SIZE + 5 :], "unsupported", "12-bit"),
        (b"\x00\x01\x02\x03" * 20, "not_an_image", ""),
        (encoded(sample_image(1, 200, 200), "PNG")[:2000], "truncated", "2,000 bytes"),
        (encoded(sample_image(1, 200, 200))[:1000], "truncated", "1,000 bytes"),
        (b"\0\0\0\x18ftypheic" + bytes(20), "needs_plugin", "pip install"),
        (b"..", "not_an_image", ""),
    ],
)
def test_decode_gives_reason_for_other_files(data: bytes, reason: str, detail: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as without the extra [heic]

    with pytest.raises(UndecodableError) as caught:
        decode(data)

    assert caught.value.reason == reason
    assert detail in caught.value.detail


def test_decode_ignores_bytes_after_end_of_jpeg() -> None:
    data = encoded(sample_image(1))

    assert decode(data + bytes(1000)).image.tobytes() == decode(data).image.tobytes()


def noisy_jpeg(seed: int) -> bytes:
    """A JPEG with so much detail that its data is long."""
    pixels = np.random.default_rng(seed).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), exif=with_thumbnail())


def with_thumbnail() -> bytes:
    """EXIF with a JPEG in it, as cameras write it."""
    return b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0" + encoded(sample_image(5, 32, 24))


def test_decode_remarks_on_damaged_jpegs() -> None:
    noticed = 0
    generator = np.random.default_rng(0)
    for seed in range(20):
        data = bytearray(noisy_jpeg(seed))
        for place in generator.integers(len(data) // 2, len(data) - 100, size=20):
            data[place] = 0x55
        noticed += DAMAGED in decode(bytes(data)).remarks

    assert noticed >= 15


def test_decode_remarks_on_png_with_wrong_checksum_of_pixels() -> None:
    assert decode(PNG[:-30] + bytes(8) + PNG[-22:]).remarks == (DAMAGED,)
    assert decode(PNG + b"junk" * 5).remarks == ()


@pytest.mark.parametrize("tail", [b"", bytes(500), b"\xff\xd9" * 50, encoded(sample_image(7))])
@pytest.mark.parametrize("side_px", [None, 8])
def test_decode_does_not_call_intact_jpegs_damaged(tail: bytes, side_px: int | None) -> None:
    for data in (
        noisy_jpeg(0),
        encoded(sample_image(1)),
        encoded(sample_image(1), progressive=True),
        encoded(sample_image(1), restart_marker_blocks=2),
    ):
        assert decode(data + tail, side_px=side_px).remarks == ()


def test_decode_reads_time_and_camera_from_exif() -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Maker", "Model 1"
    exif.get_ifd(0x8769)[0x9003] = "2024:05:06 07:08:09"

    decoded = decode(encoded(sample_image(1), exif=exif))

    assert (decoded.captured_at, decoded.camera) == (datetime(2024, 5, 6, 7, 8, 9), "Maker Model 1")


def test_decode_ignores_broken_exif() -> None:
    data = encoded(sample_image(1))
    nonsense = b"\xff\xe1\x00\x20Exif\0\0" + b"MM\0*" + b"\xff" * 20

    with quiet_pillow():
        decoded = decode(data[:2] + nonsense + data[2:])

    assert (decoded.captured_at, decoded.camera) == (None, None)


@pytest.mark.parametrize(
    "chunk",
    [
        *(kind + b"k\0\0" + zlib.compress(bytes(3_000_000)) for kind in (b"zTXt", b"iCCP")),
        b"iTXtk\0\1\0\0\0" + zlib.compress(bytes(3_000_000)),
        *(b"pHYs1", b"cHRM1", b"iCCPname\0\7", b"tEXtbroken"),
    ],
    ids=lambda chunk: chunk[:4].decode(),
)
def test_decode_skips_metadata_of_png_that_pillow_refuses(chunk: bytes) -> None:
    checksum = 0 if chunk.startswith(b"tEXt") else zlib.crc32(chunk)
    framed = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", checksum)

    decoded = decode(PNG[:33] + framed + PNG[33:])

    assert decoded.image.tobytes() == decode(PNG).image.tobytes()
    assert decoded.remarks == (NO_METADATA,)


@pytest.mark.parametrize("field", range(0, 60, 4))
def test_decode_reads_first_image_of_mpo_with_broken_index(field: int) -> None:
    data = bytearray(encoded(sample_image(1), "MPO", save_all=True, append_images=[sample_image(2)]))
    place = data.index(b"MPF\0") + field
    data[place : place + 4] = b"\xff\xff\xff\xff"

    with quiet_pillow():
        decoded = decode(bytes(data))

    assert decoded.image.tobytes() == decode(encoded(sample_image(1))).image.tobytes()


@pytest.mark.parametrize("options", [{"big_tiff": True}, {"save_all": True, "append_images": [sample_image(2)]}])
def test_decode_reads_big_and_multi_page_tiff(options: dict[str, object]) -> None:
    assert decode(encoded(sample_image(1), "TIFF", **options)).image.tobytes() == sample_image(1).tobytes()


def test_decode_reads_inverted_cmyk_of_adobe() -> None:
    image = sample_image(1)

    difference = np.asarray(decode(encoded(image.convert("CMYK"), quality=95)).image, dtype=float) - np.asarray(image)

    assert np.abs(difference).mean() < 2


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (224, 224), (50, 40)])
def test_to_input_equals_resize_and_center_crop(size: tuple[int, int]) -> None:
    image = sample_image(1, *size)
    scale = 256 / min(size)
    scaled = image.resize((round(size[0] * scale), round(size[1] * scale)), Image.Resampling.BICUBIC)
    left, top = (scaled.width - 224) // 2, (scaled.height - 224) // 2

    pixels = to_input(image, Preprocessing(side_px=224, crop_fraction=0.875))

    expected = np.asarray(scaled.crop((left, top, left + 224, top + 224)), dtype=float)
    assert pixels.shape == (224, 224, 3)
    assert np.abs(pixels - expected).mean() < 1.0


@pytest.mark.parametrize("size", [(4000, 3), (3, 4000), (1, 1)])
def test_to_input_accepts_extreme_shapes(size: tuple[int, int]) -> None:
    pixels = to_input(Image.new("RGB", size, (10, 20, 30)), Preprocessing(side_px=224))

    assert pixels.reshape(-1, 3).tolist() == [[10, 20, 30]] * 224 * 224


def test_decode_does_not_depend_on_global_limit_of_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)

    assert decode(encoded(sample_image(1))).image.size == (64, 48)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(BytesIO(encoded(sample_image(1))))


@pytest.mark.parametrize("name", FORMATS)
def test_pillow_has_the_table_of_formats_that_decode_reads(name: str) -> None:
    Image.init()
    factory, accept = Image.OPEN[name]

    assert callable(factory), f"Pillow {PIL.__version__} has no factory of {name} in Image.OPEN, which `decode` reads"
    assert accept is None or accept(bytes(16)) in (True, False, None), f"Pillow {PIL.__version__} accepts {name} otherwise"


def test_decode_reports_missing_avif_support(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(sample_image(1), "AVIF")
    assert decode(data).format == "AVIF"
    monkeypatch.setitem(Image.OPEN, "AVIF", (None, lambda head: "AVIF support not installed"))

    with pytest.raises(UndecodableError) as caught:
        decode(data)

    assert caught.value.reason == "needs_plugin"


def test_decode_reads_heic() -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="the extra [heic] is not installed")
    encoded_image = BytesIO()
    pillow_heif.from_pillow(sample_image(1)).save(encoded_image)

    decoded = decode(encoded_image.getvalue())

    assert decoded.format == "HEIF"
    assert decoded.image.size == sample_image(1).size
