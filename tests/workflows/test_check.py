"""A network's eyes in `tl data check --labels`."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from automl_tl.cli.app import app


def stripes(seed: int, *, upright: bool) -> Image.Image:
    """Stripes of a random width and shade; no two pictures are the same."""
    generator = np.random.default_rng(seed)
    wave = np.sin(np.arange(96) / generator.uniform(2, 5) + generator.uniform(0, 6)) * 90 + 128
    pixels = np.tile(wave, (96, 1)) + generator.normal(0, 25, (96, 96))
    return Image.fromarray(np.clip(pixels if upright else pixels.T, 0, 255).astype(np.uint8)).convert("RGB")


def test_planted_wrong_labels_are_proposed_to_be_relabeled(tmp_path: Path) -> None:
    for at, label in enumerate(("across", "upright")):
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(16):
            upright = bool(at) != (number == 7)
            stripes(100 * at + number, upright=upright).save(tmp_path / "images" / label / f"{number:02}x.png")

    arguments = ["data", "check", str(tmp_path / "images"), "--labels", "--fix", str(tmp_path / "fixes.csv")]
    shown = CliRunner().invoke(app, arguments)

    with (tmp_path / "fixes.csv").open(newline="", encoding="utf-8") as file:
        relabeled = {(row["path"], row["value"]) for row in csv.DictReader(file) if row["action"] == "relabel"}
    assert shown.exit_code == 0
    assert relabeled == {("across/07x.png", "upright"), ("upright/07x.png", "across")}
