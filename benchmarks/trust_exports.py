"""Every export format of registered models: how far it agrees, what it weighs, how fast it is, and how good.

    python benchmarks/trust_exports.py MODEL=IMAGES [MODEL=IMAGES ...]

Runs ``tl export`` as a user would, format after format, each with every precision that it comes in. Figures are those that the
export's own program gave in a new process on up to 200 images of the test part.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PRECISIONS = {
    "onnx": ("fp32", "fp16", "int8"),
    "openvino": ("fp32", "fp16", "int8"),
    "torch-export": ("fp32",),
    "timm": ("fp32",),
    "torchvision": ("fp32",),
}
COLUMNS = "{:18s} {:14s} {:5s} {:>12s} {:>11s} {:>9s} {:>8s} {:>9s} {:>9s}"


def export(model: str, images: str, export_format: str, folder: Path) -> list[dict[str, Any]] | str:
    """What ``tl export`` tells, or its last words."""
    wanted = [word for precision in PRECISIONS[export_format] for word in ("--precision", precision)]
    command = [sys.executable, "-m", "automl_tl", "export", model, "--format", export_format, *wanted]
    done = subprocess.run(
        [*command, "--images", images, "--out", str(folder), "--json"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    made: list[dict[str, Any]] = json.loads(done.stdout)
    return made


def main() -> None:
    """Print one line per model, format and precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL=IMAGES")
    names = ("model", "format", "bits", "same label", "difference", "accuracy", "before", "MiB", "ms/image")
    print(COLUMNS.format(*names))
    for model, _, images in (given.partition("=") for given in parser.parse_args().models):
        for export_format in PRECISIONS:
            with tempfile.TemporaryDirectory(prefix="tl-exports-") as folder:
                made = export(model, images, export_format, Path(folder))
            if isinstance(made, str):
                print(f"{model:18s} {export_format:14s} {made}", flush=True)
                continue
            for one in made:
                print(
                    COLUMNS.format(
                        model,
                        export_format,
                        one["precision"],
                        f"{one['same_labels'] * one['num_images']:.0f} of {one['num_images']}",
                        f"{one['largest_difference']:.1e}",
                        f"{one['accuracy']:.1%}",
                        f"{one['reference_accuracy']:.1%}",
                        f"{one['size_mib']:.1f}",
                        f"{one['latency_ms']:.1f}",
                    ),
                    flush=True,
                )


if __name__ == "__main__":
    main()
