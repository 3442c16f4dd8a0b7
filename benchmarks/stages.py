"""Feature extraction against its limits: decoding alone, the network alone, and both at once as `tl` runs them.

    python -m benchmarks.stages FOLDER [--sides 256 1024 4000] [--images 200] [--rounds 5]

Photographs of FOLDER are enlarged to each side and saved as JPEG (quality 90). The bound is the slower of the two alone; where
both compute on the same cores the sum of their processor times is a bound as well, and printed.
"""

from __future__ import annotations

import argparse
import io
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from automl_tl.models.bundle import build_encoder
from automl_tl.models.engines import BATCH_SIZE, Engine, embed, fastest_engine, load_pixels
from automl_tl.plugin_host import discover
from automl_tl.runtime.progress import QUIET
from automl_tl.runtime.threads import batches, in_order, num_cores
from automl_tl.values import Preprocessing
from benchmarks.timing import function, interleaved, machine


def main() -> None:
    parser = argparse.ArgumentParser(description="Feature extraction against its limits.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 1024, 4000])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--backbone", default="lite/efficientnet_lite0")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    backbone = discover().backbone(arguments.backbone)
    preprocessing, blocks = backbone.card.preprocessing, build_encoder(backbone, pretrained=True)
    files = sorted(path for path in arguments.folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    print(f"{machine('torch', 'openvino', 'pillow')}; {arguments.backbone}, {arguments.rounds} interleaved rounds\n")
    print("| longest side, px | images | decode, images/s | network | both | of the slower stage | of the core limit |")
    print(f"|{' --- |' * 7}")
    with TemporaryDirectory() as place:
        engine = fastest_engine(blocks, preprocessing, cache_dir=Path(place), num_images=10_000, progress=QUIET)
        for side_px in arguments.sides:
            count = arguments.images if side_px <= 1024 else arguments.images // 4
            photographs = {str(number): enlarged(path, side_px) for number, path in enumerate(islice(cycle(files), count))}
            compare(side_px, photographs, engine, preprocessing, arguments.rounds)


def compare(side_px: int, photographs: dict[str, bytes], engine: Engine, preprocessing: Preprocessing, rounds: int) -> None:
    names, read = list(photographs), photographs.__getitem__

    def load(name: str) -> NDArray[np.uint8]:
        return load_pixels(read(name), preprocessing)

    pixels = np.stack([load(name) for name in names[:BATCH_SIZE]])
    spent = interleaved(
        {
            "decode": lambda: function(lambda: list(in_order(names, load))),
            "network": lambda: function(lambda: [engine(pixels[: len(batch)]) for batch in batches(names, BATCH_SIZE)]),
            "both": lambda: function(lambda: list(embed(names, read, engine, preprocessing))),
        },
        rounds,
    )
    slower_s = max(spent["decode"].wall_s, spent["network"].wall_s)
    cores_s = max(slower_s, (spent["decode"].cpu_s + spent["network"].cpu_s) / num_cores())
    rates = " | ".join(f"{len(names) / spent[stage].wall_s:.0f}" for stage in ("decode", "network", "both"))
    both_s = spent["both"].wall_s
    print(f"| {side_px} | {len(names)} | {rates} | {slower_s / both_s:.0%} | {cores_s / both_s:.0%} |", flush=True)


def enlarged(path: Path, side_px: int) -> bytes:
    image = Image.open(path).convert("RGB")
    factor = side_px / max(image.size)
    stream = io.BytesIO()
    image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC).save(
        stream, "JPEG", quality=90
    )
    return stream.getvalue()


if __name__ == "__main__":
    main()
