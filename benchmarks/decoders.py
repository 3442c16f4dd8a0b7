"""JPEG decoders: from the bytes of a file to a network's input, on one thread.

    python -m benchmarks.decoders FOLDER [--sides 256 1024 4000] [--rounds 5]

Photographs of FOLDER are enlarged to each side and saved as JPEG (quality 90). ``pillow`` is what `tl` does: decoding at 1/2 to
1/8 where that leaves twice the needed pixels, with checks of EXIF, color, damage and size. The others only decode and resize;
nvJPEG, on a GPU, resizes there. Wall time. "differs" is the mean difference from full decoding, in levels of 255.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from automl_tl.data.decode import to_input
from automl_tl.models.engines import load_pixels
from automl_tl.values import Preprocessing
from benchmarks.stages import enlarged
from benchmarks.timing import function, interleaved, machine

PREPROCESSING = Preprocessing(side_px=224, interpolation="bicubic")
SHORTER_PX = round(PREPROCESSING.side_px / PREPROCESSING.crop_fraction)
Pixels = NDArray[np.uint8]


def pillow(data: bytes) -> Pixels:
    return load_pixels(data, PREPROCESSING)


def pillow_in_full(data: bytes) -> Pixels:
    return to_input(Image.open(io.BytesIO(data)).convert("RGB"), PREPROCESSING)


def torchvision_in_full(data: bytes, device: str = "cpu") -> Pixels:
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms.v2 import functional

    image = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB, device=device)
    image = functional.resize(image, [SHORTER_PX], functional.InterpolationMode.BICUBIC, antialias=True)
    side_px = PREPROCESSING.side_px
    result: Pixels = functional.center_crop(image, [side_px, side_px]).permute(1, 2, 0).contiguous().cpu().numpy()
    return result


DECODERS: dict[str, Callable[[bytes], Pixels]] = {
    "pillow": pillow,
    "pillow, in full": pillow_in_full,
    "torchvision, in full": torchvision_in_full,
    "nvjpeg, in full": partial(torchvision_in_full, device="cuda"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare JPEG decoders.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 1024, 4000])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    decoders = {name: run for name, run in DECODERS.items() if torch.cuda.is_available() or not name.startswith("nvjpeg")}
    files = sorted(path for path in arguments.folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    print(f"{machine('pillow', 'torchvision')}; {arguments.rounds} interleaved rounds, one thread\n")
    print("| longest side, px | decoder | ms/image | relative to pillow | differs |\n| --- | --- | --- | --- | --- |")
    for side_px in arguments.sides:
        photographs = [enlarged(path, side_px) for path in files[:: max(1, len(files) // 24)][:24]]
        variants = {name: partial(function, partial(decode_all, run, photographs)) for name, run in decoders.items()}
        spent = interleaved(variants, arguments.rounds)
        reference = np.stack([pillow_in_full(data) for data in photographs]).astype(int)
        for name, run in decoders.items():
            differs = np.abs(np.stack([run(data) for data in photographs]) - reference).mean()
            milliseconds = 1000 * spent[name].wall_s / len(photographs)
            ratio = spent[name].wall_s / spent["pillow"].wall_s
            print(f"| {side_px} | {name} | {milliseconds:.1f} | {ratio:.2f} | {differs:.1f} |", flush=True)


def decode_all(run: Callable[[bytes], Pixels], photographs: list[bytes]) -> None:
    for data in photographs:
        run(data)


if __name__ == "__main__":
    main()
