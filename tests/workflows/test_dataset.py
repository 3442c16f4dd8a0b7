"""What the main line makes of a folder before anything is learned: a name, parts, or a clear no."""

from __future__ import annotations

from pathlib import Path

import pytest

from automl_tl.errors import TooFewImagesError
from automl_tl.runtime.progress import QUIET
from automl_tl.workflows.dataset import load_dataset
from automl_tl.workflows.fit import model_name
from tests.fakes import write_colors


@pytest.mark.parametrize(
    ("folder", "name"),
    [("Ants & Bees", "ants-bees"), ("café", "cafe"), ("v1.2_final", "v1.2_final"), ("...", "model")],
)
def test_a_model_is_named_like_its_folder(tmp_path: Path, folder: str, name: str) -> None:
    assert model_name(tmp_path / "x" / folder) == name


def test_names_in_other_letters_stay_apart(tmp_path: Path) -> None:
    names = {model_name(tmp_path / folder) for folder in ("цветы", "деревья", "花", "цветы 2024")}

    assert len(names) == 4
    assert all(name.isascii() for name in names)


def test_classes_of_one_group_each_can_not_be_measured(tmp_path: Path) -> None:
    write_colors(tmp_path, 6)
    for name in ("green", "red"):
        images = sorted((tmp_path / name).iterdir())
        lines = [f"{name}/{image.name},{name},{name}" for image in images]
        with (tmp_path / "all.csv").open("a") as manifest:
            manifest.write("\n".join((["path,label,group"] if name == "green" else []) + lines) + "\n")

    with pytest.raises(TooFewImagesError, match="put aside to measure on"):
        load_dataset(tmp_path / "all.csv", seed=0, progress=QUIET)
