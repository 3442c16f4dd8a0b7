"""The scan: read and decode every file of a source once, in parallel, and account for every file.

Threads scan a few files. Of a small image most of the work is Python, which only processes spread over all cores; they take
a second to start, so they scan many files.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from hashlib import sha256
from itertools import islice
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any, Final, NamedTuple
from unicodedata import normalize

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from automl_tl.data.decode import quiet_pillow
from automl_tl.data.facts import Facts, FactsCache, Thumbnails, measure
from automl_tl.data.sources.source import Entry, Source, in_unicode
from automl_tl.errors import AutomlTlError, NoImagesError
from automl_tl.runtime.child_processes import safe_import_path
from automl_tl.runtime.progress import QUIET, Advance, Progress
from automl_tl.runtime.threads import batches, num_cores
from automl_tl.values import AppliedCorrections, DatasetIndex, ImageRecord, RejectedFile

# Values that many images have in common: one object for all of them.
SHARED_FIELDS: Final = (
    *("label", "group", "format", "mode", "camera", "remarks"),
    *("num_bytes", "width_px", "height_px", "brightness", "contrast", "color"),
)
TEMPORARY_REASONS: Final = frozenset({"missing_file", "unreadable", "needs_plugin"})  # may be gone in the next scan

SAVE_EVERY: Final = 512  # files; what an interrupt can cost
PROCESSES_FROM: Final = 2000  # files
THREAD_CHUNK, PROCESS_CHUNK = 4, 64  # files
CHUNKS_PER_WORKER: Final = 3  # one in work, two waiting
MAX_PROCESSES: Final = 61  # that Windows can wait for


class ScannedFile(NamedTuple):
    """One file that was read, or is known from the cache."""

    path: str
    facts: Facts
    digest: str = ""
    stamp: str | None = None  # from before reading, so that a later change shows
    is_new: bool = True


ScanElsewhere = Callable[[Iterable[Sequence[str]]], Iterable[list[ScannedFile]]]
"""Scans chunks of paths on other machines, and yields the files of each chunk in any order."""


def scan(
    source: Source,
    *,
    cache_dir: Path | None = None,
    progress: Progress = QUIET,
    thumbnails: Thumbnails | None = None,
    workers: int | ScanElsewhere | None = None,
    allow_empty: bool = False,
) -> DatasetIndex:
    """Index everything that ``source`` holds; the result depends on neither the order of files nor the number of workers.

    Args:
        source: what to read.
        cache_dir: where facts about images are stored between scans. Default: nowhere.
        progress: receives progress.
        thumbnails: receives the thumbnail of each image; ``audit_index`` finds near-duplicates by them.
        workers: threads or processes, or a function that scans on other machines. Default: one process per core.
        allow_empty: return an index without images rather than raise.

    Raises:
        NoImagesError: no file of the source is a usable image.
        AutomlTlError: a worker process was killed.
    """
    entries, rejected, ignored = list_entries(source.entries())
    num_files = len(entries) + len(rejected) + ignored.total()
    cache = FactsCache(cache_dir) if cache_dir else None
    with (
        quiet_pillow(),
        progress.track("Scanning images", len(entries)) as advance,
        # Closed explicitly: workers must be gone even if an exception keeps this frame alive.
        closing(_scan_files(source, list(entries), cache, workers or num_cores(), advance)) as files,
    ):
        images = _collect(files, entries, rejected, thumbnails)
    if not images and not allow_empty:
        first = min(rejected, key=lambda row: row.path, default=None)
        example = f", such as {first.path}: {first.detail}" if first else ""
        raise NoImagesError(source.name, f"{num_files} files{example}; `tl data check {source.name}` lists them")
    classes = {image.label for image in images}
    return DatasetIndex(
        root=source.name,
        source=source.kind,
        layout=source.layout or source.kind.replace("_", " "),
        classes=tuple(sorted(classes)),
        images=tuple(sorted(images, key=lambda image: image.path)),
        rejected=tuple(sorted(rejected, key=lambda row: row.path)),
        empty_classes=tuple(sorted({normalize("NFC", in_unicode(name)) for name in source.class_names()} - classes)),
        ignored=dict(sorted(ignored.items())),
        num_files=num_files,
    )


def exclude(images: Sequence[ImageRecord], paths: Iterable[str]) -> tuple[ImageRecord, ...]:
    """Exclude images.

    Args:
        images: records.
        paths: of those to exclude.

    Returns:
        The other records, sorted by path.
    """
    excluded = set(paths)
    return tuple(sorted((image for image in images if image.path not in excluded), key=lambda image: image.path))


def with_source_labels(images: Sequence[ImageRecord], corrections: AppliedCorrections | None) -> tuple[ImageRecord, ...]:
    """The images with the labels that the source gives, so that corrections move no image to another split.

    Args:
        images: records with corrected labels.
        corrections: what was corrected, if anything.
    """
    before = {image.path: image.before for image in corrections.images} if corrections else {}
    return tuple(replace(image, label=before.get(image.path, image.label)) for image in images)


def list_entries(entries: Iterable[Entry]) -> tuple[dict[str, Entry], list[RejectedFile], Counter[str]]:
    """Images to read, by path in sorted order; rejected files; and the number of ignored files by reason."""
    images: dict[str, Entry] = {}
    rejected: list[RejectedFile] = []
    ignored: Counter[str] = Counter()
    for entry in map(_with_one_form, map(_in_unicode, entries)):
        if entry.ignored:
            ignored[entry.ignored] += 1
        elif entry.rejected:
            rejected.append(_rejected(entry, entry.rejected, entry.detail))
        else:
            images[entry.path] = entry
    return dict(sorted(images.items())), rejected, ignored


def _in_unicode(entry: Entry) -> Entry:
    """``entry``, rejected if one of its texts is not valid Unicode, as in some archives: no report could be written."""
    try:
        f"{entry.path}{entry.label}{entry.group}".encode()
    except UnicodeEncodeError:
        detail = entry.detail or "its name, label or group is not valid UTF-8; rename it"
        reason = None if entry.ignored else entry.rejected or "name_not_unicode"
        return replace(entry, path=in_unicode(entry.path), label=None, group=None, rejected=reason, detail=detail)
    return entry


def _with_one_form(entry: Entry) -> Entry:
    """``entry`` with its label in one Unicode form: macOS writes folder names in another than Linux and Windows."""
    if entry.label is None or entry.label.isascii():
        return entry
    return replace(entry, label=normalize("NFC", entry.label))


def _collect(
    files: Iterable[ScannedFile], entries: dict[str, Entry], rejected: list[RejectedFile], thumbnails: Thumbnails | None
) -> list[ImageRecord]:
    """Records of the usable images; the others are added to ``rejected``. Takes ``entries`` out, which frees their memory."""
    images: list[ImageRecord] = []
    shared: defaultdict[str, dict[object, object]] = defaultdict(dict)
    for file in files:
        entry, facts = entries.pop(file.path), file.facts
        if facts.reason:
            rejected.append(_rejected(entry, facts.reason, facts.detail, file.digest))
        else:
            images.append(_record(entry, file, shared))
            if thumbnails is not None:
                thumbnails.add(file.digest, facts.thumbnail)
    return images


def _rejected(entry: Entry, reason: str, detail: str, digest: str = "") -> RejectedFile:
    """The row of a file that cannot be used; without bytes, the digest is that of its path."""
    digest = digest or sha256(entry.path.encode()).hexdigest()
    return RejectedFile(path=entry.path, label=entry.label, reason=reason, detail=detail, digest=digest)


def _record(entry: Entry, file: ScannedFile, shared: defaultdict[str, dict[object, object]]) -> ImageRecord:
    own = {"path": entry.path, "label": entry.label, "split": entry.split, "group": entry.group, "digest": file.digest}
    fields: dict[str, Any] = {**file.facts.fields, **own}
    return ImageRecord(**fields | {name: shared[name].setdefault(fields[name], fields[name]) for name in SHARED_FIELDS})


# --------------------------------------------------------------------------------------------------------------- files


def _scan_files(
    source: Source, paths: Sequence[str], cache: FactsCache | None, workers: int | ScanElsewhere, advance: Advance
) -> Generator[ScannedFile]:
    """Every file once: those that have not changed from the cache, then the others."""
    unread: list[str] = []
    for page in batches(paths, SAVE_EVERY):
        unchanged = _unchanged(source, page, cache) if cache else {}
        advance(len(unchanged))
        yield from unchanged.values()
        unread += [path for path in page if path not in unchanged]
    # An open connection: SQLite would lock out the others whenever the last one closes.
    held = cache.lookup() if cache else nullcontext()
    reading = (
        _read_in_parallel(source, unread, cache, workers, advance)
        if isinstance(workers, int)
        else _read_elsewhere(workers, unread, advance)
    )
    with held, closing(reading) as files:
        for read in batches(files, SAVE_EVERY):
            if cache:
                _save(source, cache, read)
            yield from read


def _unchanged(source: Source, paths: Sequence[str], cache: FactsCache) -> dict[str, ScannedFile]:
    """Files whose stamp is the one of an earlier scan, by path; they are not read."""
    stamps, files = cache.stamps(_place(source), paths), dict[str, ScannedFile]()
    with cache.lookup() as find:
        for path in paths:
            stamp, digest = stamps.get(path, (None, ""))
            if stamp and stamp == source.stamp(path) and (facts := find(digest)):
                files[path] = ScannedFile(path, facts, digest, is_new=False)
    return files


def _save(source: Source, cache: FactsCache, files: Sequence[ScannedFile]) -> None:
    lasting = [file for file in files if file.digest and file.facts.reason not in TEMPORARY_REASONS]
    cache.add({file.digest: file.facts for file in lasting if file.is_new})
    cache.add_stamps(_place(source), [(file.path, file.stamp, file.digest) for file in lasting if file.stamp])


def _place(source: Source) -> str:
    return source.url or in_unicode(str(source.root.resolve()))


def _read(source: Source, cache: FactsCache | None, paths: Sequence[str]) -> list[ScannedFile]:
    with cache.lookup() if cache else nullcontext() as find:
        return [read_file(source, path, find) for path in paths]


def read_file(source: Source, path: str, find: Callable[[str], Facts | None] | None) -> ScannedFile:
    """Read and measure one file.

    Args:
        source: holds the file.
        path: in ``source``.
        find: returns known facts by digest; ``None``: nothing is stored, so that no stamp is needed.
    """
    stamp = source.stamp(path) if find else None
    try:
        data = source.read(path)
    except FileNotFoundError:
        return ScannedFile(path, Facts(reason="missing_file", detail="there is no such file"))
    except OSError as error:
        return ScannedFile(path, Facts(reason="unreadable", detail=error.strerror or str(error)))
    digest = sha256(data).hexdigest()
    if find and (known := find(digest)):
        return ScannedFile(path, known, digest, stamp, is_new=False)
    return ScannedFile(path, measure(data), digest, stamp)


# ------------------------------------------------------------------------------------------------------------- workers


def _read_elsewhere(scan_elsewhere: ScanElsewhere, paths: Sequence[str], advance: Advance) -> Generator[ScannedFile]:
    for files in scan_elsewhere(batches(paths, PROCESS_CHUNK)):
        advance(len(files))
        yield from files


def _read_in_parallel(
    source: Source, paths: Sequence[str], cache: FactsCache | None, num_workers: int, advance: Advance
) -> Generator[ScannedFile]:
    """Read ``paths`` in order, a bounded number ahead of what is consumed."""
    in_processes = num_workers > 1 and len(paths) >= PROCESSES_FROM
    with safe_import_path():
        pool: Executor = (
            ProcessPoolExecutor(
                min(num_workers, MAX_PROCESSES), multiprocessing.get_context("spawn"), _start_worker, (source, cache)
            )
            if in_processes
            else ThreadPoolExecutor(num_workers, thread_name_prefix="scan")
        )
    work = _read_in_worker if in_processes else partial(_read, source, cache)
    chunks = batches(paths, PROCESS_CHUNK if in_processes else THREAD_CHUNK)
    pending: deque[Future[list[ScannedFile]]] = deque()
    try:
        while True:
            for chunk in islice(chunks, CHUNKS_PER_WORKER * num_workers - len(pending)):
                with _without_main(), safe_import_path():
                    pending.append(pool.submit(work, chunk))
            if not pending:
                return
            files = pending.popleft().result()
            advance(len(files))
            yield from files
    except BrokenProcessPool as error:
        problem = "A worker process of the scan ended, perhaps killed because memory ran out"
        raise AutomlTlError(f"{problem}. Free some memory and run the command again.") from error
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _without_main() -> Iterator[None]:
    """Start worker processes without the user's script, which multiprocessing would run again in each of them."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _start_worker(source: Source, cache: FactsCache | None) -> None:
    global _read_in_this_process
    _read_in_this_process = partial(_read, source, cache)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process ends the workers
    threadpool_limits(1)  # BLAS threads of several workers would wait for each other: 6 times slower
    Thread(target=_end_with_parent, daemon=True).start()


_read_in_this_process: Callable[[Sequence[str]], list[ScannedFile]]


def _read_in_worker(paths: Sequence[str]) -> list[ScannedFile]:
    with quiet_pillow():
        return _read_in_this_process(paths)


def _end_with_parent() -> None:
    """End this process when its parent was killed; it would wait for work forever."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
