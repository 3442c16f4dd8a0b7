"""How fast a scan is: per image and core, in threads and in processes, a second time, and how much memory it takes.

    python benchmarks/data_scan.py --kinds 32:20000 256:4000 4000:40 --workers 1 2

Makes JPEGs with the content of noise of falling frequency, ``side:number``, in a temporary folder. ``decode`` is what the same
images cost when they are only decoded by Pillow, one after the other: the bound that the issue names. Memory is the growth of
this process; run one kind at a time to compare.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import time
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import PIL
from PIL import Image

from automl_tl.data import audit, open_source, parallel, scan

NUM_DIFFERENT = 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=["32:20000", "256:4000", "4000:40"])
    parser.add_argument("--workers", nargs="+", type=int, default=[1, os.cpu_count() or 1])
    parser.add_argument("--audit", action="store_true", help="also time the audit")
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, python {platform.python_version()}, Pillow {PIL.__version__}")
    print("side px  images  how                   s  images/s  MiB")
    for kind in options.kinds:
        side, number = map(int, kind.split(":"))
        with TemporaryDirectory(prefix="scan_") as place:
            measure(Path(place), side, number, options)


def measure(place: Path, side: int, number: int, options: argparse.Namespace) -> None:
    root = write(place / "images", side, number)
    source = open_source(root)

    def told(how: str, start: float) -> None:
        seconds = time.perf_counter() - start
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        print(f"{side:7} {number:7}  {how:17} {seconds:6.1f} {number / seconds:9.0f} {grown:4.0f}", flush=True)

    start = time.perf_counter()
    for file in root.rglob("*.jpg"):
        Image.open(BytesIO(file.read_bytes())).load()
    told("decode, 1", start)
    for workers in options.workers:
        for how, processes_from in (("threads", number + 1), ("processes", 1)):
            if how == "threads" or workers > 1:
                parallel.PROCESSES_FROM = processes_from  # type: ignore[misc]
                start = time.perf_counter()
                scan(source, num_workers=workers)
                told(f"{how}, {workers}", start)
    scan(source, cache_dir=place / "cache")
    start = time.perf_counter()
    index = scan(source, cache_dir=place / "cache")
    told("a second time", start)
    if options.audit:
        start = time.perf_counter()
        audit(index)
        told("audit", start)


def write(root: Path, side: int, number: int) -> Path:
    generator = np.random.default_rng(0)
    different = []
    for _ in range(min(number, NUM_DIFFERENT if side < 1000 else 4)):
        coarse = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        pixels = np.asarray(Image.fromarray(coarse).resize((side, side * 3 // 4), Image.Resampling.BICUBIC), dtype=np.int16)
        noisy = np.clip(pixels + generator.normal(0, 12, pixels.shape), 0, 255).astype(np.uint8)
        buffer = BytesIO()
        Image.fromarray(noisy).save(buffer, "JPEG", quality=90)
        different.append(buffer.getvalue())
    for label in ("ants", "bees"):
        (root / label).mkdir(parents=True)
    for at in range(number):
        # A comment after the end makes every file's digest its own.
        data = different[at % len(different)] + at.to_bytes(4, "big")
        (root / ("ants", "bees")[at % 2] / f"{at:06}.jpg").write_bytes(data)
    return root


if __name__ == "__main__":
    main()
