"""Datasets before anything is trained: names, checks, and clear errors."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from automl_tl.cli.app import app
from automl_tl.errors import TooFewImagesError
from automl_tl.runtime.progress import QUIET
from automl_tl.workflows.dataset import load_dataset
from automl_tl.workflows.fit import model_name
from tests.fakes import write_colors


def stripes(seed: int, *, upright: bool) -> Image.Image:
    """Stripes of a random width and shade; no two images are the same."""
    generator = np.random.default_rng(seed)
    wave = np.sin(np.arange(96) / generator.uniform(2, 5) + generator.uniform(0, 6)) * 90 + 128
    pixels = np.tile(wave, (96, 1)) + generator.normal(0, 25, (96, 96))
    return Image.fromarray(np.clip(pixels if upright else pixels.T, 0, 255).astype(np.uint8)).convert("RGB")


@pytest.mark.parametrize(
    ("folder", "name"),
    [("Ants & Bees", "ants-bees"), ("café", "cafe"), ("v1.2_final", "v1.2_final"), ("...", "model")],
)
def test_model_name_follows_the_folder(tmp_path: Path, folder: str, name: str) -> None:
    assert model_name(tmp_path / "x" / folder) == name


def test_model_name_keeps_other_scripts_distinct(tmp_path: Path) -> None:
    names = {model_name(tmp_path / folder) for folder in ("цветы", "деревья", "花", "цветы 2024")}

    assert len(names) == 4
    assert all(name.isascii() for name in names)


def test_load_dataset_rejects_classes_of_a_single_group(tmp_path: Path) -> None:
    write_colors(tmp_path, 6)
    for name in ("green", "red"):
        images = sorted((tmp_path / name).iterdir())
        lines = [f"{name}/{image.name},{name},{name}" for image in images]
        with (tmp_path / "all.csv").open("a") as manifest:
            manifest.write("\n".join((["path,label,group"] if name == "green" else []) + lines) + "\n")

    with pytest.raises(TooFewImagesError, match="put aside to measure on"):
        load_dataset(tmp_path / "all.csv", seed=0, progress=QUIET)


def test_load_dataset_splits_by_seed(tmp_path: Path) -> None:
    images = write_colors(tmp_path, 12)

    first, again, other = (load_dataset(images, seed=seed).split.splits for seed in (0, 0, 1))

    assert first == again != other


def test_load_dataset_keeps_a_given_test_split(tmp_path: Path) -> None:
    write_colors(tmp_path / "train", 10)
    write_colors(tmp_path / "test", 3, seed=5)

    counts = load_dataset(tmp_path, seed=0).counts

    assert counts["test"] == 6
    assert counts["train"] + counts["validation"] == 20


def test_check_proposes_to_relabel_planted_label_issues(tmp_path: Path) -> None:
    for at, label in enumerate(("across", "upright")):
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(16):
            upright = bool(at) != (number == 7)
            stripes(100 * at + number, upright=upright).save(tmp_path / "images" / label / f"{number:02}x.png")

    arguments = ["data", "check", str(tmp_path / "images"), "--labels", "--fix", str(tmp_path / "fixes.csv")]
    completed = CliRunner().invoke(app, arguments)

    with (tmp_path / "fixes.csv").open(newline="", encoding="utf-8") as file:
        relabeled = {(row["path"], row["value"]) for row in csv.DictReader(file) if row["action"] == "relabel"}
    assert completed.exit_code == 0
    assert relabeled == {("across/07x.png", "upright"), ("upright/07x.png", "across")}
