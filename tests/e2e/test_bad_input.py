"""Bad input: a clear error, its exit code, missing_folder half-written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import LITE0, Tl
from tests.fakes import write_colors


def missing_folder(folder: Path) -> Path:
    return folder / "missing"


def empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def text_only(folder: Path) -> Path:
    (folder / "texts" / "red").mkdir(parents=True)
    (folder / "texts" / "red" / "note.txt").write_text("no image")
    return folder / "texts"


def one_class(folder: Path) -> Path:
    return write_colors(folder / "one", 5, classes=("red",))


def one_image_in_a_class(folder: Path) -> Path:
    write_colors(folder / "few", 5, classes=("red",))
    return write_colors(folder / "few", 1, classes=("green",))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (missing_folder, "does not exist"),
        (empty, "no usable image"),
        (text_only, "no usable image"),
        (one_class, "class"),
        (one_image_in_a_class, "green"),
    ],
)
def test_fit_rejects_unusable_images_with_exit_code_3(
    tl: Tl, tmp_path: Path, home: Path, make: Callable[[Path], Path], message: str
) -> None:
    ended = tl("auto", "fit", make(tmp_path), *LITE0)

    assert ended.code == 3
    assert message in ended.err
    assert "Traceback" not in ended.err
    assert not (home / "registry").exists()


@pytest.mark.parametrize(
    ("option", "name", "near"),
    [("--backbone", "lite/efficientnet_lite9", "efficientnet_lite"), ("--strategy", "linear_prob", "linear_probe")],
)
def test_fit_suggests_a_similar_plugin_with_exit_code_5(tl: Tl, colors: Path, option: str, name: str, near: str) -> None:
    ended = tl("auto", "fit", colors, option, name)

    assert ended.code == 5
    assert near in ended.err


@pytest.mark.parametrize("content", ["", "no json", "{}", '{"backbone": 3}'])
def test_fit_rejects_an_unreadable_plan_with_exit_code_4(tl: Tl, colors: Path, tmp_path: Path, content: str) -> None:
    file = tmp_path / "plan.json"
    file.write_text(content)

    ended = tl("auto", "fit", colors, "--plan", file)

    assert ended.code == 4
    assert "tl auto plan" in ended.err


def test_fit_rejects_a_missing_plan_with_exit_code_4(tl: Tl, colors: Path, tmp_path: Path) -> None:
    assert tl("auto", "fit", colors, "--plan", tmp_path / "absent.json").code == 4


def test_fit_rejects_an_unwritable_registry_first_with_exit_code_10(tl: Tl, colors: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    ended = tl("auto", "fit", colors, "--registry", tmp_path / "file" / "registry", *LITE0)

    assert ended.code == 10
    assert "data:" not in ended.err


def test_tl_in_a_deleted_folder_has_exit_code_10(tl: Tl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()

    ended = tl("registry", "list")

    assert ended.code == 10
    assert "no longer exists" in ended.err


@pytest.mark.parametrize("command", ["registry list", "data check images", "auto fit images", "predict m photo.jpg"])
def test_tl_home_that_is_a_file_has_exit_code_10(
    tl: Tl, colors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TL_HOME", str(tmp_path / "file"))

    ended = tl(*(colors if word in ("images", "photo.jpg") else word for word in command.split()))

    assert ended.code == 10
    assert ended.err.count("\n") == 1
    assert "Set TL_HOME to a folder" in ended.err


def test_fit_names_constraints_that_conflict_with_a_plan(tl: Tl, colors: Path, tmp_path: Path) -> None:
    ended = tl("auto", "fit", colors, "--plan", tmp_path / "plan.json", "--strategy", "tail", "--seed", "0", "--budget", "5m")

    assert ended.code == 2
    assert "--strategy, --seed would change it" in ended.message


@pytest.mark.parametrize("ref", ["absent", "absent@3", "absent@production"])
@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_unknown_model_has_exit_code_6(tl: Tl, colors: Path, command: str, ref: str) -> None:
    ended = tl(command, ref, colors)

    assert ended.code == 6
    assert "absent" in ended.err


@pytest.mark.parametrize("budget", ["5x", "-1s", "0", "soon"])
def test_budget_rejects_bad_quantities_with_exit_code_2(tl: Tl, colors: Path, budget: str) -> None:
    assert tl("auto", "fit", colors, f"--budget={budget}").code == 2


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999"])
def test_option_rejects_numbers_that_are_not_finite(tl: Tl, colors: Path, value: str) -> None:
    ended = tl("auto", "plan", colors, "--strategy", "tail", "--option", f"lr={value}")

    assert ended.code == 2
    assert f"lr={value}" in ended.err


@pytest.mark.parametrize(
    "command", ["predict m photo.jpg --out", "report m --out", "data check photos --fix", "data split photos --out"]
)
def test_output_file_needs_an_existing_folder(tl: Tl, tmp_path: Path, command: str) -> None:
    ended = tl(*command.split(), tmp_path / "none" / "x.csv")

    assert ended.code == 2
    assert "does not exist" in ended.message


@pytest.mark.parametrize(
    "command",
    [
        "predict m photo.jpg --copy-to",
        "explain m photo.jpg --out",
        "export m --out",
        "data drift m photos --out",
        "bench photos --out",
        "plugins new strategy careful --into",
    ],
)
def test_output_folder_cannot_be_below_a_file(tl: Tl, tmp_path: Path, command: str) -> None:
    (tmp_path / "file").write_text("in the way")

    ended = tl(*command.split(), tmp_path / "file" / "folder")

    assert ended.code == 2
    assert "is a file; expected a folder" in ended.message


def test_fit_rejects_an_invalid_model_name_first(tl: Tl, colors: Path, home: Path) -> None:
    ended = tl("auto", "fit", colors, "--name", "My Model")

    assert ended.code == 2
    assert "'My Model'" in ended.err
    assert "a-z" in ended.err
    assert "images/s" not in ended.err
    assert not (home / "cache").exists()
