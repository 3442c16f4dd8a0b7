"""From a folder to the images of each part, in one go."""

from __future__ import annotations

from pathlib import Path

import pytest

from automl_tl.data import audit, check_learnable, images_by_split, make_split, open_source, scan
from automl_tl.errors import NoImagesError, SourceNotFoundError, TooFewImagesError
from tests.data.pictures import write_tree


def test_class_folders_become_three_parts(tmp_path: Path) -> None:
    source = open_source(write_tree(tmp_path, {"ants": 25, "bees": 25}))

    index = scan(source)
    report = audit(index)
    parts = images_by_split(index, report, make_split(index, report))

    assert {part: len(images) for part, images in parts.items()} == {"train": 32, "validation": 8, "test": 10}


def test_a_given_test_part_stays_whole(tmp_path: Path) -> None:
    tree = write_tree(tmp_path, {"train/ants": 20, "train/bees": 20, "test/ants": 7, "test/bees": 8})

    index = scan(open_source(tree))
    report = audit(index)
    split = make_split(index, report)
    parts = images_by_split(index, report, split)

    assert split.test_given
    assert [image.path for image in parts["test"]] == [image.path for image in index.images if image.split == "test"]
    assert len(parts["validation"]) == 8


def test_nothing_at_the_path_is_said(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="nowhere"):
        open_source(tmp_path / "nowhere")


def test_a_folder_without_images_is_said(tmp_path: Path) -> None:
    (tmp_path / "ants").mkdir()

    with pytest.raises(NoImagesError, match="no usable image"):
        scan(open_source(tmp_path))


def test_a_folder_of_broken_images_can_be_looked_at(tmp_path: Path) -> None:
    for name in ("ants", "bees"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").write_bytes(b"")

    report = audit(scan(open_source(tmp_path), none_is_fine=True))

    assert {finding.code for finding in report.findings} == {"rejected_files", "empty_classes"}


def test_all_classes_that_are_too_small_are_named_at_once(tmp_path: Path) -> None:
    index = scan(open_source(write_tree(tmp_path, {"ants": 5, "bees": 1, "cats": 1, "dogs": 5})))

    with pytest.raises(TooFewImagesError, match=r"bees: 1, cats: 1"):
        check_learnable(index, audit(index))
