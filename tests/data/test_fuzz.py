"""Damaged files: each is decoded or rejected, quickly, in bounded memory. ``FUZZ_IMAGES=2000`` makes it thorough."""

from __future__ import annotations

import os
import resource
from time import perf_counter

import numpy as np
from PIL import Image

from automl_tl.data.decode import quiet_pillow
from automl_tl.data.facts import measure
from tests.data.sample_images import encoded, sample_image

NUM_IMAGES = int(os.environ.get("FUZZ_IMAGES", "100"))
MAX_S = 5.0
MAX_MIB = 1500  # the largest image that is decoded has 89 million pixels, 341 MiB as RGB


def originals() -> list[bytes]:
    image, small = sample_image(1, 120, 90), sample_image(2, 40, 30)
    frames = {"save_all": True, "append_images": [sample_image(3, 40, 30), sample_image(4, 40, 30)]}
    return [
        encoded(image, "JPEG"),
        encoded(image, "JPEG", progressive=True),
        encoded(image.convert("CMYK"), "JPEG"),
        encoded(image, "PNG"),
        encoded(image.convert("RGBA"), "PNG"),
        encoded(image.convert("P"), "PNG"),
        encoded(Image.fromarray(np.arange(4800, dtype=np.uint16).reshape(60, 80) * 13), "PNG"),
        encoded(small, "PNG", **frames),
        encoded(small, "GIF", **frames),
        encoded(image, "WEBP"),
        encoded(small, "WEBP", **frames),
        encoded(image, "BMP"),
        encoded(image, "TIFF", compression="tiff_lzw"),
        encoded(small, "TIFF", **frames),
        encoded(image.convert("F"), "TIFF"),
        encoded(image, "JPEG2000"),
        encoded(image, "PPM"),
        encoded(small, "ICO"),
        encoded(small, "PCX"),
    ]


def damaged(data: bytes, generator: np.random.Generator) -> bytes:
    """One to three kinds of damage: bits flipped, a piece cut off, taken out, overwritten, moved, or blown up."""
    pixels = bytearray(data)
    for kind in generator.integers(0, 6, size=generator.integers(1, 4)):
        at = int(generator.integers(0, max(1, len(pixels))))
        length = int(generator.integers(1, 1 + max(1, len(pixels) // 4)))
        if kind == 0:
            for place in generator.integers(0, max(1, len(pixels)), size=generator.integers(1, 30)):
                pixels[place : place + 1] = bytes(
                    byte ^ (1 << int(generator.integers(8))) for byte in pixels[place : place + 1]
                )
        elif kind == 1:
            del pixels[at:]
        elif kind == 2:
            del pixels[at : at + length]
        elif kind == 3:
            pixels[at : at + length] = generator.bytes(len(pixels[at : at + length]))
        elif kind == 4:
            pixels[at:at] = pixels[:length]
        else:  # headers hold the sizes: make them huge
            place = int(generator.integers(0, min(60, max(1, len(pixels)))))
            pixels[place : place + 2] = b"\xff\xff"
    return bytes(pixels)


def test_measure_decodes_or_rejects_damaged_files_in_time_and_memory() -> None:
    generator = np.random.default_rng(int(os.environ.get("FUZZ_SEED", "0")))
    files = originals()
    outcomes: dict[str, int] = {}
    slowest_s = 0.0
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with quiet_pillow():
        for number in range(NUM_IMAGES):
            data = damaged(files[number % len(files)], generator)
            start = perf_counter()
            outcome = measure(data).reason or "decoded"
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            slowest_s = max(slowest_s, perf_counter() - start)
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib) / 2**10

    print(f"{NUM_IMAGES} damaged files: {outcomes}, slowest {slowest_s:.2f} s, memory grew by {grown_mib:.0f} MiB")
    assert sum(outcomes.values()) == NUM_IMAGES
    assert slowest_s < MAX_S
    assert grown_mib < MAX_MIB
