"""Start-up cost of installed plugins: whole `tl` processes with 0 and with 30 plugins, interleaved.

python -m benchmarks.plugin_startup [RUNS]

Each of the 30 is a distribution with one strategy, found through its metadata like any other. Medians are compared.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.timing import Resources, interleaved, machine, process

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


def measure(runs: int) -> dict[str, Resources]:
    """By command and number of plugins, ``--help 30``."""
    variants = {}
    with tempfile.TemporaryDirectory() as folder:
        sites = {number: Path(folder) / str(number) for number in (0, NUM_PLUGINS)}
        for count, site in sites.items():
            site.mkdir()
            for number in range(count):
                install(site, number)
        for command in COMMANDS:
            for count, site in sites.items():
                tl = ["env", f"PYTHONPATH={site}", sys.executable, "-m", "automl_tl", *command]
                variants[f"{' '.join(command)} {count}"] = partial(process, tl, home=site / "home")
        return interleaved(variants, runs)


def main(runs: int) -> None:
    taken = measure(runs)
    print(f"{machine()}, {runs} interleaved runs")
    print(f"| command | no plugins | {NUM_PLUGINS} plugins | ratio | allowed |")
    print("| --- | --- | --- | --- | --- |")
    for command in map(" ".join, COMMANDS):
        none_s, some_s = (taken[f"{command} {count}"].wall_s for count in (0, NUM_PLUGINS))
        allowed = f"{ALLOWED}" if command == "--help" else "-"
        print(f"| `tl {command}` | {none_s:.3f} s | {some_s:.3f} s | {some_s / none_s:.2f} | {allowed} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else RUNS)
