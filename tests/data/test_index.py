"""The scan: the same index however it is done, nothing read twice, and workers that end."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest

from automl_tl.data import Source, Thumbnails, open_source, scan
from automl_tl.data import index as index_module
from automl_tl.data.facts import Facts, FactsCache, measure
from automl_tl.data.index import list_entries
from automl_tl.data.sources.source import Entry
from automl_tl.errors import AutomlTlError
from automl_tl.runtime.progress import Advance
from tests.data.sample_images import encoded, sample_image, write_tree


class RecordingProgress:
    """Counts files, and fails after ``limit`` of them."""

    def __init__(self, limit: int | None = None) -> None:
        self.total, self.done, self._limit = 0, 0, limit

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
        if self._limit is not None and self.done >= self._limit:
            raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = write_tree(tmp_path / "images", {"ants": 5, "bees": 6})
    (root / "ants" / "broken.jpg").write_bytes(encoded(sample_image(1))[:300])
    for file in root.rglob("*.jpg"):  # older than the tick of a clock, so that their stamps are trusted
        os.utime(file, (1_600_000_000, 1_600_000_000))
    return root


@contextmanager
def counted_decodings() -> Iterator[list[int]]:
    calls: list[int] = []

    def counting(data: bytes) -> Facts:
        calls.append(len(data))
        return measure(data)

    with patch("automl_tl.data.index.measure", counting):
        yield calls


def test_scan_does_not_depend_on_threads(tree: Path) -> None:
    assert scan(open_source(tree), workers=1) == scan(open_source(tree), workers=3)


def test_scan_reports_progress_of_every_file(tree: Path, tmp_path: Path) -> None:
    first, second = RecordingProgress(), RecordingProgress()

    scan(open_source(tree), cache_dir=tmp_path / "cache", progress=first)
    scan(open_source(tree), cache_dir=tmp_path / "cache", progress=second)

    assert (first.total, first.done) == (second.total, second.done) == (12, 12)


def test_scan_decodes_nothing_twice(tree: Path, tmp_path: Path) -> None:
    plain = scan(open_source(tree))
    with counted_decodings() as first:
        scan(open_source(tree), cache_dir=tmp_path / "cache")
    with counted_decodings() as second:
        again = scan(open_source(tree), cache_dir=tmp_path / "cache")

    assert (len(first), len(second)) == (12, 0)
    assert again == plain


def test_scan_knows_moved_files_by_content(tree: Path, tmp_path: Path) -> None:
    scan(open_source(tree), cache_dir=tmp_path / "cache")
    tree.rename(tmp_path / "moved")

    with counted_decodings() as decodings:
        scan(open_source(tmp_path / "moved"), cache_dir=tmp_path / "cache")

    assert decodings == []


def test_scan_does_not_read_unchanged_files(tree: Path, tmp_path: Path) -> None:
    with patch("automl_tl.data.sources.source.CLOCK_TICK_S", -1.0):
        scan(open_source(tree), cache_dir=tmp_path / "cache")
        with patch("automl_tl.data.index.sha256", side_effect=AssertionError):
            index = scan(open_source(tree), cache_dir=tmp_path / "cache")

    assert len(index.images) == 11


def test_scan_reads_changed_files(tree: Path, tmp_path: Path) -> None:
    with patch("automl_tl.data.sources.source.CLOCK_TICK_S", -1.0):
        before = scan(open_source(tree), cache_dir=tmp_path / "cache")
        (tree / "ants" / "000.jpg").write_bytes(encoded(sample_image(99)))
        after = scan(open_source(tree), cache_dir=tmp_path / "cache")

    changed = [new.path for old, new in zip(before.images, after.images, strict=True) if old != new]
    assert changed == ["ants/000.jpg"]


def test_scan_replaces_damaged_cache(tree: Path, tmp_path: Path) -> None:
    plain = scan(open_source(tree))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "images.sqlite").write_bytes(b"no database" * 1000)

    assert scan(open_source(tree), cache_dir=tmp_path / "cache") == plain


def test_concurrent_scans_share_one_cache(tree: Path, tmp_path: Path) -> None:
    plain = scan(open_source(tree))

    with ThreadPoolExecutor(4) as pool:
        indexes = list(pool.map(lambda _: scan(open_source(tree), cache_dir=tmp_path / "cache", workers=1), range(8)))

    assert indexes == [plain] * 8


def test_scan_does_not_cache_missing_plugins(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as without the extra [heic]
    (tree / "ants" / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    index = scan(open_source(tree), cache_dir=tmp_path / "cache")
    (row,) = [row for row in index.rejected if row.path == "ants/photo.heic"]

    assert row.reason == "needs_plugin"
    with FactsCache(tmp_path / "cache").lookup() as find:
        assert all(find(image.digest) for image in index.images)
    with counted_decodings() as decodings:
        scan(open_source(tree), cache_dir=tmp_path / "cache")
    assert len(decodings) == 1


def test_scan_shares_equal_values_of_records(tree: Path, tmp_path: Path) -> None:
    scan(open_source(tree), cache_dir=tmp_path / "cache")

    for index in (scan(open_source(tree)), scan(open_source(tree), cache_dir=tmp_path / "cache")):
        first, second = index.images[:2]
        assert first.label is second.label
        assert first.format is second.format
        assert first.remarks is second.remarks


def test_scan_ends_its_workers_on_errors(tree: Path) -> None:
    with pytest.raises(OSError, match="No space") as caught:
        scan(open_source(tree), progress=RecordingProgress(limit=4), workers=2)

    assert not [thread for thread in threading.enumerate() if thread.name.startswith("scan")]
    del caught


SCRIPT = """
import sys
from automl_tl.data import index, open_source, scan
index.PROCESSES_FROM, index.PROCESS_CHUNK = 1, 4
print(scan(open_source(sys.argv[1]), workers=2).model_dump_json(), flush=True)
"""


def test_scan_in_processes_gives_same_index_and_ignores_main_script(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")  # without a guard for __main__

    done = subprocess.run(
        [sys.executable, tmp_path / "script.py", tree], capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.stdout.splitlines(), done.stderr) == ([scan(open_source(tree)).model_dump_json()], "")


class KillingProgress(RecordingProgress):
    """Kills a worker process once it has worked."""

    def _advance(self, done: int) -> None:
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, signal.SIGKILL)


def test_scan_reports_a_killed_worker(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "PROCESSES_FROM", 1)
    monkeypatch.setattr(index_module, "PROCESS_CHUNK", 1)

    with pytest.raises(AutomlTlError, match="worker process of the scan ended"):
        scan(open_source(tree), progress=KillingProgress(), workers=2)


class ManyEntries(Source):
    """Names of images without any files."""

    kind, root = "class_folders", Path("images")

    def entries(self) -> Iterator[Entry]:
        for number in range(2000):
            yield Entry(f"ants/IMG_{number:06}.jpg", label="ants")

    def read(self, path: str) -> bytes:
        return path.encode()


def unique_facts(data: bytes) -> Facts:
    size = {"num_bytes": 1900 + data[-5] % 7, "width_px": 64, "height_px": 48}
    looks = {"brightness": 0.5, "contrast": 0.2, "color": 0.1, "sharpness": float(data[-6]) / 7, "camera": None}
    return Facts(
        {**size, **looks, "format": "JPEG", "mode": "RGB", "num_frames": 1, "captured_at": None, "remarks": ()},
        thumbnail=data.ljust(1024),
    )


def test_scan_takes_little_memory_per_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "measure", unique_facts)
    tracemalloc.start()

    with Thumbnails() as thumbnails:
        index = scan(ManyEntries(), workers=1, thumbnails=thumbnails)
        thumbnail = thumbnails[index.images[7].digest]

    num_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert num_bytes / len(index.images) < 800
    assert thumbnail.rstrip() == b"ants/IMG_000007.jpg"


def test_list_entries_rejects_names_that_are_not_unicode() -> None:
    entries = [
        Entry("ants/\udcff.jpg", label="ants"),
        Entry("b.jpg", label="\ud800"),
        Entry("c.jpg", label="x", group="\udc80"),
        Entry("d", label="ä"),
        Entry(".\udcff", ignored="hidden"),
    ]

    waiting, rejected, ignored = list_entries(entries)

    assert [(row.path, row.reason) for row in rejected] == [
        ("ants/\\xff.jpg", "name_not_unicode"),
        ("b.jpg", "name_not_unicode"),
        ("c.jpg", "name_not_unicode"),
    ]
    assert (list(waiting), ignored) == (["d"], {"hidden": 1})
