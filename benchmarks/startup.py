"""Start-up of whole `tl` processes, compared with starting Python and importing torch.

    python -m benchmarks.startup MODEL IMAGE [--rounds 9]

MODEL is in the registry at TL_HOME.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from benchmarks.timing import interleaved, machine, process


def main() -> None:
    parser = argparse.ArgumentParser(description="Start-up of whole processes.")
    parser.add_argument("model")
    parser.add_argument("image", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    tl = [sys.executable, "-m", "automl_tl"]
    commands = {
        "python -c ''": [sys.executable, "-c", ""],
        "python -c 'import torch'": [sys.executable, "-c", "import torch"],
        "tl --help": [*tl, "--help"],
        "tl registry list": [*tl, "registry", "list"],
        "tl plugins list": [*tl, "plugins", "list"],
        "tl predict, one image": [*tl, "predict", arguments.model, str(arguments.image)],
    }
    spent = interleaved({name: partial(process, command) for name, command in commands.items()}, arguments.rounds)
    print(f"{machine('torch', 'typer')}; medians of {arguments.rounds} interleaved rounds\n")
    print("| process | wall, s | processor, s | peak, MiB |\n| --- | --- | --- | --- |")
    for name, one in spent.items():
        print(f"| `{name}` | {one.wall_s:.2f} | {one.cpu_s:.2f} | {one.peak_mib:.0f} |")


if __name__ == "__main__":
    main()
