"""The scan: the same result however it is done, and nothing looked at twice."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice, repeat
from pathlib import Path
from unittest.mock import patch

import pytest

from automl_tl.data import audit, open_source, parallel, scan, scanning
from automl_tl.data.auditing import near_duplicates
from automl_tl.data.facts_cache import FactsCache
from automl_tl.data.looking import Look
from automl_tl.data.measuring import measure
from automl_tl.data.sources.source import Entry
from automl_tl.runtime.progress import Advance
from tests.data.pictures import encoded, picture, write_tree


class Telling:
    """Remembers what the progress was told."""

    def __init__(self) -> None:
        self.total, self.done = 0, 0

    def info(self, text: str) -> None:
        raise AssertionError(text)

    def warn(self, text: str) -> None:
        raise AssertionError(text)

    @contextmanager
    def track(self, description: str, total: int) -> Iterator[Advance]:
        self.total += total
        yield self._advance

    def _advance(self, done: int) -> None:
        self.done += done


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = write_tree(tmp_path / "images", {"ants": 5, "bees": 6})
    (root / "ants" / "broken.jpg").write_bytes(encoded(picture(1))[:300])
    for file in root.rglob("*.jpg"):  # older than the tick of a clock, so that their stamps are trusted
        os.utime(file, (1_600_000_000, 1_600_000_000))
    return root


@contextmanager
def counted_decodings() -> Iterator[list[int]]:
    calls: list[int] = []

    def counting(data: bytes) -> dict[str, object]:
        calls.append(len(data))
        return measure(data)

    with patch("automl_tl.data.looking.measure", counting):
        yield calls


def test_threads_processes_and_one_worker_give_the_same_index(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = scan(open_source(tree), num_workers=1)
    in_threads = scan(open_source(tree), num_workers=3)
    monkeypatch.setattr(parallel, "PROCESSES_FROM", 1)
    monkeypatch.setattr(parallel, "CHUNK", 4)

    in_processes = scan(open_source(tree), num_workers=2)

    assert alone == in_threads == in_processes


def test_the_story_is_told_of_every_image(tree: Path, tmp_path: Path) -> None:
    first, second = Telling(), Telling()

    scan(open_source(tree), cache_dir=tmp_path / "cache", progress=first)
    scan(open_source(tree), cache_dir=tmp_path / "cache", progress=second)

    assert (first.total, first.done) == (second.total, second.done) == (12, 12)


def test_a_second_scan_decodes_nothing_and_finds_the_same(tree: Path, tmp_path: Path) -> None:
    plain = scan(open_source(tree))
    with counted_decodings() as first:
        scan(open_source(tree), cache_dir=tmp_path / "cache")
    with counted_decodings() as second:
        again = scan(open_source(tree), cache_dir=tmp_path / "cache")

    assert (len(first), len(second)) == (12, 0)
    assert again == plain


def test_files_that_moved_are_known_by_their_content(tree: Path, tmp_path: Path) -> None:
    scan(open_source(tree), cache_dir=tmp_path / "cache")
    tree.rename(tmp_path / "moved")

    with counted_decodings() as decodings:
        scan(open_source(tmp_path / "moved"), cache_dir=tmp_path / "cache")

    assert decodings == []


def test_unchanged_files_are_not_even_read(tree: Path, tmp_path: Path) -> None:
    with patch("automl_tl.data.sources.source.CLOCK_TICK_S", -1.0):
        scan(open_source(tree), cache_dir=tmp_path / "cache")
        with patch("automl_tl.data.looking.sha256", side_effect=AssertionError):
            index = scan(open_source(tree), cache_dir=tmp_path / "cache")

    assert len(index.images) == 11


def test_a_changed_file_is_looked_at_again(tree: Path, tmp_path: Path) -> None:
    with patch("automl_tl.data.sources.source.CLOCK_TICK_S", -1.0):
        before = scan(open_source(tree), cache_dir=tmp_path / "cache")
        (tree / "ants" / "000.jpg").write_bytes(encoded(picture(99)))
        after = scan(open_source(tree), cache_dir=tmp_path / "cache")

    changed = [new.path for old, new in zip(before.images, after.images, strict=True) if old != new]
    assert changed == ["ants/000.jpg"]


def test_a_damaged_cache_is_made_anew(tree: Path, tmp_path: Path) -> None:
    plain = scan(open_source(tree))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "images.sqlite").write_bytes(b"no database" * 1000)

    assert scan(open_source(tree), cache_dir=tmp_path / "cache") == plain


def test_scans_at_the_same_time_share_one_cache(tree: Path, tmp_path: Path) -> None:
    plain = scan(open_source(tree))

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: scan(open_source(tree), cache_dir=tmp_path / "cache", num_workers=1), range(8)))

    assert found == [plain] * 8


def test_a_missing_plugin_is_not_remembered(tree: Path, tmp_path: Path) -> None:
    (tree / "ants" / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    index = scan(open_source(tree), cache_dir=tmp_path / "cache")
    (row,) = [row for row in index.rejected if row.path == "ants/photo.heic"]

    assert row.reason == "needs_plugin"
    assert len(FactsCache(tmp_path / "cache").find_all([image.digest for image in index.images])) == 11
    with counted_decodings() as decodings:
        scan(open_source(tree), cache_dir=tmp_path / "cache")
    assert len(decodings) == 1


def test_what_many_images_have_in_common_is_kept_once(tree: Path, tmp_path: Path) -> None:
    scan(open_source(tree), cache_dir=tmp_path / "cache")

    for index in (scan(open_source(tree)), scan(open_source(tree), cache_dir=tmp_path / "cache")):
        first, second = index.images[:2]
        assert first.label is second.label
        assert first.format is second.format
        assert first.model_fields_set is second.model_fields_set


def test_workers_are_gone_when_what_they_found_can_not_be_kept(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    def looking(*given: object) -> Iterator[Look]:
        try:
            yield from parallel.look_at_all(*given)  # type: ignore[arg-type]
        finally:
            ended.append("looking")

    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(scanning, "look_at_all", looking)
    monkeypatch.setattr(scanning, "make_record", full)

    with pytest.raises(OSError, match="No space") as told:
        scan(open_source(tree))

    assert ended == ["looking"]
    del told


def test_scan_and_search_for_copies_use_no_more_processors_than_the_process_may(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools: list[int] = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, max_workers: int, thread_name_prefix: str = "") -> None:
            pools.append(max_workers)
            super().__init__(max_workers, thread_name_prefix)

    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 5, 7}, raising=False)
    monkeypatch.setattr(parallel, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(near_duplicates, "ThreadPoolExecutor", Pool)

    audit(scan(open_source(tree)))

    assert pools == [3, 3]


def test_list_entries_rejects_names_that_are_not_unicode() -> None:
    entries = [
        Entry("ants/\udcff.jpg", label="ants"),
        Entry("b.jpg", label="\ud800"),
        Entry("c.jpg", label="x", group="\udc80"),
        Entry("d", label="ä"),
        Entry(".\udcff", ignored="hidden"),
    ]

    waiting, rejected, ignored = scanning.list_entries(entries)

    assert [(row.path, row.reason) for row in rejected] == [
        ("ants/\\udcff.jpg", "name_not_unicode"),
        ("b.jpg", "name_not_unicode"),
        ("c.jpg", "name_not_unicode"),
    ]
    assert (list(waiting), ignored) == (["d"], {"hidden": 1})


def test_look_at_all_reads_no_more_than_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(write_tree(tmp_path, {"ants": 1, "bees": 1}))
    monkeypatch.setattr(parallel, "CHUNK", 4)
    monkeypatch.setattr(parallel, "LARGEST_CHUNK", 4)
    submitted: list[str] = []

    def paths() -> Iterator[str]:
        for path in repeat("ants/000.jpg", parallel.PROCESSES_FROM):
            submitted.append(path)
            yield path

    looks = parallel.look_at_all(source, paths(), parallel.PROCESSES_FROM, None, 2, lambda done: None)
    taken = list(islice(looks, 10))

    assert [look.path for look in taken] == ["ants/000.jpg"] * 10
    assert len(submitted) <= 12 + 4 * 2 * parallel.UNDER_WAY
    looks.close()
