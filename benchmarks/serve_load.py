"""`tl serve` under load: throughput beside `tl predict` on the same images, latency, errors, memory, promotions.

    python -m benchmarks.serve_load MODEL FOLDER [--clients 64] [--seconds 60] [--promote VERSION]

1. `tl predict`'s own predictor runs over the images again and again, in a process of its own, after a warm-up.
2. `tl serve MODEL@load` answers as many clients over loopback; they share the machine with the server. Both are repeated.
3. With --promote, the alias `load` is promoted to that version and rolled back, again and again, during one more run.

The alias `load` is created for this. Any answer other than 200 is an error. Memory is that of the server's process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple

from automl_tl.workflows.model import open_registry

WARM_UP_S = 3.0
MOVE_EVERY_S = 3.0
NUM_PROCESSES = 2  # of clients


class Load(NamedTuple):
    """What clients saw."""

    latencies_s: list[float]
    versions: Counter[str]
    errors: Counter[str]


def predict_for(model: str, folder: str, seconds: float) -> float:
    """Return the images per second of `tl predict`, start-up excluded."""
    from automl_tl.data.image_inputs import find_images
    from automl_tl.evaluation.abstention import make_policy
    from automl_tl.models.predictor import Predictor
    from automl_tl.workflows.model import load

    images, opened = find_images([folder]), load(model)
    names = list(images)
    policy = make_policy(opened.reference, opened.held_out, None)
    predictor = Predictor.for_many(opened.classifier, 10**6)
    started_s, done = time.perf_counter(), 0
    for done, _ in enumerate(predictor.predict((names[one % len(names)] for one in count()), images.read, policy=policy), 1):
        if done == 64:
            started_s = time.perf_counter()
        if done > 64 and time.perf_counter() - started_s > seconds:
            break
    return (done - 64) / (time.perf_counter() - started_s)


async def one_client(port: int, images: list[bytes], first: int, until_s: float, load: Load) -> None:
    """Send one image after the other over one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for number in count(first):
        if time.time() > until_s:
            break
        image = images[number % len(images)]
        sent_s = time.perf_counter()
        writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(image) + image)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
            await reader.readexactly(int(fields["content-length"]))
        except (OSError, asyncio.IncompleteReadError) as error:
            load.errors[type(error).__name__] += 1
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            continue
        load.latencies_s.append(time.perf_counter() - sent_s)
        if head[9:12] != b"200":
            load.errors[head[9:12].decode()] += 1
        load.versions[fields.get("x-model-version", "")] += 1
    writer.close()


def clients(port: int, folder: str, number: int, seed: int, seconds: float) -> Load:
    """Run ``number`` clients for ``seconds``."""
    images = [path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()]
    load = Load([], Counter(), Counter())

    async def all_clients() -> None:
        until_s = time.time() + seconds
        await asyncio.gather(*(one_client(port, images, seed + 37 * one, until_s, load) for one in range(number)))

    asyncio.run(all_clients())
    return load


def memory_mib(process: subprocess.Popen[str]) -> float:
    """Return the resident memory of a process."""
    fields = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    return int(fields.partition("VmRSS:")[2].split()[0]) / 1024


def run_load(port: int, folder: str, number: int, seconds: float) -> Load:
    """Run clients in a few processes."""
    share = number // NUM_PROCESSES
    with ProcessPoolExecutor(NUM_PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(clients, port, folder, share, 1000 * one, seconds) for one in range(NUM_PROCESSES)]
        loads = [job.result() for job in jobs]
    return Load(
        [latency for load in loads for latency in load.latencies_s],
        sum((load.versions for load in loads), Counter()),
        sum((load.errors for load in loads), Counter()),
    )


def tl(*arguments: str) -> None:
    """Run a command."""
    subprocess.run([sys.executable, "-m", "automl_tl", *arguments], check=True, capture_output=True)


def move_alias(name: str, version: str, stopped: Event) -> int:
    """Promote a version and roll back in turn, until ``stopped``; return the number of moves."""
    registry = open_registry(None)
    for number in count():
        if stopped.wait(MOVE_EVERY_S):
            return number
        if number % 2:
            registry.rollback(name, "load")
        else:
            registry.promote(f"{name}@{version}", "load", force=True, reason="benchmark")
    raise AssertionError


def show(title: str, load: Load, seconds: float, baseline: float) -> None:
    """Print one run."""
    per_s = len(load.latencies_s) / seconds
    cuts = statistics.quantiles(load.latencies_s, n=100)
    print(
        f"{title}: {per_s:.0f} images/s, {per_s / baseline:.0%} of tl predict; p50 {1000 * cuts[49]:.0f} ms, "
        f"p95 {1000 * cuts[94]:.0f} ms; {sum(load.errors.values())} errors {dict(load.errors)}; {dict(load.versions)}",
        flush=True,
    )


def main() -> None:
    """Print a line for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="NAME@VERSION")
    parser.add_argument("folder", help="folder of readable images only")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=2, help="of the predictor and the server in turn")
    parser.add_argument("--promote", metavar="VERSION", help="number of another version")
    arguments = parser.parse_args()
    name = arguments.model.partition("@")[0]
    tl("registry", "promote", arguments.model, "load", "--force", "--reason", "benchmark")

    serve = [sys.executable, "-m", "automl_tl", "serve", f"{name}@load", "--port", "0", "--json", "--no-access-log"]
    for number in range(arguments.rounds):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            baseline = pool.submit(predict_for, arguments.model, arguments.folder, arguments.seconds / 3).result()
        print(f"tl predict: {baseline:.0f} images/s", flush=True)
        with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True, encoding="utf-8") as server:
            assert server.stdout is not None
            text = ""
            while not text.endswith("}\n") and (line := server.stdout.readline()):
                text += line
            port = int(json.loads(text)["url"].rpartition(":")[2])
            run_load(port, arguments.folder, arguments.clients, WARM_UP_S)
            before_mib = memory_mib(server)
            load = run_load(port, arguments.folder, arguments.clients, arguments.seconds)
            show(f"tl serve, {arguments.clients} clients, {arguments.seconds:.0f} s", load, arguments.seconds, baseline)
            print(f"memory: {before_mib:.0f} MiB before, {memory_mib(server):.0f} MiB after", flush=True)
            if arguments.promote and number == 0:
                stopped, moves = Event(), [0]
                mover = Thread(target=lambda: moves.append(move_alias(name, arguments.promote, stopped)))  # noqa: B023
                mover.start()
                load = run_load(port, arguments.folder, arguments.clients, arguments.seconds)
                stopped.set()
                mover.join()
                show(f"with {moves[-1]} promotions and rollbacks", load, arguments.seconds, baseline)
                print(f"memory: {memory_mib(server):.0f} MiB", flush=True)
            server.terminate()
            print(f"exit code {server.wait()}", flush=True)


if __name__ == "__main__":
    main()
