"""What installed plugins cost at start-up: whole `tl` processes with 0 and with 30 plugins, one after the other in turn.

python benchmarks/plugin_startup.py [RUNS]

Each of the 30 is a distribution of its own with a strategy, found through its metadata like any other. Variants are run in
turns, so that a machine that is busy for a while is busy for all; medians are compared.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

NUM_PLUGINS = 30
RUNS = 15
COMMANDS = (["--help"], ["registry", "list"], ["plugins", "list"])
ALLOWED = 1.3  # of `tl --help`, issue 7

MODULE = '''
from typing import ClassVar
from automl_tl.contracts import Expectation, Head, Recipe, Situation, Strategy

class Made(Strategy):
    """Made for a benchmark."""

    name: ClassVar[str] = "bench_{number}"
    summary: ClassVar[str] = "made for a benchmark"
    strength: float = 1.0

    def recipe(self, situation: Situation) -> Recipe:
        return Recipe(head=Head(solver="ridge"))

    def expect(self, situation: Situation) -> Expectation:
        return Expectation(suits=True, why="always possible")
'''
ENTRY_POINTS = "[automl_tl.contract]\nversion = v1\n[automl_tl.strategies]\nbench_{number} = tl_bench_{number}:Made\n"


def install(site: Path, number: int) -> None:
    (site / f"tl_bench_{number}.py").write_text(MODULE.format(number=number))
    info = site / f"tl_bench_{number}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tl-bench-{number}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS.format(number=number))


def seconds(arguments: list[str], site: Path) -> float:
    environment = {**os.environ, "PYTHONPATH": str(site), "TL_HOME": str(site / "home")}
    started_s = time.perf_counter()
    subprocess.run([sys.executable, "-m", "automl_tl", *arguments], env=environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started_s


def measure(runs: int) -> dict[tuple[str, int], list[float]]:
    """Seconds per command and number of plugins; the first round, which fills caches, is not counted."""
    taken: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        sites = {number: Path(folder) / str(number) for number in (0, NUM_PLUGINS)}
        for count, site in sites.items():
            site.mkdir()
            for number in range(count):
                install(site, number)
        for run in range(runs + 1):
            for command in COMMANDS:
                for count, site in sites.items():
                    spent_s = seconds(command, site)
                    if run:
                        taken.setdefault((" ".join(command), count), []).append(spent_s)
    return taken


def main(runs: int) -> None:
    taken = measure(runs)
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(
        f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores, load {load}, {runs} runs in turns"
    )
    print(f"| command | no plugins | {NUM_PLUGINS} plugins | ratio | allowed |")
    print("| --- | --- | --- | --- | --- |")
    for command in map(" ".join, COMMANDS):
        none_s, some_s = (median(taken[command, count]) for count in (0, NUM_PLUGINS))
        allowed = f"{ALLOWED}" if command == "--help" else "-"
        print(f"| `tl {command}` | {none_s:.3f} s | {some_s:.3f} s | {some_s / none_s:.2f} | {allowed} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS)
