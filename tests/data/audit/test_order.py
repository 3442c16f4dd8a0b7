"""The order of files: when it predicts similarity, blocks of neighbors, and groups that the user asks for."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from automl_tl.data import assign_splits, audit_index, group_images, images_by_split, open_source, save_split, scan
from automl_tl.data.audit.order import find_blocks, measure_order, natural_key
from automl_tl.errors import DataError
from automl_tl.values import DatasetIndex, ImageRecord
from tests.data.sample_images import index_of, record, write_tree

Walk = tuple[list[ImageRecord], dict[str, bytes]]


def random_walk(num_images: int = 60, *, memory: float = 0.9, classes: tuple[str, ...] = ("ants", "bees")) -> Walk:
    """Images of which each resembles the one before, with thumbnails; no memory: random images."""
    images, thumbnails, generator = [], {}, np.random.default_rng(0)
    for label in classes:
        look = generator.normal(size=(8, 8))
        for number in range(num_images):
            look = memory * look + (1 - memory**2) ** 0.5 * generator.normal(size=(8, 8))
            image = record(f"{label}/{number}.jpg", label=label)
            images.append(image)
            levels = np.kron(np.clip(128 + 40 * look, 0, 255), np.ones((4, 4)))
            thumbnails[image.digest] = (levels + generator.normal(0, 8, (32, 32))).clip(0, 255).astype(np.uint8).tobytes()
    return images, thumbnails


def blocks_of(index: DatasetIndex, thumbnails: dict[str, bytes], group_by: str) -> tuple[tuple[str, ...], ...]:
    _, report = assign_splits(index, audit_index(index, thumbnails, group_by=group_by), group_by=group_by)
    return report.groups


def test_natural_key_sorts_numbers_by_value() -> None:
    assert sorted(["a10.jpg", "a9.jpg", "a1b2", "a1b10", "1", "a"], key=natural_key) == [
        *("1", "a", "a1b2", "a1b10", "a9.jpg", "a10.jpg")
    ]


def test_measure_order_finds_images_that_resemble_their_neighbors() -> None:
    images, thumbnails = random_walk()

    test = measure_order(images, (), thumbnails)

    assert test is not None
    assert test.is_structured
    assert 4 <= test.block_images <= 20


def test_measure_order_stays_quiet_on_shuffled_names() -> None:
    images, thumbnails = random_walk()
    generator, alarms = np.random.default_rng(1), 0
    for _ in range(20):
        names = [
            f"{image.label}/{number}.jpg" for image, number in zip(images, generator.permutation(len(images)), strict=True)
        ]
        test = measure_order([replace(image, path=name) for image, name in zip(images, names, strict=True)], (), thumbnails)
        alarms += test is not None and test.is_structured

    assert alarms == 0


def test_measure_order_ignores_what_groups_explain() -> None:
    images, thumbnails = random_walk(memory=0.0)
    pairs = tuple((one.path, other.path) for one, other in zip(images[::2], images[1::2], strict=True))
    for one, other in zip(images[::2], images[1::2], strict=True):
        thumbnails[other.digest] = thumbnails[one.digest]

    alone, grouped = measure_order(images, (), thumbnails), measure_order(images, pairs, thumbnails)

    assert alone is not None
    assert alone.is_structured
    assert grouped is not None
    assert not grouped.is_structured


def test_measure_order_follows_exif_times_before_names() -> None:
    images, thumbnails = random_walk()
    start, names = datetime(2026, 1, 1), np.random.default_rng(2).permutation(len(images))
    timed = [
        replace(image, path=f"{image.label}/{names[at]}.jpg", captured_at=start + timedelta(hours=at))
        for at, image in enumerate(images)
    ]

    test = measure_order(timed, (), thumbnails)

    assert test is not None
    assert test.is_structured


def test_audit_reports_order_and_assign_splits_keeps_blocks_together() -> None:
    images, thumbnails = random_walk()
    index = index_of(images)
    report = audit_index(index, thumbnails)

    split, grouped = assign_splits(index, report)

    (finding,) = (finding for finding in report.findings if finding.code == "order")
    assert finding.title == f"File order predicts similarity: split by blocks of {finding.facts['block_images']}"
    assert split.grouping == "order"
    assert split.block_images == finding.facts["block_images"]
    assert all(len({split.splits[record(path).digest] for path in group}) == 1 for group in grouped.groups)
    assert {len(records) > 0 for records in images_by_split(index, grouped, split).values()} == {True}


def test_assign_splits_without_structure_is_that_without_the_test() -> None:
    images, thumbnails = random_walk(memory=0.0)
    index = index_of(images)

    assert assign_splits(index, audit_index(index, thumbnails)) == assign_splits(index, audit_index(index))


def test_group_by_overrides_the_order() -> None:
    images, thumbnails = random_walk()
    random, _ = random_walk(memory=0.0)

    assert blocks_of(index_of(images), thumbnails, group_by="none") == ()
    assert max(map(len, blocks_of(index_of(random), thumbnails, group_by="order"))) > 1


def test_find_blocks_has_five_in_a_class_and_cuts_no_sequence() -> None:
    frames = [record(f"a/{track:02}_{frame}.jpg", label="a") for track in range(20) for frame in range(3)]
    few = [record(f"b/{number}.jpg", label="b") for number in range(10)]

    blocks = find_blocks([*frames, *few], 4)

    assert {len(block) for block in blocks if block[0].startswith("a/")} == {6}
    assert [block for block in blocks if block[0].startswith("b/")] == [
        (f"b/{n}.jpg", f"b/{n + 1}.jpg") for n in range(0, 10, 2)
    ]


def test_new_images_go_where_their_neighbors_are(tmp_path: Path) -> None:
    images, thumbnails = random_walk()
    held_back = [image for place, image in enumerate(images) if place % 7 == 3]
    index = index_of([image for image in images if image not in held_back]).model_copy(update={"root": str(tmp_path)})
    split, _ = assign_splits(index, audit_index(index, thumbnails), folder=tmp_path)
    save_split(tmp_path, index, split)
    grown = index_of(images).model_copy(update={"root": str(tmp_path)})

    later, report = assign_splits(grown, audit_index(grown, thumbnails), folder=tmp_path)

    assert later.splits.items() >= split.splits.items()
    assert report.left_out == ()
    order = [image.digest for image in images]
    for image in held_back:
        place = order.index(image.digest)
        assert later.splits[image.digest] in {later.splits[digest] for digest in order[max(0, place - 1) : place + 2]}


def test_saved_split_without_blocks_is_drawn_again_and_says_so(tmp_path: Path) -> None:
    images, thumbnails = random_walk()
    index = index_of(images).model_copy(update={"root": str(tmp_path)})
    save_split(tmp_path, index, assign_splits(index, audit_index(index))[0])

    split, _ = assign_splits(index, audit_index(index, thumbnails), folder=tmp_path)

    assert split.notes[0].startswith("The split is drawn again: images are grouped by order")
    assert split.splits == assign_splits(index, audit_index(index, thumbnails))[0].splits


@pytest.mark.parametrize(
    ("pattern", "groups"),
    [
        (r"patient(\d+)", ["7", "7", "8"]),
        (r"patient\d+", ["patient7", "patient7", "patient8"]),
        ("folder", ["ants/x", "ants/x", "ants/y"]),
        ("none", [None, None, None]),
        ("order", ["given", None, None]),
    ],
)
def test_group_images_by_path(pattern: str, groups: list[str | None]) -> None:
    paths = ["ants/x/patient7_1.jpg", "ants/x/patient7_2.jpg", "ants/y/patient8.jpg"]
    index = index_of([record(path, label="ants", group="given" if path == paths[0] else None) for path in paths])

    assert [image.group for image in group_images(index, pattern).images] == groups


@pytest.mark.parametrize(
    ("group_by", "message"),
    [
        ("(", "not a regular expression"),
        ("person", "no path matches, such as ants/1.jpg"),
        ("folder", "of ants are in one group"),
    ],
)
def test_group_images_rejects_what_makes_no_groups(group_by: str, message: str) -> None:
    index = index_of([record(f"ants/{number}.jpg", label="ants") for number in (1, 2)])

    with pytest.raises(DataError, match=message):
        group_images(index, group_by)


def test_group_images_by_a_column_of_the_table(tmp_path: Path) -> None:
    write_tree(tmp_path / "images", {"ants": 3, "bees": 3})
    paths = sorted(path.relative_to(tmp_path).as_posix() for path in (tmp_path / "images").rglob("*.*"))
    rows = [f"{path},{path.split('/')[1]},{number % 2}" for number, path in enumerate(paths)]
    (tmp_path / "table.csv").write_text("\n".join(["path,label,Patient", *rows]), encoding="utf-8")
    source = open_source(tmp_path / "table.csv")

    index = group_images(scan(source), "Patient", source.column("Patient"))

    assert [image.group for image in index.images] == ["0", "1", "0", "1", "0", "1"]
    assert source.column("nothing") is None
