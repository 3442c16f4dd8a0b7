"""Growth of time and memory with the number of images: `tl auto fit` as a whole process with an empty data directory.

    python -m benchmarks.growth [--images 500 5000 50000] [--classes 10]

Synthetic images: JPEG files of 160 x 120 px, colored noise with a bar whose direction and color depend on the class.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.timing import machine, process

WIDTH, HEIGHT = 160, 120


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory by the number of images.")
    parser.add_argument("--images", type=int, nargs="+", default=[500, 5_000, 50_000])
    parser.add_argument("--classes", type=int, default=10)
    arguments = parser.parse_args()
    print(f"{machine('torch', 'openvino', 'scikit-learn')}; EfficientNet-Lite0, linear probe, {arguments.classes} classes\n")
    print("| images | wall, s | ms/image | processor, s | peak, MiB | accuracy |\n| --- | --- | --- | --- | --- | --- |")
    with TemporaryDirectory() as place:
        for count in arguments.images:
            folder, output = Path(place) / f"{count}", Path(place) / "answer"
            write_images(folder, count, arguments.classes)
            command = [sys.executable, "-m", "automl_tl", "auto", "fit", str(folder), "--json", "--strategy", "linear_probe"]
            command += ["--backbone", "lite/efficientnet_lite0"]
            spent = process(command, result=output, home=Path(place) / f"home-{count}")
            outcome = json.loads(output.read_text())
            print(
                f"| {count} | {spent.wall_s:.0f} | {1000 * spent.wall_s / count:.1f} | {spent.cpu_s:.0f} "
                f"| {spent.peak_mib:.0f} | {100 * outcome['test']['accuracy']:.1f}% |",
                flush=True,
            )


def write_images(folder: Path, count: int, num_classes: int) -> None:
    """Write ``count`` files to class folders."""
    rng = np.random.default_rng(0)
    for number in range(count):
        label = number % num_classes
        coarse = rng.integers(0, 256, (HEIGHT // 20, WIDTH // 20, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        angle = np.pi * (label + rng.uniform(-0.45, 0.45)) / num_classes
        center = rng.uniform(0.35, 0.65, 2) * (WIDTH, HEIGHT)
        half = 45 * np.array([np.cos(angle), np.sin(angle)])
        ImageDraw.Draw(image).line([*(center - half), *(center + half)], fill=(250, 20 * label, 30), width=9)
        place = folder / f"class-{label}"
        place.mkdir(parents=True, exist_ok=True)
        image.save(place / f"{number:06}.jpg", quality=85)


if __name__ == "__main__":
    main()
