"""Export formats of registered models: agreement with the original, size, latency and accuracy.

    python benchmarks/trust_exports.py MODEL=IMAGES [MODEL=IMAGES ...]

Runs ``tl export`` for every format and precision. Each export is checked in a new process on up to 200 test images.
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
    "hf": ("fp32",),
    "torchvision": ("fp32",),
}
COLUMNS = "{:18s} {:14s} {:5s} {:>12s} {:>11s} {:>9s} {:>8s} {:>9s} {:>9s}"


def export(model: str, images: str, export_format: str, folder: Path) -> list[dict[str, Any]] | str:
    """Return the JSON of ``tl export``, or its last error line."""
    precisions = [word for precision in PRECISIONS[export_format] for word in ("--precision", precision)]
    command = [sys.executable, "-m", "automl_tl", "export", model, "--format", export_format, *precisions]
    run = subprocess.run(
        [*command, "--images", images, "--out", str(folder), "--json"], capture_output=True, text=True, check=False
    )
    if run.returncode:
        return run.stderr.strip().splitlines()[-1]
    exports: list[dict[str, Any]] = json.loads(run.stdout)
    return exports


def main() -> None:
    """Print one line per model, format and precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL=IMAGES")
    names = ("model", "format", "bits", "same label", "difference", "accuracy", "before", "MiB", "ms/image")
    print(COLUMNS.format(*names))
    for model, _, images in (argument.partition("=") for argument in parser.parse_args().models):
        for export_format in PRECISIONS:
            with tempfile.TemporaryDirectory(prefix="tl-exports-") as folder:
                exports = export(model, images, export_format, Path(folder))
            if isinstance(exports, str):
                print(f"{model:18s} {export_format:14s} {exports}", flush=True)
                continue
            for row in exports:
                print(
                    COLUMNS.format(
                        model,
                        export_format,
                        row["precision"],
                        f"{row['same_labels'] * row['num_images']:.0f} of {row['num_images']}",
                        f"{row['largest_difference']:.1e}",
                        f"{row['accuracy']:.1%}",
                        f"{row['reference_accuracy']:.1%}",
                        f"{row['size_mib']:.1f}",
                        f"{row['latency_ms']:.1f}",
                    ),
                    flush=True,
                )


if __name__ == "__main__":
    main()
