"""Compare engines: the time to build and to load, and how fast they then run.

    python -m benchmarks.engines FOLDER [--backbone lite/efficientnet_lite0] [--rounds 5]

FOLDER holds photographs. The constants of ``automl_tl.models.engines`` come from here.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from torch import nn

from automl_tl.models.bundle import build_encoder
from automl_tl.models.engines import BATCH_SIZE, EagerEngine, Engine, Normalize, OpenVinoEngine, load_pixels
from automl_tl.plugin_host import discover
from benchmarks.timing import Resources, function, interleaved, machine


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare engines.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", default="lite/efficientnet_lite0")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    backbone = discover().backbone(arguments.backbone)
    preprocessing, blocks = backbone.card.preprocessing, build_encoder(backbone, pretrained=True)
    files = sorted(path for path in arguments.folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    pixels = np.stack([load_pixels(path.read_bytes(), preprocessing) for path in files[:BATCH_SIZE]])
    engines: dict[str, Engine] = {"eager": EagerEngine(blocks, preprocessing)}
    building_s = []
    with TemporaryDirectory() as place:
        for _ in range(2):
            began_s = time.perf_counter()
            network = nn.Sequential(Normalize(preprocessing), blocks).eval()
            engines["openvino"] = OpenVinoEngine(network, Path(place) / "openvino", preprocessing.side_px)
            building_s.append(time.perf_counter() - began_s)
        speeds = {size: timed(engines, pixels[:size], arguments.rounds) for size in (BATCH_SIZE, 4, 1)}
    print(f"{machine('torch', 'openvino')}; {arguments.backbone}, {arguments.rounds} interleaved rounds\n")
    print("| engine | build, s | reload, s | ms/image, batch | speed-up | processor ms | four, ms | one, ms | differs by |")
    print(f"|{' --- |' * 9}")
    expected = engines["eager"](pixels)
    for name, engine in engines.items():
        built = [f"{seconds:.1f}" for seconds in (building_s if name == "openvino" else (0.0, 0.0))]
        many, four, one = (speeds[size][name] for size in (BATCH_SIZE, 4, 1))
        print(
            f"| {name} | {' | '.join(built)} | {1000 * many.wall_s / BATCH_SIZE:.1f} "
            f"| {speeds[BATCH_SIZE]['eager'].wall_s / many.wall_s:.1f} | {1000 * many.cpu_s / BATCH_SIZE:.1f} "
            f"| {1000 * four.wall_s:.1f} | {1000 * one.wall_s:.1f} | {np.abs(engine(pixels) - expected).max():.1g} |"
        )


def timed(engines: dict[str, Engine], pixels: NDArray[np.uint8], rounds: int) -> dict[str, Resources]:
    return interleaved({name: partial(function, partial(engine, pixels)) for name, engine in engines.items()}, rounds)


if __name__ == "__main__":
    main()
