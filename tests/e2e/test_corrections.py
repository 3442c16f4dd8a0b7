"""The loop from a decision to a better model: fit, diff, evaluate, report and export with corrections."""

from __future__ import annotations

import csv
from hashlib import sha256
from pathlib import Path

import pytest

from automl_tl.data import Correction, append_correction
from automl_tl_registry import Registry
from tests.e2e.conftest import LITE0, Fitted, Tl
from tests.fakes import write_colors


def decide(file: Path, image: Path, decision: str, label: str = "") -> None:
    append_correction(file, Correction(sha256(image.read_bytes()).hexdigest(), image.name, decision, label))


def test_fit_with_corrections_says_what_changed(
    tl: Tl, fitted: Fitted, registry: Registry, colors: Path, tmp_path: Path
) -> None:
    file = tmp_path / "decisions.csv"
    tested = registry.diff("color-cards@1", "color-cards@2").comparison
    splits = tl("data", "split", colors, "--json").json["splits"]
    digests = {sha256(image.read_bytes()).hexdigest(): image for image in sorted(colors.rglob("*.png"))}
    in_test = next(
        digests[digest] for digest in sorted(digests) if splits[digest] == "test" and "green" in str(digests[digest])
    )
    in_train = next(
        digests[digest] for digest in sorted(digests) if splits[digest] == "train" and "red" in str(digests[digest])
    )
    decide(file, in_test, "relabel", "red")
    decide(file, in_train, "exclude")
    decide(file, tmp_path / "decisions.csv", "relabel", "red")

    ended = tl("auto", "fit", colors, *LITE0, "--corrections", file)
    shown = tl("registry", "diff", "color-cards@2", "color-cards@3")
    difference = tl("registry", "diff", "color-cards@2", "color-cards@3", "--json").json
    version = tl("registry", "show", "color-cards@3", "--json").json

    assert ended.code == 0
    assert "1 label corrected, 1 image excluded" in ended.out
    assert "Test images among them: 1" in ended.out
    assert "corrections of images that are not here: 1 (decisions.csv)" in ended.message
    assert "labels changed by corrections: 1 corrected, 1 excluded" in shown.out
    assert "by the labels of color-cards@3 (1 differ in color-cards@2)" in shown.out
    assert [(row["kind"], row["before"], row["after"]) for row in difference["corrected"]] == [
        ("corrected", "green", "red"),
        ("excluded", "red", None),
    ]
    assert tested is not None
    assert difference["comparison"]["num_images"] == tested.num_images  # the images stay in their splits
    assert difference["images"]["moved"] == []
    assert len(version["facts"]["lineage"]["corrections"]) == 64
    assert "color-cards@3" in tl("registry", "list").out
    page = next((registry.root / "reports").glob("color-cards-3.html")).read_text()
    assert "Corrections applied: 1 label corrected, 1 image excluded" in page
    assert f"green/{in_test.name}" in page


def test_commands_apply_corrections_and_mention_unused_ones(tl: Tl, registry: Registry, tmp_path: Path) -> None:
    images = write_colors(tmp_path / "cards", 8, seed=3)
    file = tmp_path / "cards.corrections.csv"
    decide(file, images / "red" / "000.png", "relabel", "green")
    decide(file, images / "red" / "001.png", "exclude")

    unused = tl("data", "check", images)
    checked = tl("data", "check", images, "--corrections", file)
    evaluated = tl("evaluate", "color-cards", images, "--corrections", file, "--json")
    missing = tl("data", "split", images, "--corrections", tmp_path / "no.csv")

    assert f"--corrections {file} applies them" in unused.message
    assert "corrections: 1 label corrected, 1 image excluded" in checked.out
    assert evaluated.json["per_class"]["green"]["num_images"] == 9
    assert evaluated.json["num_images"] == 15
    assert [row["after"] for row in evaluated.json["corrections"]["images"]] == ["green", None]
    assert (missing.code, "no.csv does not exist" in missing.message) == (3, True)


@pytest.mark.parametrize("split", [(), ("--split",)])
def test_data_export_writes_a_corrected_copy(tl: Tl, tmp_path: Path, split: tuple[str, ...]) -> None:
    images, file, out = write_colors(tmp_path / "cards", 8), tmp_path / "file.csv", tmp_path / "copy"
    (images / "red" / "CON.png").write_bytes((images / "red" / "007.png").read_bytes() + b"more")
    (images / "red" / "inner").mkdir()
    (images / "red" / "inner" / "002.png").write_bytes((images / "red" / "006.png").read_bytes() + b"more")
    decide(file, images / "red" / "000.png", "relabel", "green")
    decide(file, images / "red" / "001.png", "exclude")

    written = tl("data", "export", images, "--corrections", file, "--out", out, *split, "--json").json
    refused = tl("data", "export", images, "--out", out)
    inside = tl("data", "export", images, "--out", images / "copy")
    again = tl("data", "check", out, "--json").json
    with (out / "manifest.csv").open(newline="", encoding="utf-8") as table:
        rows = list(csv.DictReader(table))

    assert sum(written["num_images"].values()) == len(rows) == 17
    assert written["left_out"] == {"excluded": 1}
    assert again["report"]["fingerprint"] == written["fingerprint"]
    assert all(sha256((out / row["path"]).read_bytes()).hexdigest() == row["digest"] for row in rows)
    assert [row["source_label"] for row in rows if row["source_path"] == "red/000.png"] == ["red"]
    assert {row["path"].split("/")[0] for row in rows} == ({"train", "validation", "test"} if split else {"green", "red"})
    assert (refused.code, "not an empty folder" in refused.message) == (2, True)
    assert (inside.code, "inside the images" in inside.message) == (2, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cards", "copy", "file.csv", "home"]
