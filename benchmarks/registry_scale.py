"""Registry with many versions: wall time of whole processes that list the last 50 versions or show one.

    python -m benchmarks.registry_scale --versions 10000 --repeats 9

Prints medians. The goal is 0.5 s per process at 10,000 versions. The registry is written to a temporary folder in one
transaction; every version has its own head and shares the encoder.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from automl_tl_registry import Facts, Manifest, Metrics, Registry, write_tensors
from automl_tl_registry.publication import drafted, enter
from automl_tl_registry.storage import Disk, chunks_of, digest_of
from automl_tl_registry.store import Store, utc_now
from benchmarks.timing import Resources, medians, process

CLASSES = [f"class {number}" for number in range(20)]
TL = "import sys; sys.argv = ['tl', 'registry', {}, '--registry', str(root)]; from automl_tl.cli import main; main()"
QUERIES = {
    "python -c pass": "pass",
    "import pydantic": "from pydantic import BaseModel, Field",
    "list, last 50": "print(*(each.ref for each in Registry(root).versions(last=50)), sep=chr(10))",
    "list, last 50 of one model, by accuracy": "print(len(Registry(root).versions('model-3', last=50, sort='accuracy')))",
    "show": "print(Registry(root).resolve('model-3').model_dump_json())",
    "show an alias, with its history": "r = Registry(root); print(r.resolve('model-3@production'), r.history('model-3'))",
    "tl registry list --last 50": TL.format("'list', '--last', '50'"),
    "tl registry show": TL.format("'show', 'model-3'"),
    "load (all digests)": "print(Registry(root).load('model-3').paths)",
}


def facts(number: int) -> Facts:
    accuracy = 0.5 + number % 400 / 1000
    return Facts(
        classes=CLASSES,
        preprocessing={"side_px": 224, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
        backbone="lite/lite0",
        strategy="linear-probe",
        model_digest=f"{number:064x}",
        metrics=Metrics(
            accuracy=accuracy,
            interval=(accuracy - 0.05, accuracy + 0.05),
            num_images=400,
            per_class={name: {"recall": accuracy, "num_images": 20} for name in CLASSES},
        ),
        latency_ms=12.0,
        plan={"candidates": [{"backbone": f"timm/{each}", "accuracy": 0.8, "why": "rejected: slower"} for each in range(8)]},
    )


def fill(root: Path, num_versions: int) -> float:
    """Write ``num_versions`` of ten models and return the seconds."""
    store = Store(root, Disk(), utc_now)
    files = {"encoder": root.with_name("encoder"), "head": root.with_name("head")}
    for path, num_bytes in zip(files.values(), (13_000_000, 100_000), strict=True):
        write_tensors(path, {"weight": np.zeros(num_bytes, np.uint8)})
    blobs = {role: digest_of(chunks_of(path)) for role, path in files.items()}
    begin = time.perf_counter()
    with drafted(store, "many", blobs) as folder:
        for role, blob in blobs.items():
            store.blobs.receive(chunks_of(files[role]), blob, staging=folder)
        with store.database.writing() as connection:
            for number in range(num_versions):
                name, version = f"model-{number % 10}", number // 10 + 1
                manifest = Manifest(
                    name=name, version=version, created_at=store.clock(), actor="benchmark", blobs=blobs, facts=facts(number)
                )
                enter(store, connection, folder, manifest)
    Registry(root).promote("model-3@1", "production", actor="benchmark")
    return time.perf_counter() - begin


def spent_on(code: str, root: Path, repeats: int) -> list[Resources]:
    """Return the resources of whole processes, after one to warm up."""
    program = f"root = {str(root)!r}; {'from automl_tl_registry import Registry; ' * ('Registry' in code)}{code}"
    return [process([sys.executable, "-c", program]) for _ in range(repeats + 1)][1:]


def main() -> None:
    parser = argparse.ArgumentParser(description="Times of whole processes on a registry with many versions.")
    parser.add_argument("--versions", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        root = Path(folder) / "registry"
        seconds = fill(root, options.versions)
        size = (root / "registry.sqlite").stat().st_size / 2**20
        print(
            f"{options.versions} versions, database {size:.0f} MiB, built in {seconds:.0f} s, "
            f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores; "
            f"whole processes, {options.repeats} repeats"
        )
        print(f"load average {os.getloadavg()[0]:.1f}; if above the number of cores, compare processor time")
        print(f"{'query':42} {'wall s':>8} {'min':>8} {'max':>8} {'processor s':>12}")
        for query, code in QUERIES.items():
            spent = spent_on(code, root, options.repeats)
            median, wall = medians(spent), [one.wall_s for one in spent]
            print(f"{query:42} {median.wall_s:8.3f} {min(wall):8.3f} {max(wall):8.3f} {median.cpu_s:12.3f}")


if __name__ == "__main__":
    main()
