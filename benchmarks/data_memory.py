"""Memory of `tl data check` and `tl data split` by the number of images, as whole processes.

    python -m benchmarks.data_memory 10000 100000

Writes distinct JPEGs of 32 px to class folders and runs the commands with an empty data directory. Memory is the largest
resident set of the command's processes, as the kernel reports it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.data_scan import write

COMMANDS = (("check",), ("split",), ("check", "--json"))
QUIET = [(os.POSIX_SPAWN_OPEN, descriptor, os.devnull, os.O_WRONLY, 0) for descriptor in (1, 2)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", nargs="+", type=int, help="of images")
    parser.add_argument("--side", type=int, default=32, help="of the images, px")
    parser.add_argument("--place", type=Path, help="folder for images and data directory; default: a temporary one")
    options = parser.parse_args()
    print(" images  command                 s   peak MiB")
    for number in options.numbers:
        with TemporaryDirectory(prefix="memory_", dir=options.place) as place:
            images = write(Path(place) / "images", options.side, number)
            for command in COMMANDS:
                print(f"{number:7}  {measure(command, images, Path(place) / 'home')}", flush=True)


def measure(command: tuple[str, ...], images: Path, home: Path) -> str:
    start = time.perf_counter()
    arguments = [str(Path(sys.executable).parent / "tl"), "data", *command, str(images)]
    process = os.posix_spawn(arguments[0], arguments, {**os.environ, "TL_HOME": str(home)}, file_actions=QUIET)
    _, status, usage = os.wait4(process, 0)
    name = " ".join(command) + (f", exit {code}" if (code := os.waitstatus_to_exitcode(status)) else "")
    return f"{name:16} {time.perf_counter() - start:8.1f} {usage.ru_maxrss / 2**10:10.0f}"


if __name__ == "__main__":
    main()
