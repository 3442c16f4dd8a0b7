"""Bad input: a clear error, its exit code, nothing half-written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import LITE0, Tl
from tests.fakes import write_colors


def nothing(place: Path) -> Path:
    return place / "no-such-folder"


def empty(place: Path) -> Path:
    (place / "empty").mkdir()
    return place / "empty"


def text_only(place: Path) -> Path:
    (place / "texts" / "red").mkdir(parents=True)
    (place / "texts" / "red" / "note.txt").write_text("no image")
    return place / "texts"


def one_class(place: Path) -> Path:
    return write_colors(place / "one", 5, classes=("red",))


def one_image_in_a_class(place: Path) -> Path:
    write_colors(place / "few", 5, classes=("red",))
    return write_colors(place / "few", 1, classes=("green",))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (nothing, "does not exist"),
        (empty, "no usable image"),
        (text_only, "no usable image"),
        (one_class, "class"),
        (one_image_in_a_class, "green"),
    ],
)
def test_images_that_can_not_be_learned_from_end_with_3(
    tl: Tl, tmp_path: Path, home: Path, make: Callable[[Path], Path], said: str
) -> None:
    ended = tl("auto", "fit", make(tmp_path), *LITE0)

    assert ended.code == 3
    assert said in ended.err
    assert "Traceback" not in ended.err
    assert not (home / "registry").exists()


@pytest.mark.parametrize(
    ("option", "name", "near"),
    [("--backbone", "lite/efficientnet_lite9", "efficientnet_lite"), ("--strategy", "linear_prob", "linear_probe")],
)
def test_an_unknown_plugin_ends_with_5_and_a_near_name(tl: Tl, colors: Path, option: str, name: str, near: str) -> None:
    ended = tl("auto", "fit", colors, option, name)

    assert ended.code == 5
    assert near in ended.err


@pytest.mark.parametrize("content", ["", "no json", "{}", '{"backbone": 3}'])
def test_a_plan_that_can_not_be_read_ends_with_4(tl: Tl, colors: Path, tmp_path: Path, content: str) -> None:
    file = tmp_path / "plan.json"
    file.write_text(content)

    ended = tl("auto", "fit", colors, "--plan", file)

    assert ended.code == 4
    assert "tl auto plan" in ended.err


def test_a_plan_that_is_not_there_ends_with_4(tl: Tl, colors: Path, tmp_path: Path) -> None:
    assert tl("auto", "fit", colors, "--plan", tmp_path / "absent.json").code == 4


def test_a_registry_that_can_not_be_written_ends_with_10_before_the_work(tl: Tl, colors: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    ended = tl("auto", "fit", colors, "--registry", tmp_path / "file" / "registry", *LITE0)

    assert ended.code == 10
    assert "data:" not in ended.err


def test_constraints_beside_a_plan_are_refused_by_name(tl: Tl, colors: Path, tmp_path: Path) -> None:
    ended = tl("auto", "fit", colors, "--plan", tmp_path / "plan.json", "--strategy", "tail", "--seed", "0", "--budget", "5m")

    assert ended.code == 2
    assert "--strategy, --seed would change it" in " ".join(ended.err.replace("│", " ").split())


@pytest.mark.parametrize("ref", ["absent", "absent@3", "absent@production"])
@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_an_unknown_model_ends_with_6(tl: Tl, colors: Path, command: str, ref: str) -> None:
    ended = tl(command, ref, colors)

    assert ended.code == 6
    assert "absent" in ended.err


@pytest.mark.parametrize("budget", ["5x", "-1s", "0", "soon"])
def test_a_budget_without_a_meaning_ends_with_2(tl: Tl, colors: Path, budget: str) -> None:
    assert tl("auto", "fit", colors, f"--budget={budget}").code == 2


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999"])
def test_an_option_that_is_no_number_ends_with_2(tl: Tl, colors: Path, value: str) -> None:
    ended = tl("auto", "plan", colors, "--strategy", "tail", "--option", f"lr={value}")

    assert ended.code == 2
    assert f"lr={value}" in ended.err


@pytest.mark.parametrize(
    "command", ["predict m photo.jpg --out", "report m --out", "data check photos --fix", "data split photos --out"]
)
def test_a_file_in_a_folder_that_does_not_exist_ends_with_2_before_the_work(tl: Tl, tmp_path: Path, command: str) -> None:
    ended = tl(*command.split(), tmp_path / "none" / "x.csv")

    assert ended.code == 2
    assert "does not exist" in " ".join(ended.err.replace("│", " ").split())


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
def test_a_folder_below_a_file_ends_with_2_before_the_work(tl: Tl, tmp_path: Path, command: str) -> None:
    (tmp_path / "file").write_text("in the way")

    ended = tl(*command.split(), tmp_path / "file" / "folder")

    assert ended.code == 2
    assert "is a file; expected a folder" in " ".join(ended.err.replace("│", " ").split())


def test_a_name_that_no_model_can_have_ends_before_the_work(tl: Tl, colors: Path, home: Path) -> None:
    ended = tl("auto", "fit", colors, "--name", "My Model")

    assert ended.code == 2
    assert "'My Model'" in ended.err
    assert "a-z" in ended.err
    assert "images/s" not in ended.err
    assert not (home / "cache").exists()
