"""VGG-16 on a sample of CIFAR-10 in PyTorch and in Keras: ``python benchmarks/keras_vgg16.py CIFAR10_FOLDER``.

CIFAR10_FOLDER has ``train/`` and ``test/`` with class folders. Runs the command of docs/experiments.md with random weights and
a budget on a few images per class, and writes ``benchmarks/results/keras.md``; takes about ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import automl_tl
from automl_tl.runtime.formatting import percent, percent_range
from automl_tl.values import BenchCell

RESULTS: Final = Path(__file__).parent / "results" / "keras.md"
BACKBONES: Final = ("torchvision/vgg16.IMAGENET1K_FEATURES", "keras/vgg16")
STRATEGIES: Final = ("linear_probe", "full_finetune")
HEADER: Final = """# VGG-16 on CIFAR-10 in PyTorch and in Keras

Written by `benchmarks/keras_vgg16.py`: {train} training and {test} test images per class, `--head mlp:1024 --weights none
--budget {budget_s:.0f}s`. No weights could be downloaded, so all networks start from random weights: the accuracies say
nothing about transfer learning. `linear_probe` trains the head on the frozen base, `full_finetune` trains everything.
The networks are the same; their initializations differ (torchvision: He, Keras: Glorot).

| backbone | strategy | accuracy | 95% CI | seconds | ms/image | memory, MiB | MiB |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |
"""


def main() -> None:
    options = _options()
    with TemporaryDirectory() as name:
        images = _sample(options.images, Path(name) / "cifar10", {"train": options.train, "test": options.test})
        cells = automl_tl.bench(
            images,
            backbone=BACKBONES,
            strategy=STRATEGIES,
            weights="none",
            head="mlp:1024",
            budget=options.budget_s,
            out=Path(name) / "bench",
        )
    rows = "\n".join(map(_row, sorted(cells, key=lambda cell: (STRATEGIES.index(cell.strategy), cell.backbone))))
    RESULTS.write_text(HEADER.format(**vars(options)) + rows + "\n", encoding="utf-8")
    print(rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--train", type=int, default=12, help="training images per class")
    parser.add_argument("--test", type=int, default=10, help="test images per class")
    parser.add_argument("--budget-s", type=float, default=150, help="of each fit")
    return parser.parse_args()


def _sample(source: Path, target: Path, numbers: dict[str, int]) -> Path:
    """Copy the first images of each class, by name."""
    for split, number in numbers.items():
        for folder in sorted(path for path in (source / split).iterdir() if path.is_dir()):
            (target / split / folder.name).mkdir(parents=True)
            for file in sorted(folder.iterdir())[:number]:
                shutil.copy(file, target / split / folder.name)
    return target


def _row(cell: BenchCell) -> str:
    if cell.error:
        return f"| {cell.backbone} | {cell.strategy} | {cell.error} |"
    numbers = f"{cell.seconds:.0f} | {cell.latency_ms:.0f} | {cell.memory_mib:.0f} | {cell.size_mib:.1f}"
    return f"| {cell.backbone} | {cell.strategy} | {percent(cell.accuracy)} | {percent_range(cell.interval)} | {numbers} |"


if __name__ == "__main__":
    main()
