"""Interleaved timing: variants take turns, so that a busy spell of the machine affects all of them. Not a benchmark itself."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from threading import TIMEOUT_MAX, Timer

KIB_PER_MIB = 1024


@dataclass(frozen=True)
class Resources:
    """Resources that one run used."""

    wall_s: float
    cpu_s: float  # of all cores
    peak_mib: float  # resident memory; 0: unknown


def function(run: Callable[[], object]) -> Resources:
    """Run ``act`` in this process."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    run()
    return Resources(time.perf_counter() - wall_s, time.process_time() - cpu_s, 0.0)


def process(
    command: Sequence[str],
    *,
    result: Path = Path(os.devnull),
    home: Path | None = None,
    log: Path = Path(os.devnull),
    limit_s: float = TIMEOUT_MAX,
) -> Resources:
    """Run ``command`` as a process and return what it used, as the kernel reports it.

    Args:
        command: with its arguments.
        result: receives stdout.
        home: ``TL_HOME``; by default that of this process.
        log: receives stderr.
        limit_s: after which the process is killed.

    Raises:
        SystemExit: it failed.
    """
    environment = os.environ | ({} if home is None else {"TL_HOME": str(home)})
    with result.open("w") as stdout, log.open("w") as stderr:
        began_s = time.perf_counter()
        child = subprocess.Popen(command, stdout=stdout, stderr=stderr, env=environment)
        watchdog = Timer(limit_s, child.kill)
        watchdog.daemon = True
        watchdog.start()
        _, status, used = os.wait4(child.pid, 0)
        watchdog.cancel()
        wall_s = time.perf_counter() - began_s
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {child.returncode}")
    return Resources(wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss / KIB_PER_MIB)


def interleaved(variants: Mapping[str, Callable[[], Resources]], rounds: int) -> dict[str, Resources]:
    """Return the medians over ``rounds`` rounds in which every variant runs once, after one round to warm up."""
    spent: dict[str, list[Resources]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, run in variants.items():
            one = run()
            if number:
                spent[name].append(one)
    return {name: medians(runs) for name, runs in spent.items()}


def medians(spent: Sequence[Resources]) -> Resources:
    """Return the median of each resource."""
    return Resources(*(median(figures) for figures in zip(*((s.wall_s, s.cpu_s, s.peak_mib) for s in spent), strict=True)))


def machine(*packages: str) -> str:
    """Describe this machine in one line, the header of every table."""
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    versions = "".join(f", {name} {version(name)}" for name in packages)
    return f"{platform.machine()}, {os.cpu_count()} cores, load {load}, Python {platform.python_version()}{versions}"
