"""The scan: every file of a source opened and decoded once, in parallel, and nothing left unmentioned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Final

from automl_tl.data.decoding import quiet_pillow
from automl_tl.data.facts_cache import FactsCache, KnownFacts
from automl_tl.data.looking import Look
from automl_tl.data.parallel import look_at_all
from automl_tl.data.records import make_record
from automl_tl.data.sources.source import Entry, Source, in_unicode
from automl_tl.errors import NoImagesError
from automl_tl.runtime.progress import QUIET, Advance, Progress
from automl_tl.runtime.threads import batches, num_cores
from automl_tl.values import DatasetIndex, RejectedFile

__all__ = ["scan"]

KEEP_EVERY: Final = 512  # images; what Ctrl-C can cost


def scan(
    source: Source,
    *,
    cache_dir: Path | None = None,
    progress: Progress = QUIET,
    num_workers: int | None = None,
    none_is_fine: bool = False,
) -> DatasetIndex:
    """Index of all that ``source`` holds; the same for every order of files and number of workers.

    Args:
        source: what to read.
        cache_dir: where facts about images are kept between scans, by the digest of their bytes; absent: nowhere.
        progress: receives progress.
        num_workers: absent: as many as there are cores to use.
        none_is_fine: give an index without images, to be looked at, rather than raise.

    Raises:
        NoImagesError: no file of the source is a usable image.
    """
    waiting, rejected, ignored = list_entries(source.entries())
    num_files = len(waiting) + len(rejected) + ignored.total()
    cache = FactsCache(cache_dir) if cache_dir else None
    with quiet_pillow(), progress.track("Looking at the images", len(waiting)) as advance:
        known = _known(source, waiting, cache, advance) if cache else ()
        # Closed here, whatever happens: workers that garbage collection has to end may be waited for by their own thread.
        with closing(_look(source, waiting, cache, num_workers or num_cores(), advance)) as looked:
            images = sorted(map(make_record, _accepted(chain(known, looked), rejected)), key=lambda image: image.path)
    classes = tuple(sorted({image.label for image in images}))
    index = DatasetIndex(
        root=str(source.root),
        source=source.kind,
        classes=classes,
        images=tuple(images),
        rejected=tuple(sorted(rejected, key=lambda row: row.path)),
        empty_classes=tuple(sorted({in_unicode(name) for name in source.class_names()} - set(classes))),
        ignored=dict(sorted(ignored.items())),
        num_files=num_files,
    )
    if not images and not none_is_fine:
        raise NoImagesError(source.root, f"{index.num_files} files; `tl data check {source.root}` lists them")
    return index


def list_entries(entries: Iterable[Entry]) -> tuple[dict[str, Entry], list[RejectedFile], Counter[str]]:
    """Images to read by path, in order of paths; rejected files; and the number of ignored files by reason."""
    waiting: dict[str, Entry] = {}
    rejected: list[RejectedFile] = []
    ignored: Counter[str] = Counter()
    for entry in map(_writable, entries):
        if entry.ignored:
            ignored[entry.ignored] += 1
        elif entry.rejected:
            row = RejectedFile(path=entry.path, label=entry.label, reason=entry.rejected, detail=entry.detail)
            rejected.append(row)
        else:
            waiting[entry.path] = entry
    return dict(sorted(waiting.items())), rejected, ignored


def _writable(entry: Entry) -> Entry:
    """``entry``, rejected if one of its texts is not valid Unicode, as names in an archive may be: nothing could write it."""
    try:
        f"{entry.path}{entry.label}{entry.group}".encode()
    except UnicodeEncodeError:
        detail = entry.detail or "its name, label or group is no valid UTF-8; rename it"
        reason = None if entry.ignored else entry.rejected or "name_not_unicode"
        return replace(entry, path=in_unicode(entry.path), label=None, group=None, rejected=reason, detail=detail)
    return entry


def _known(source: Source, waiting: dict[str, Entry], cache: FactsCache, advance: Advance) -> Iterator[tuple[Entry, Look]]:
    """Take known facts of files that have not changed, without reading them, and remove these from ``waiting``."""
    for page in batches(tuple(waiting.values()), KEEP_EVERY):
        stamped = cache.stamped(_place(source), [entry.path for entry in page])
        unchanged = [entry for entry in page if entry.path in stamped and stamped[entry.path][0] == source.stamp(entry.path)]
        facts = cache.find_all({stamped[entry.path][1] for entry in unchanged})
        found = {entry: known for entry in unchanged if (known := facts.get(stamped[entry.path][1]))}
        advance(len(found))
        for entry, known in found.items():
            del waiting[entry.path]
            yield entry, Look(entry.path, known.digest, known.facts, known.reason, known.detail, known=True)


def _look(
    source: Source, waiting: dict[str, Entry], cache: FactsCache | None, num_workers: int, advance: Advance
) -> Generator[tuple[Entry, Look]]:
    with (
        closing(look_at_all(source, tuple(waiting), len(waiting), cache, num_workers, advance)) as looks,
        ThreadPoolExecutor(max_workers=1) as writer,  # SQLite lets go of the interpreter lock
    ):
        kept = writer.submit(_keep, source, cache, [])
        for some in batches(looks, KEEP_EVERY):
            kept.result()
            kept = writer.submit(_keep, source, cache, some)
            for look in some:
                yield waiting[look.path], look
        kept.result()


def _keep(source: Source, cache: FactsCache | None, looks: Sequence[Look]) -> None:
    lasting = [look for look in looks if look.lasting]
    if cache and lasting:
        cache.keep(KnownFacts(look.digest, look.facts, look.reason, look.detail) for look in lasting if not look.known)
        cache.stamp(_place(source), {look.path: (look.stamp, look.digest) for look in lasting if look.stamp})


def _accepted(looks: Iterable[tuple[Entry, Look]], rejected: list[RejectedFile]) -> Iterator[dict[str, object]]:
    """Fields of the images that can be used; the others get a row in ``rejected``."""
    for entry, look in looks:
        if look.reason:
            rejected.append(RejectedFile(path=entry.path, label=entry.label, reason=look.reason, detail=look.detail))
        else:
            given = {"path": entry.path, "label": entry.label, "split": entry.split, "group": entry.group}
            yield {**look.facts, **given, "digest": look.digest}


def _place(source: Source) -> str:
    return str(source.root.resolve())
