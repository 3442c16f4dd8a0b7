"""The scan: every file of a source opened and decoded once, in parallel, and nothing left unmentioned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from automl_tl.cores import num_cores
from automl_tl.data.decoding import quiet_pillow
from automl_tl.data.facts_cache import FactsCache, KnownFacts
from automl_tl.data.looking import Look
from automl_tl.data.parallel import look_at_all
from automl_tl.data.rows import Rows
from automl_tl.data.sources.source import Entry, Source
from automl_tl.errors import NoImagesError
from automl_tl.story import SILENT, Advance, Story
from automl_tl.values import DatasetIndex, ImageRecord, RejectedFile

__all__ = ["scan"]

KEEP_EVERY: Final = 512  # images; what Ctrl-C can cost


def scan(
    source: Source,
    *,
    cache_dir: Path | None = None,
    story: Story = SILENT,
    num_workers: int | None = None,
    none_is_fine: bool = False,
) -> DatasetIndex:
    """Index of all that ``source`` holds; the same for every order of files and number of workers.

    Args:
        source: what to read.
        cache_dir: where facts about images are kept between scans, by the digest of their bytes; absent: nowhere.
        story: is told the progress.
        num_workers: absent: as many as there are cores to use.
        none_is_fine: give an index without images, to be looked at, rather than raise.

    Raises:
        NoImagesError: no file of the source is a usable image.
    """
    entries = sorted(source.entries(), key=lambda entry: entry.path)
    wanted = {entry.path: entry for entry in entries if not (entry.label is None or entry.ignored or entry.rejected)}
    cache = FactsCache(cache_dir) if cache_dir else None
    rows = Rows()
    with quiet_pillow(), story.track("Looking at the images", len(wanted)) as advance:
        for look in _known(source, list(wanted), cache) if cache else ():
            rows.add(wanted.pop(look.path), look)
            advance(1)
        for look in _look(source, list(wanted), cache, num_workers or num_cores(), advance):
            rows.add(wanted[look.path], look)
    index = _index(source, entries, rows.by_path)
    if not index.images and not none_is_fine:
        raise NoImagesError(source.root, f"{index.num_files} files; `tl data check {source.root}` lists them")
    return index


def _known(source: Source, paths: Sequence[str], cache: FactsCache) -> Iterable[Look]:
    """Looks at the files that have not changed since they were looked at, without reading them."""
    stamped = cache.stamped(_place(source))
    if not stamped:
        return
    digests = {path: stamped[path][1] for path in paths if path in stamped and stamped[path][0] == source.stamp(path)}
    paths = list(digests)
    for start in range(0, len(paths), KEEP_EVERY):
        some = {path: digests[path] for path in paths[start : start + KEEP_EVERY]}
        facts = cache.find_all(sorted(set(some.values())))
        for path, digest in some.items():
            if digest in facts:
                yield Look(path, digest, facts[digest].facts, facts[digest].reason, facts[digest].detail, known=True)


def _look(source: Source, paths: Sequence[str], cache: FactsCache | None, num_workers: int, advance: Advance) -> Iterator[Look]:
    stamps = {path: source.stamp(path) for path in paths} if cache else {}  # before reading: a later change will show
    looks = look_at_all(source, paths, cache, num_workers, advance)
    while some := list(islice(looks, KEEP_EVERY)):
        if cache:
            lasting = [look for look in some if look.lasting]
            cache.keep(KnownFacts(look.digest, look.facts, look.reason, look.detail) for look in lasting if not look.known)
            cache.stamp(_place(source), {look.path: (stamp, look.digest) for look in lasting if (stamp := stamps[look.path])})
        yield from some


def _place(source: Source) -> str:
    return str(source.root.resolve())


def _index(source: Source, entries: Sequence[Entry], rows: Mapping[str, ImageRecord | RejectedFile]) -> DatasetIndex:
    images, rejected = list[ImageRecord](), list[RejectedFile]()
    for entry in entries:
        row = None if entry.ignored else rows.get(entry.path)
        if entry.rejected:
            rejected.append(RejectedFile(path=entry.path, label=entry.label, reason=entry.rejected, detail=entry.detail))
        elif isinstance(row, ImageRecord):
            images.append(row)
        elif row:
            rejected.append(row)
    classes = tuple(sorted({image.label for image in images}))
    return DatasetIndex(
        root=str(source.root),
        source=source.kind,
        classes=classes,
        images=tuple(images),
        rejected=tuple(rejected),
        empty_classes=tuple(sorted(set(source.class_names()) - set(classes))),
        ignored=dict(sorted(Counter(entry.ignored for entry in entries if entry.ignored).items())),
        num_files=len(entries),
    )
