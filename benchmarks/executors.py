"""Executors: equal features on three nodes of which one is killed, overhead on one machine, memory of the driver, bench.

    python benchmarks/executors.py features --images 2000    # about 2 minutes; the goal is 20,000
    python benchmarks/executors.py overhead --images 2000
    python benchmarks/executors.py memory                    # 10,000 to 1,000,000 rows, about 1 minute
    python benchmarks/executors.py bench                     # eight cells, about 5 minutes

Needs the extra [ray]. Prints one line per figure. Results: docs/capacity.md.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from automl_tl.contracts import Answer, Job
from automl_tl.data.sources.lists import read_list
from automl_tl.data.workers import Workers
from automl_tl.executors.ray_cluster import RayExecutor
from automl_tl.models.bundle import build_encoder
from automl_tl.plugin_host import discover
from automl_tl.runtime.progress import Advance, Logged
from automl_tl.runtime.threads import batches, num_cores
from automl_tl.training.views import Origin, Prefix
from automl_tl.training.workspace import ActivationCache
from automl_tl.workflows.dataset import load_dataset

BACKBONE = "lite/efficientnet_lite0"
SIDE_PX = 256
ROWS = (10_000, 100_000, 1_000_000)
os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # as in the cluster of NODES, which has no token
os.environ["RAY_ADDRESS"] = "local"  # never a cluster that happens to run here
NODES = Path(__file__).parents[1] / "tests" / "executors" / "ray_nodes.py"


def write_images(folder: Path, number: int) -> Path:
    """Two classes of JPEG images of noise that differ in color."""
    rng = np.random.default_rng(0)
    for place in range(number):
        target = folder / ("red", "blue")[place % 2] / f"{place:06}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        small = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        small[..., 2 * (place % 2)] //= 2
        Image.fromarray(small).resize((SIDE_PX, SIDE_PX)).save(target, quality=85)
    return folder


@contextmanager
def three_nodes() -> Iterator[subprocess.Popen[str]]:
    """A cluster of three nodes that ``RayExecutor`` joins."""
    with subprocess.Popen(
        [sys.executable, str(NODES)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        os.environ["RAY_ADDRESS"] = process.stdout.readline().strip()
        yield process
        process.stdin.close()
        os.environ["RAY_ADDRESS"] = "local"


class KillingProgress(Logged):
    """Kills a node of a cluster once half of the features are there; counts them."""

    def __init__(self, process: subprocess.Popen[str] | None = None) -> None:
        self.process, self.num_done = process, 0

    @contextmanager
    def track(self, description: str, total: int) -> Iterator[Advance]:
        """See ``Progress``."""

        def advance(done: int) -> None:
            self.num_done += done
            if self.process and self.process.stdin and self.num_done >= total / 2:
                self.process.stdin.write("kill\n")
                self.process.stdin.flush()
                self.process = None

        yield advance


def extract(images: Path, cache: Path, executor: RayExecutor | None, progress: KillingProgress) -> tuple[Any, float]:
    """Features of all images, and the seconds to scan and extract."""
    backbone = discover().backbone(BACKBONE)
    encoder, started_s = build_encoder(backbone, pretrained=True), time.monotonic()
    os.environ["TL_HOME"] = str(cache)  # of the scan; another one would find its facts
    dataset = load_dataset(images, seed=0, executor=executor)
    everything = dataset.images["train"] + dataset.images["validation"] + dataset.images["test"]
    activations, origin = ActivationCache(cache, progress), Origin(BACKBONE, None)
    prefix = Prefix(encoder, backbone.card.preprocessing, activations, gives_features=True, origin=origin)
    return prefix.plain(everything).all(), time.monotonic() - started_s


def features(folder: Path, number: int) -> None:
    """Features on three nodes, one of them killed half-way, against local ones."""
    images = write_images(folder / "images", number)
    with three_nodes() as process:
        executor, progress = RayExecutor(), KillingProgress(process)
        there, seconds = extract(images, folder / "there", executor, progress)
        executor.close()
    here, local_s = extract(images, folder / "here", None, KillingProgress())
    print(f"{len(here)} images: local {local_s:.1f} s, three nodes with one killed {seconds:.1f} s")
    print(f"byte-equal: {np.array_equal(there, here)}; rows received {progress.num_done}, once each")


def overhead(folder: Path, number: int) -> None:
    """One machine, all cores: local against a cluster that is already there."""
    images = write_images(folder / "images", number)
    _, local_s = extract(images, folder / "here", None, KillingProgress())
    started_s = time.monotonic()
    executor = RayExecutor()
    start_s = time.monotonic() - started_s
    extract(write_images(folder / "first", 100), folder / "warm", executor, KillingProgress())
    _, ray_s = extract(images, folder / "there", executor, KillingProgress())
    executor.close()
    print(
        f"{number} images, {num_cores()} cores: local {local_s:.1f} s; ray {ray_s:.1f} s ({100 * (ray_s / local_s - 1):+.1f}%)"
    )
    print(f"start of the cluster {start_s:.1f} s; workers import PyTorch and load the network before the timed run")


def answer_zeros(job: Job) -> Answer:
    """As many features as the job has paths, without reading them: the driver does all that it would do."""
    content = bytes(4 * 1280 * len(job.arguments["paths"]))  # type: ignore[arg-type]
    return Answer(result={"shape": [len(content) // 5120, 1280]}, content=content, digest=sha256(content).hexdigest())


def memory(folder: Path, _: int) -> None:
    """Resident memory of the driver while features of a manifest's rows stream through it."""
    executor = RayExecutor()
    for number in ROWS:
        manifest = folder / f"{number}.csv"
        with manifest.open("w", newline="") as file:
            csv.writer(file).writerows([("path", "label"), *((f"images/{row:08}.jpg", row % 2) for row in range(number))])
        workers = Workers(executor, answer_zeros, str(manifest))
        rows = read_list(lambda path=manifest: path.open("rb"), manifest.name, manifest, with_labels=True)  # type: ignore[misc]
        jobs = (workers.job("features", paths=[row.path for row in chunk]) for chunk in batches(rows, 256))
        before, peak, received, started_s = resident_mib(), 0.0, 0, time.monotonic()
        for _job, answer in workers.run(jobs):
            received += len(np.frombuffer(answer.content, np.float32)) // 1280
            peak = max(peak, resident_mib())
        seconds = time.monotonic() - started_s
        print(f"{number} rows: {before:.0f} MiB before, {peak:.0f} MiB at most, {seconds:.1f} s, {received} rows received")
    executor.close()


def resident_mib() -> float:
    """Memory of this process alone: without the pages of Ray's object store, which are shared and limited by Ray."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1024


def bench(folder: Path, _: int) -> None:
    """Eight cells of `tl bench` on two workers against one after another."""
    write_images(folder / "images", 40)
    tables = []
    for options in ([], ["--on", "ray"]):
        command = [sys.executable, "-m", "automl_tl", "bench", str(folder / "images"), "--json", "--seeds", "4"]
        command += ["--backbone", BACKBONE, "--strategy", "linear_probe", "--strategy", "tail"]
        command += ["--out", str(folder / f"out{len(options)}"), *options]
        started_s = time.monotonic()
        cells = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        tables.append({(cell["backbone"], cell["strategy"], cell["seed"]): (cell["accuracy"], cell["error"]) for cell in cells})
        print(f"{' '.join(options) or 'local'}: {len(cells)} cells, {time.monotonic() - started_s:.0f} s")
    print(f"equal tables: {tables[0] == tables[1]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["features", "overhead", "memory", "bench"])
    parser.add_argument("--images", type=int, default=2000)
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        globals()[options.part](Path(folder), options.images)


if __name__ == "__main__":
    main()
