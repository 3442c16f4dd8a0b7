"""The commands ``tl data check`` and ``tl data split``."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from automl_tl.cli.app import app
from automl_tl.errors import BrokenSourceError, DataError, TooFewImagesError
from tests.data.sample_images import encoded, sample_image, write_tree

Tl = Callable[..., Result]


@pytest.fixture
def tl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tl:
    monkeypatch.setenv("TL_HOME", str(tmp_path / "home"))
    return lambda *arguments: CliRunner().invoke(app, ["data", *map(str, arguments)])


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = write_tree(tmp_path / "images", {"ants": 25, "bees": 25})
    (root / "ants" / "broken.jpg").write_bytes(encoded(sample_image(99))[:300])
    (root / "ants" / "copy\n[bold].jpg").write_bytes((root / "ants" / "000.jpg").read_bytes())
    return root


def test_check_lists_unused_files_and_findings(tl: Tl, tree: Path) -> None:
    shown = tl("check", tree)

    assert shown.exit_code == 0
    assert "52 files: 50 to use, 1 left out, 1 rejected" in shown.stdout
    assert "ants/broken.jpg" in shown.stdout
    assert "ants/copy\\n[bold].jpg  copy" in shown.stdout
    assert "warning Files that can't be used: 1 (1 truncated)" in shown.stdout


def test_check_prints_index_and_report_as_json(tl: Tl, tree: Path) -> None:
    checked = json.loads(tl("check", tree, "--json").stdout)

    assert checked["index"]["num_files"] == 52
    assert [row["reason"] for row in checked["report"]["left_out"]] == ["copy"]


def test_check_strict_fails_on_rejected_files(tl: Tl, tree: Path) -> None:
    strict = tl("check", tree, "--strict")

    assert isinstance(strict.exception, DataError)
    assert strict.exception.exit_code == 3
    assert "1 files rejected" in str(strict.exception)


def test_check_proposes_fixes_and_changes_no_image(tl: Tl, tree: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}

    tl("check", tree, "--fix", tmp_path / "fixes.csv")

    with (tmp_path / "fixes.csv").open(newline="", encoding="utf-8") as file:
        assert [(row["path"], row["action"]) for row in csv.DictReader(file)] == [
            ("ants/broken.jpg", "replace"),
            ("ants/copy\n[bold].jpg", "delete"),
        ]
    assert {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()} == before


def test_split_prints_counts_and_keeps_earlier_split(tl: Tl, tree: Path, tmp_path: Path) -> None:
    shown = tl("split", tree, "--out", tmp_path / "split.json")
    write_tree(tree, {"more": 10}, first_seed=500)
    again = json.loads(tl("split", tree, "--seed", 7, "--keep", tmp_path / "split.json", "--json").stdout)

    saved = json.loads((tmp_path / "split.json").read_text(encoding="utf-8"))
    assert "all    32     8           10" in shown.stdout
    assert len(again["splits"]) == 60
    assert {digest: again["splits"][digest] for digest in saved["splits"]} == saved["splits"]


def test_split_and_check_report_unusable_paths(tl: Tl, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "no.json").write_text("{}", encoding="utf-8")

    assert isinstance(tl("split", tree, "--keep", tmp_path / "no.json").exception, BrokenSourceError)
    assert tl("split", tree, "--out", tmp_path / "nowhere" / "split.json").exit_code == 2
    assert tl("check", tree, "--fix", tmp_path / "nowhere" / "fixes.csv").exit_code == 2


def test_split_refuses_unlearnable_classes(tl: Tl, tmp_path: Path) -> None:
    refused = tl("split", write_tree(tmp_path / "images", {"ants": 5, "bees": 1}))

    assert isinstance(refused.exception, TooFewImagesError)
