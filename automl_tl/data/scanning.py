"""The scan: every file of a source opened and decoded once, in parallel, and nothing left unmentioned."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

from automl_tl.data.decoding import UndecodableError, quiet_pillow
from automl_tl.data.measuring import measure
from automl_tl.data.source import Entry, Source
from automl_tl.errors import NoImagesError
from automl_tl.story import SILENT, Story
from automl_tl.values import DatasetIndex, ImageRecord, RejectedFile

__all__ = ["scan"]


def scan(
    source: Source, *, cache_dir: Path | None = None, story: Story = SILENT, num_workers: int | None = None
) -> DatasetIndex:
    """Index of all that ``source`` holds; the same for every order of files and number of workers.

    Args:
        source: what to read.
        cache_dir: where facts about images are kept between scans, by the digest of their bytes; absent: nowhere.
        story: is told the progress.
        num_workers: absent: as many as there are cores.

    Raises:
        NoImagesError: no file of the source is a usable image.
    """
    entries = sorted(source.entries(), key=lambda entry: entry.path)
    wanted = [entry for entry in entries if entry.label is not None and not entry.ignored and not entry.rejected]
    with quiet_pillow(), story.track("Looking at the images", len(wanted)) as advance:
        looked: list[ImageRecord | RejectedFile] = []
        for row in _look_at_all(source, wanted, num_workers or os.cpu_count() or 1):
            looked.append(row)
            advance(1)
    return _index(source, entries, looked)


def _look_at_all(source: Source, entries: Sequence[Entry], num_workers: int) -> Iterator[ImageRecord | RejectedFile]:
    with ThreadPoolExecutor(max_workers=num_workers, thread_name_prefix="scan") as pool:
        yield from pool.map(lambda entry: _look(source, entry), entries)


def _look(source: Source, entry: Entry) -> ImageRecord | RejectedFile:
    try:
        data = source.read(entry.path)
        facts = measure(data)
    except UndecodableError as error:
        return RejectedFile(path=entry.path, label=entry.label, reason=error.reason, detail=error.detail)
    except OSError as error:
        return RejectedFile(path=entry.path, label=entry.label, reason="unreadable", detail=error.strerror or str(error))
    given = {"path": entry.path, "label": entry.label, "part": entry.part, "group": entry.group}
    return ImageRecord.model_validate({**given, "digest": sha256(data).hexdigest(), **facts})


def _index(source: Source, entries: Sequence[Entry], looked: Sequence[ImageRecord | RejectedFile]) -> DatasetIndex:
    images = tuple(row for row in looked if isinstance(row, ImageRecord))
    rejected = [row for row in looked if isinstance(row, RejectedFile)]
    rejected += [
        RejectedFile(path=entry.path, label=entry.label, reason=entry.rejected, detail=entry.detail)
        for entry in entries
        if entry.rejected
    ]
    ignored = Counter(entry.ignored for entry in entries if entry.ignored)
    classes = tuple(sorted({image.label for image in images}))
    if not images:
        raise NoImagesError(source.root, f"{len(entries)} files, {len(rejected)} of them rejected")
    return DatasetIndex(
        root=str(source.root),
        source=source.kind,
        classes=classes,
        images=images,
        rejected=tuple(sorted(rejected, key=lambda row: row.path)),
        empty_classes=tuple(sorted(set(source.class_names()) - set(classes))),
        ignored=dict(sorted(ignored.items())),
        num_files=len(entries),
    )
