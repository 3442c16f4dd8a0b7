"""Scan speed per image and core, in threads and processes, with and without a cache, and its memory.

    python benchmarks/data_scan.py --kinds 32:20000 256:4000 4000:40 --workers 1 2

Writes JPEGs, ``side:number``, of smooth colors and noise to a temporary folder; below 200 px all images differ. ``decode`` is
the lower bound: Pillow reads and decodes the same images with as many workers. Processor time is summed over all processes and,
unlike wall time, hardly depends on the load of the machine; "times decode" is the ratio of both to the bound of as many workers
(of one worker for later rows). "cached": with a cache, as `tl` scans. Memory is the peak of this process so far, without
workers, so only one kind at a time is comparable; data_memory.py measures whole commands.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import PIL
from PIL import Image

from automl_tl.data import Thumbnails, audit_index, index, open_source, scan

NUM_DIFFERENT = 400
MOST_IN_THREADS = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=["32:20000", "256:4000", "4000:40"])
    parser.add_argument("--workers", nargs="+", type=int, default=[1, os.cpu_count() or 1])
    parser.add_argument("--audit", action="store_true", help="also time the audit")
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, python {platform.python_version()}, Pillow {PIL.__version__}")
    print("side px  images  how                   s  images/s  processor ms/image  times decode:  in s   MiB")
    for kind in options.kinds:
        side, number = map(int, kind.split(":"))
        with TemporaryDirectory(prefix="scan_") as place:
            measure(Path(place), side, number, options)


def measure(place: Path, side: int, number: int, options: argparse.Namespace) -> None:
    root = write(place / "images", side, number)
    source = open_source(root)

    bounds: dict[int, tuple[float, float]] = {}

    def report(how: str, start: tuple[float, float], workers: int = 1) -> None:
        wall_s, processor_s = time.perf_counter() - start[0], used_s() - start[1]
        bound = bounds.setdefault(workers, (wall_s, processor_s))  # decoding comes first
        speed = f"{wall_s:6.1f} {number / wall_s:9.0f} {1000 * processor_s / number:19.3f}"
        times = f"{processor_s / bound[1]:9.2f} {wall_s / bound[0]:7.2f}"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        print(f"{side:7} {number:7}  {how:17} {speed} {times} {peak:5.0f}", flush=True)

    files = [str(file) for file in root.rglob("*.jpg")]
    for workers in options.workers:
        start = now()
        decode_all(files, workers)
        report(f"decode, {workers}", start, workers)
    for workers in options.workers:
        for how, processes_from in (("threads", number + 1), ("processes", 1)):
            if (how == "threads" or workers > 1) and not (how == "threads" and number > MOST_IN_THREADS):
                index.PROCESSES_FROM = processes_from  # type: ignore[misc]
                start = now()
                scan(source, workers=workers)
                report(f"{how}, {workers}", start, workers)
    start = now()
    scan(source, cache_dir=place / "cache")
    report("first, cached", start, options.workers[-1])
    thumbnails, start = Thumbnails(), now()
    dataset_index = scan(source, cache_dir=place / "cache", thumbnails=thumbnails)
    report("second, cached", start)
    if options.audit:
        start = now()
        audit_index(dataset_index, thumbnails)
        report("audit", start)


def decode_all(files: Sequence[str], workers: int) -> None:
    chunks = [files[start : start + index.PROCESS_CHUNK] for start in range(0, len(files), index.PROCESS_CHUNK)]
    if workers == 1:
        for chunk in chunks:
            decode(chunk)
    else:
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            list(pool.map(decode, chunks))


def decode(files: Sequence[str]) -> None:
    for file in files:
        Image.open(BytesIO(Path(file).read_bytes())).load()


def now() -> tuple[float, float]:
    """Return wall and processor seconds."""
    return time.perf_counter(), used_s()


def used_s() -> float:
    """Return the processor seconds of this process and of its finished children."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def write(root: Path, side: int, number: int) -> Path:
    for label in ("ants", "bees"):
        (root / label).mkdir(parents=True)
    images = random_jpegs(side)
    pool = [] if side < 200 else [next(images) for _ in range(min(number, NUM_DIFFERENT if side < 1000 else 4))]
    for at in range(number):
        # Bytes after the end of the image make every digest unique.
        data = (pool[at % len(pool)] if pool else next(images)) + at.to_bytes(4, "big")
        (root / ("ants", "bees")[at % 2] / f"{at:06}.jpg").write_bytes(data)
    return root


def random_jpegs(side: int) -> Iterator[bytes]:
    generator = np.random.default_rng(0)
    while True:
        coarse = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        pixels = np.asarray(Image.fromarray(coarse).resize((side, side * 3 // 4), Image.Resampling.BICUBIC), dtype=np.int16)
        noisy = np.clip(pixels + generator.normal(0, 12, pixels.shape), 0, 255).astype(np.uint8)
        buffer = BytesIO()
        Image.fromarray(noisy).save(buffer, "JPEG", quality=90)
        yield buffer.getvalue()


if __name__ == "__main__":
    main()
