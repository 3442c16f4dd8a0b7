"""Every strategy on one backbone, over datasets and seeds: test accuracy, seconds, peak memory.

    python benchmarks/strategies.py FOLDER... --backbone lite/efficientnet_lite0 --seeds 3 --out regret

Each cell is its own process with an empty cache. Cells are saved in ``--out`` and shared with planner_regret.py.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean

from automl_tl.plugin_host import discover
from automl_tl.values import BenchCell
from automl_tl.workflows.bench import bench


def main() -> None:
    parser = argparse.ArgumentParser(description="A table of strategies by dataset.")
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--backbone", default="lite/efficientnet_lite0")
    parser.add_argument("--strategy", action="append", help="default: all installed strategies")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("regret"))
    arguments = parser.parse_args()
    strategies = arguments.strategy or list(discover().strategies)
    cells = []
    for folder in arguments.folders:
        options = {"backbones": [arguments.backbone], "strategies": strategies, "num_seeds": arguments.seeds}
        for cell in bench(folder, **options, out=arguments.out):
            print(
                f"{cell.images} {cell.strategy} {cell.seed}: {cell.accuracy} in {cell.seconds} s {cell.error or ''}", flush=True
            )
            cells.append(cell)
    print(f"\n{arguments.backbone}, {arguments.seeds} seeds; {platform.machine()}, {os.cpu_count()} cores")
    names = [folder.name for folder in arguments.folders]
    print_table("test accuracy, %", cells, strategies, names, lambda cell: 100 * (cell.accuracy or 0), "{:.1f}")
    print_table("seconds of the whole fit", cells, strategies, names, lambda cell: cell.seconds or 0, "{:.0f}")
    print_table("peak memory, MiB", cells, strategies, names, lambda cell: cell.memory_mib or 0, "{:.0f}")


def print_table(
    title: str,
    cells: Sequence[BenchCell],
    strategies: Sequence[str],
    names: Sequence[str],
    of: Callable[[BenchCell], float],
    form: str,
) -> None:
    """Print a table with a row per strategy and a column per dataset, means over seeds."""
    print(f"\n{title}\n\n| strategy | {' | '.join(names)} | mean |\n| --- |{' --- |' * (len(names) + 1)}")
    for strategy in strategies:
        values = [
            mean([of(cell) for cell in cells if (cell.images, cell.strategy) == (name, strategy) and not cell.error] or [0.0])
            for name in names
        ]
        print(f"| {strategy} | {' | '.join(map(form.format, values))} | {form.format(mean(values))} |")


if __name__ == "__main__":
    main()
