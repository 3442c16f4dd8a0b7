"""From a folder to the images of each split."""

from __future__ import annotations

from pathlib import Path

import pytest

from automl_tl.data import audit_index, check_learnable, images_by_split, make_split, open_source, scan
from automl_tl.errors import NoImagesError, SourceNotFoundError, TooFewImagesError
from tests.data.sample_images import write_tree


def test_flow_splits_class_folders(tmp_path: Path) -> None:
    source = open_source(write_tree(tmp_path, {"ants": 25, "bees": 25}))

    index = scan(source)
    report = audit_index(index)
    splits = images_by_split(index, report, make_split(index, report))

    assert {name: len(images) for name, images in splits.items()} == {"train": 32, "validation": 8, "test": 10}


def test_flow_keeps_given_test_split(tmp_path: Path) -> None:
    tree = write_tree(tmp_path, {"train/ants": 20, "train/bees": 20, "test/ants": 7, "test/bees": 8})

    index = scan(open_source(tree))
    report = audit_index(index)
    split = make_split(index, report)
    splits = images_by_split(index, report, split)

    assert split.test_given
    assert [image.path for image in splits["test"]] == [image.path for image in index.images if image.split == "test"]
    assert len(splits["validation"]) == 8


def test_open_source_reports_missing_path(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="nowhere"):
        open_source(tmp_path / "nowhere")


def test_scan_refuses_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "ants").mkdir()

    with pytest.raises(NoImagesError, match="no usable image"):
        scan(open_source(tmp_path))


def test_scan_names_kind_of_files_if_none_is_an_image(tmp_path: Path) -> None:
    for name in ("ants", "bees"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.dcm").write_bytes(bytes(128) + b"DICM")

    with pytest.raises(NoImagesError, match=r"2 files, such as ants/1\.dcm: a DICOM file"):
        scan(open_source(tmp_path))


def test_scan_allows_only_broken_images_on_request(tmp_path: Path) -> None:
    for name in ("ants", "bees"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").write_bytes(b"")

    report = audit_index(scan(open_source(tmp_path), allow_empty=True))

    assert {finding.code for finding in report.findings} == {"rejected_files", "empty_classes"}


def test_check_learnable_names_all_small_classes(tmp_path: Path) -> None:
    index = scan(open_source(write_tree(tmp_path, {"ants": 5, "bees": 1, "cats": 1, "dogs": 5})))

    with pytest.raises(TooFewImagesError, match=r"bees: 1, cats: 1"):
        check_learnable(index, audit_index(index))
