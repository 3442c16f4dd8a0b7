"""Things timed in turns, so that a machine that is busy for a while is busy for all of them. Not a benchmark by itself."""

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

KIB_PER_MIB = 1024


@dataclass(frozen=True)
class Spent:
    """By one run of something."""

    wall_s: float
    cpu_s: float  # of all cores
    peak_mib: float  # of resident memory; 0 where it is not known


def function(act: Callable[[], object]) -> Spent:
    """Run ``act`` in this process."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    act()
    return Spent(time.perf_counter() - wall_s, time.process_time() - cpu_s, 0.0)


def process(command: Sequence[str], *, result: Path = Path(os.devnull), home: Path | None = None) -> Spent:
    """Run ``command`` as a process, its stdout into ``result``, ``TL_HOME`` at ``home``; the kernel says what it used."""
    environment = os.environ | ({} if home is None else {"TL_HOME": str(home)})
    with result.open("w") as stdout:
        began_s = time.perf_counter()
        child = subprocess.Popen(command, stdout=stdout, stderr=subprocess.DEVNULL, env=environment)
        _, status, used = os.wait4(child.pid, 0)
        wall_s = time.perf_counter() - began_s
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {child.returncode}")
    return Spent(wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss / KIB_PER_MIB)


def in_turns(acts: Mapping[str, Callable[[], Spent]], rounds: int) -> dict[str, Spent]:
    """Medians of ``rounds`` rounds in which every act has its turn; one round before is not counted."""
    spent: dict[str, list[Spent]] = {name: [] for name in acts}
    for number in range(rounds + 1):
        for name, act in acts.items():
            one = act()
            if number:
                spent[name].append(one)
    return {name: middle(all_of_it) for name, all_of_it in spent.items()}


def middle(spent: Sequence[Spent]) -> Spent:
    """Median of each figure."""
    return Spent(*(median(figures) for figures in zip(*((s.wall_s, s.cpu_s, s.peak_mib) for s in spent), strict=True)))


def machine(*packages: str) -> str:
    """A line about this machine, to stand above every table."""
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    versions = "".join(f", {name} {version(name)}" for name in packages)
    return f"{platform.machine()}, {os.cpu_count()} cores, load {load}, Python {platform.python_version()}{versions}"
