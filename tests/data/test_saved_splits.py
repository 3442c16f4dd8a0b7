"""What a fit used stays where it was in the next fit, and an image that can't have a place has a row."""

from __future__ import annotations

from pathlib import Path

import pytest

from automl_tl.data import audit, divide, images_by_split, keep_split, open_source, read_split, scan
from automl_tl.errors import BrokenSourceError
from automl_tl.values import DataReport, DatasetIndex
from tests.data.pictures import index_of, record, write_tree


def images_of(count: int) -> DatasetIndex:
    return index_of([record(f"{label}/{number:03}.jpg", label=label) for label in ("ants", "bees") for number in range(count)])


REPORT = DataReport(fingerprint="")


def test_added_images_move_no_old_one_once_a_split_is_kept(tmp_path: Path) -> None:
    old, _ = divide(images_of(50), REPORT, folder=tmp_path)
    keep_split(tmp_path, images_of(50), old)

    new, _ = divide(images_of(90), REPORT, folder=tmp_path)

    assert {digest: new.splits[digest] for digest in old.splits} == old.splits
    assert len(new.splits) == 180


def test_without_it_they_would_move() -> None:
    old, _ = divide(images_of(50), REPORT)

    new, _ = divide(images_of(90), REPORT)

    assert {digest: new.splits[digest] for digest in old.splits} != old.splits


def test_seeds_and_sources_have_splits_of_their_own(tmp_path: Path) -> None:
    one, other = images_of(20), images_of(20).model_copy(update={"root": "elsewhere"})
    split, _ = divide(one, REPORT, seed=1)

    assert len({keep_split(tmp_path, one, split), keep_split(tmp_path, other, split)}) == 2
    assert divide(one, REPORT, seed=2, folder=tmp_path) == divide(one, REPORT, seed=2)


def test_a_kept_split_that_is_damaged_is_said(tmp_path: Path) -> None:
    split, _ = divide(images_of(5), REPORT)
    file = keep_split(tmp_path, images_of(5), split)
    assert read_split(file) == split
    file.write_text("{}")

    with pytest.raises(BrokenSourceError, match="split the images again"):
        divide(images_of(5), REPORT, folder=tmp_path)


def test_an_image_between_the_parts_is_left_out_with_a_row(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "images", {"ants": 25, "bees": 25})
    index = scan(open_source(root))
    report = audit(index)
    saved, _ = divide(index, report)
    of = {image.path: image for image in index.images}
    new = "ants/000.jpg"
    test, train = (
        next(path for path, image in of.items() if path != new and saved.splits[image.digest] == part)
        for part in ("test", "train")
    )
    without = {digest: part for digest, part in saved.splits.items() if digest != of[new].digest}
    joined = report.model_copy(update={"groups": ((new, test, train),)})

    split, told = divide(index, joined, saved=saved.model_copy(update={"splits": without}))

    assert [(row.path, row.reason) for row in told.left_out] == [(new, "between_parts")]
    assert told.fingerprint != joined.fingerprint
    assert sum(map(len, images_by_split(index, told, split).values())) + len(told.left_out) == len(index.images)
