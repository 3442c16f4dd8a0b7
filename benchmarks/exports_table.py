"""Table of every export format on one model: runtime, agreement, size and latency.

    python benchmarks/exports_table.py MODEL IMAGES > benchmarks/results/exports.md

Exports MODEL in each format (fp32), checked in a new process on up to 200 of the labeled IMAGES and on one file of every
unusual kind. The page of the web export is opened in Chromium as well, where Playwright and a ``chromium`` are installed, and
compared with ``tl predict`` on up to 200 of the same photographs.
"""

from __future__ import annotations

import argparse
import csv
import functools
import http.server
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from automl_tl.exports import FORMATS

RUNTIMES = {
    "onnx": "ONNX Runtime",
    "torch-export": "PyTorch",
    "openvino": "OpenVINO",
    "web": "ONNX Runtime (its file)",
    "hf": "timm, PyTorch",
    "mlflow": "ONNX Runtime",
    "torchvision": "torchvision, PyTorch",
    "litert": "LiteRT",
}
MAX_IMAGES = 200


def tl(*arguments: str) -> Any:  # noqa: ANN401 - it is JSON
    """Return the JSON that ``tl`` prints, a list of its lines if it prints JSON Lines, or its last error line."""
    run = subprocess.run([sys.executable, "-m", "automl_tl", *arguments], capture_output=True, text=True, check=False)
    if run.stdout.startswith("{"):
        return [json.loads(line) for line in run.stdout.splitlines()]
    return json.loads(run.stdout) if run.stdout.startswith("[") else run.stderr.strip().splitlines()[-1].strip("│ ")


def in_chromium(folder: Path, model: str, images: list[Path]) -> tuple[str, str, str, str, str, str]:
    """Classify images in the exported page, and return its row."""
    from playwright.sync_api import sync_playwright

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(600_000)
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        page.locator("body[data-ready]").wait_for()
        started_s = time.perf_counter()
        page.locator("#files").set_input_files([str(path) for path in images])
        page.wait_for_function("() => !document.querySelector('.pending')")
        milliseconds = 1000 * (time.perf_counter() - started_s) / len(images)
        with page.expect_download() as download:
            page.get_by_role("button", name="Download CSV").click()
        with Path(download.value.path()).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        runtime = f"ONNX Runtime Web, Chromium {browser.version.split('.')[0]}"
        browser.close()
    server.shutdown()
    ours = tl("predict", model, *map(str, images), "--no-reject-ood", "--json")
    differences = [
        max(abs(float(row[label]) - value) for label, value in our["top"].items())
        for row, our in zip(rows, ours, strict=True)
        if not row["error"]
    ]
    same = sum(row["label"] == our["label"] for row, our in zip(rows, ours, strict=True))
    size_mib = sum(file.stat().st_size for file in folder.iterdir() if file.suffix in (".js", ".wasm", ".onnx")) / 2**20
    difference = f"{max(differences):.1e}"
    return "web", runtime, difference, f"{same} of {len(rows)}", f"{size_mib:.1f}", f"{milliseconds:.1f} with decoding"


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("images", type=Path, help="class folders")
    given = parser.parse_args()
    print("| Format | Runtime | Largest difference | Labels equal | MiB | ms per image |\n|---|---|---:|---:|---:|---:|")
    for export_format in FORMATS:
        with tempfile.TemporaryDirectory(prefix="tl-exports-") as place:
            out = ("--out", place, "--json")
            exports = tl("export", given.model, "--format", export_format, "--images", str(given.images), *out)
            if isinstance(exports, str):
                print(f"| {export_format} | {exports} | | | | |", flush=True)
                continue
            row = exports[0]
            same = f"{row['same_labels'] * row['num_images']:.0f} of {row['num_images']}"
            numbers = (f"{row['largest_difference']:.1e}", same, f"{row['size_mib']:.1f}", f"{row['latency_ms']:.1f}")
            print("|", " | ".join((export_format, RUNTIMES.get(export_format, export_format), *numbers)), "|", flush=True)
            if export_format == "web" and shutil.which("chromium"):
                paths = sorted(path for path in given.images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
                chosen = np.random.default_rng(0).permutation(len(paths))[:MAX_IMAGES]
                print("|", " | ".join(in_chromium(Path(place), given.model, [paths[row] for row in chosen])), "|", flush=True)


if __name__ == "__main__":
    main()
