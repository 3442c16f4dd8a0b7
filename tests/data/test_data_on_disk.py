"""What grows with the number of images lies on disk, and reads as if it were in memory."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import islice, repeat
from operator import eq
from pathlib import Path

import numpy as np
import pytest

from automl_tl.data import open_source, parallel
from automl_tl.data.auditing import searching
from automl_tl.data.auditing.searching import nearest
from automl_tl.data.listing import Listing
from automl_tl.data.long_json import long_json
from automl_tl.data.on_disk import DiskArray
from automl_tl.data.records import Records
from automl_tl.data.sources.source import Entry
from automl_tl.values import DatasetIndex
from tests.data.pictures import index_of, record, write_tree

IMAGES = tuple(
    record(
        f"{label}/{number}.jpg",
        label=label,
        part="test" if number == 1 else None,
        captured_at=datetime(2026, 1, 2, 3, 4, 5, 678) if number == 2 else None,
        remarks=("rotated", "gray") if number == 3 else (),
        thumbnail=bytes([number]) * 1024,
        brightness=number / 7,
    )
    for label in ("Ants", "ants", "bees", "ärger", "蜂", "🐝")
    for number in range(4)
)
"""In the order of their paths."""


def test_records_on_disk_are_those_that_were_given() -> None:
    records = Records.of(tuple(reversed(IMAGES)))

    assert records == IMAGES
    assert eq(IMAGES, records)
    assert tuple(records) == IMAGES
    assert Records.of(records) is records
    assert IMAGES[5] in records
    assert records != IMAGES[1:]
    assert records != Records.of(tuple(image.model_copy(update={"label": "x"}) for image in IMAGES))


@pytest.mark.parametrize("at", [0, 5, -1, -len(IMAGES), slice(3), slice(2, 9), slice(-3, None), slice(None, None, 5)])
@pytest.mark.parametrize("step", [None, -1])
def test_records_are_had_by_their_place(at: int | slice, step: int | None) -> None:
    at = slice(at.stop, at.start, step) if isinstance(at, slice) and step else at

    assert Records.of(IMAGES)[at] == IMAGES[at]


def test_there_is_no_record_after_the_last() -> None:
    with pytest.raises(IndexError):
        Records.of(IMAGES)[len(IMAGES)]


def test_some_records_are_left_out_and_others_found() -> None:
    records = Records.of(IMAGES)
    fewer = records.without(["bees/0.jpg", "nowhere.jpg", "bees/0.jpg"]).without(["🐝/3.jpg"])

    assert [image.path for image in fewer] == [image.path for image in IMAGES if image.path not in ("bees/0.jpg", "🐝/3.jpg")]
    assert len(fewer) == len(IMAGES) - 2
    assert fewer.at(["bees/0.jpg", "bees/1.jpg"]) == {"bees/1.jpg": records.at(["bees/1.jpg"])["bees/1.jpg"]}
    assert {image.thumbnail for image in fewer.without_thumbnails()} == {b""}
    assert len(records) == len(IMAGES)


def test_an_index_on_disk_is_the_same_value() -> None:
    in_memory = index_of(IMAGES)
    on_disk = index_of(IMAGES).model_copy(update={"images": Records.of(IMAGES)})

    assert on_disk == in_memory
    assert on_disk.model_dump() == in_memory.model_dump()
    assert DatasetIndex.model_validate_json(on_disk.model_dump_json()) == on_disk
    assert DatasetIndex.model_validate({**dict(in_memory), "images": on_disk.images}).images is on_disk.images


@pytest.mark.parametrize("number", [0, 1, 3])
def test_long_json_is_json(number: int) -> None:
    rows = [{"path": f"{at}\n", "remarks": [at], "nothing": []} for at in range(number)]
    whole = {"root": 'a "rows": [] b', "inner": {"first": [], "rows": rows, "last": {"rows": [1]}}}
    empty = json.dumps({**whole, "inner": {**whole["inner"], "rows": []}}, indent=2)  # type: ignore[dict-item]

    pieces = "".join(long_json(empty, "rows", (json.dumps(row, indent=2) for row in rows)))

    assert pieces == json.dumps(whole, indent=2)


def test_rows_of_numbers_are_read_in_part() -> None:
    numbers = np.arange(60, dtype=np.float32).reshape(20, 3)

    rows = DiskArray((np.float32, 3), [numbers[:7], numbers[7:7], numbers[7:]])

    assert len(rows) == 20
    assert np.array_equal(rows[:], numbers)
    assert np.array_equal(rows[4:30], numbers[4:])
    assert rows[30:].shape == (0, 3)
    assert np.array_equal(rows.take(np.array([[3, 19], [0, 3]])), numbers[[[3, 19], [0, 3]]])
    assert [len(block) for block in rows.blocks(8)] == [8, 8, 4]
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda at: rows.take(np.array([at])), [*range(20)] * 20)
    assert np.array_equal(np.concatenate(list(found)), np.tile(numbers, (20, 1)))


def test_an_entry_that_nothing_could_write_gets_a_row() -> None:
    entries = [
        Entry("ants/\udcff.jpg", label="ants"),
        Entry("b.jpg", label="\ud800"),
        Entry("c.jpg", label="x", group="\udc80"),
        Entry("d", label="ä"),
        Entry(".\udcff", ignored="hidden"),
    ]

    listing = Listing(entries)

    assert [(row.path, row.reason) for row in listing.rejected] == [
        ("ants/\\udcff.jpg", "name_not_unicode"),
        ("b.jpg", "name_not_unicode"),
        ("c.jpg", "name_not_unicode"),
    ]
    assert (listing.num_files, listing.num_wanted, listing.ignored) == (5, 1, {"hidden": 1})


def test_what_is_not_taken_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(write_tree(tmp_path, {"ants": 1, "bees": 1}))
    monkeypatch.setattr(parallel, "CHUNK", 4)
    monkeypatch.setattr(parallel, "LARGEST_CHUNK", 4)
    handed_over: list[str] = []

    def paths() -> Iterator[str]:
        for path in repeat("ants/000.jpg", parallel.PROCESSES_FROM):
            handed_over.append(path)
            yield path

    looks = parallel.look_at_all(source, paths(), parallel.PROCESSES_FROM, None, 2, lambda done: None)
    some = list(islice(looks, 10))

    assert [look.path for look in some] == ["ants/000.jpg"] * 10
    assert len(handed_over) <= 12 + 4 * 2 * parallel.UNDER_WAY
    looks.close()


def peak(do: Callable[[int], object], number: int) -> int:
    tracemalloc.start()
    try:
        do(number)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def searched(number: int) -> None:
    generator = np.random.default_rng(0)
    blocks = (generator.normal(size=(100, 16)).astype(np.float32) for _ in range(number // 100))
    rows = DiskArray((np.float32, 16), blocks)
    assert len(nearest(rows, rows, 3, exact_up_to=100)) == number


@pytest.mark.parametrize("do", [searched])
def test_memory_does_not_grow_with_the_number_of_images(do: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AT_ONCE", "SLAB", "SORTED"):
        monkeypatch.setattr(searching, name, 200)
    do(400)  # what is made once

    few, many = peak(do, 1_000), peak(do, 6_000)

    assert many < few + 200_000  # 40 bytes per image
