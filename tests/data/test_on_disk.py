"""What grows with the number of images lies on disk, and reads as if it were in memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, repeat
from pathlib import Path

import numpy as np
import pytest

from automl_tl.data import open_source, parallel
from automl_tl.data.auditing import searching
from automl_tl.data.auditing.searching import nearest
from automl_tl.data.on_disk import DiskArray
from tests.data.pictures import write_tree


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
