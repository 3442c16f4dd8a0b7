"""WebDataset: tar shards in which each image has a file of the same name that ends in .cls or .json and holds its label."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, final

from automl_tl.data.image_formats import has_image_suffix
from automl_tl.data.sources.archives import Archive, open_archive
from automl_tl.data.sources.source import Entry, Source, split_in_name

LABEL_KEYS: Final = ("label", "class", "class_name", "cls", "category")
SIDECARS: Final = (".cls", ".json")


def is_shard(archive: Archive) -> bool:
    """Whether an archive holds an image with a sidecar."""
    sidecars = {_key(path) for path in archive.paths() if path.endswith(SIDECARS)}
    return bool(sidecars) and any(has_image_suffix(path) and _key(path) in sidecars for path in archive.paths())


def open_shards(folder: Path) -> Source | None:
    """The WebDataset in a folder of tar shards; ``None`` if the first archive there is not a shard."""
    files = sorted(file for suffix in (".tar", ".tar.gz", ".tgz") for file in folder.glob(f"*{suffix}"))
    if not files or not is_shard(first := open_archive(files[0])):
        return None
    return ShardSource(folder, {files[0].name: first} | {file.name: open_archive(file) for file in files[1:]})


@final
class ShardSource(Source):
    """Shards by name; the only one of a source that is a file has the name ``""``."""

    kind = "webdataset"

    def __init__(self, root: Path, shards: Mapping[str, Archive]) -> None:
        self.root = root
        self._shards = dict(shards)

    def entries(self) -> Iterator[Entry]:
        """Every file of every shard, shards in the order of their names."""
        for name, shard in sorted(self._shards.items()):
            labels, split = _read_labels(shard), split_in_name(name or self.root.name)
            for member in shard.members.values():
                path, label = f"{name}/{member.path}" if name else member.path, labels.get(_key(member.path))
                if member.rejected:
                    yield Entry(path, rejected=member.rejected, detail=member.detail)
                elif not has_image_suffix(path):
                    yield Entry(path, ignored="sidecar")
                elif label is None:
                    yield Entry(path, split=split, rejected="no_label", detail="no .cls or .json of its name has a label")
                else:
                    yield Entry(path, label, split)

    def read(self, path: str) -> bytes:
        """The bytes of the member."""
        if "" in self._shards:
            return self._shards[""].read(path)
        name, member = path.split("/", 1)
        return self._shards[name].read(member)


def _key(path: str) -> str:
    """WebDataset's key: everything before the first dot of the name."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/{name.split('.', 1)[0]}"


def _read_labels(shard: Archive) -> dict[str, str]:
    """Labels by key; a .cls counts more than a .json."""
    labels: dict[str, str] = {}
    for suffix in reversed(SIDECARS):
        for path in shard.paths():
            if path.endswith(suffix):
                with suppress(OSError):  # then its image has no label, and a row says so
                    if label := _parse_label(shard.read(path), suffix):
                        labels[_key(path)] = label
    return labels


def _parse_label(data: bytes, suffix: str) -> str | None:
    text = data.decode("utf-8", "replace").strip()
    if suffix == ".cls":
        return text or None
    try:
        facts = json.loads(text)
    except ValueError:
        return None
    return next((str(facts[key]) for key in LABEL_KEYS if key in facts), None) if isinstance(facts, dict) else None
