"""One and two training processes: seconds, images per second, accuracy and digest of the same fine-tune, each fit twice.

    python -m benchmarks.distributed IMAGES [--processes 1 2] [--strategy full_finetune] [--backbone lite/efficientnet_lite0]

Each fit is a whole process with an empty data directory, so nothing is cached.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.timing import machine, process


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare fits by the number of training processes.")
    parser.add_argument("images", type=Path)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--strategy", default="full_finetune")
    parser.add_argument("--backbone", default="lite/efficientnet_lite0")
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    print(f"{machine('torch')}; {arguments.strategy} on {arguments.backbone}\n")
    columns = ("processes", "wall, s", "training, s", "refit, s", "accuracy, %", "95% CI, %", "digest")
    print(f"| {' | '.join(columns)} |\n|{' ---: |' * len(columns)}")
    for processes in arguments.processes:
        for _ in range(arguments.repeats):
            with TemporaryDirectory() as place:
                command = [sys.executable, "-m", "automl_tl", "auto", "fit", str(arguments.images), "--json"]
                command += ["--strategy", arguments.strategy, "--backbone", arguments.backbone, "--processes", str(processes)]
                spent = process(command, result=Path(place) / "outcome", home=Path(place) / "home")
                outcome = json.loads((Path(place) / "outcome").read_text())
            seconds, (low, high) = outcome["seconds_by_step"], outcome["test"]["interval"]
            accuracy = 100 * outcome["test"]["accuracy"]
            cells = (
                processes,
                f"{spent.wall_s:.0f}",
                f"{seconds['training']:.0f}",
                f"{seconds.get('refit', 0.0):.0f}",
                f"{accuracy:.1f}",
                f"{100 * low:.0f} to {100 * high:.0f}",
                outcome["model_digest"][:12],
            )
            print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
