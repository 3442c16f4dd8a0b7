"""What an archive of images can be: class folders, split folders, images with a manifest, or a WebDataset shard."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Final, final

from automl_tl.data.sniffing import HEAD_BYTES, IMAGE_SUFFIXES, looks_like_image
from automl_tl.data.sources.archives import ArchiveFiles, Member, open_files
from automl_tl.data.sources.layout import NamesListing, aside, find_layout
from automl_tl.data.sources.manifests import MANIFEST_SUFFIXES, ManifestSource, is_manifest
from automl_tl.data.sources.source import PART_NAMES, Entry, Source
from automl_tl.values import SplitName

__all__ = ["ArchiveSource", "ShardsSource", "open_archive", "open_shards"]

LABEL_KEYS: Final = ("label", "class", "class_name", "cls", "category")
SIDECARS: Final = (".cls", ".json")
IMAGES: Final = tuple(IMAGE_SUFFIXES)
WORDS: Final = re.compile(r"[a-z]+")


def open_archive(file: Path, files: ArchiveFiles) -> Source:
    """The source inside the archive at ``file``, which holds ``files``.

    Raises:
        BrokenSourceError: its table is damaged.
    """
    if _is_shard(files):
        return ShardsSource(file, {"": files})
    source = ArchiveSource(file, files)
    manifest = _manifest(files) if len(source.class_names()) < 2 else None
    if manifest:
        below = _Below(files, PurePosixPath(manifest).parent)
        return ManifestSource(file, BytesIO(files.read(manifest)), manifest, below, beside=source.entries)
    return source


def open_shards(folder: Path, shards: Sequence[Path]) -> Source | None:
    """The WebDataset whose ``shards`` lie in ``folder``; ``None`` if the first of them is no shard."""
    first = open_files(shards[0])
    if not _is_shard(first):
        return None
    return ShardsSource(folder, {shards[0].name: first} | {shard.name: open_files(shard) for shard in shards[1:]})


@final
class ArchiveSource(Source):
    """Class folders or split folders inside an archive."""

    def __init__(self, root: Path, files: ArchiveFiles) -> None:
        self.root = root
        self._files = files
        self._layout = find_layout(NamesListing(_sound(files)))
        self.kind = f"archive_of_{self._layout.kind}"

    def entries(self) -> Iterator[Entry]:
        """Every file of the archive."""
        for number, member in enumerate(self._files.members()):
            yield self._entry(member, number)

    def read(self, path: str) -> bytes:
        """The bytes of the member."""
        return self._files.read(path)

    def class_names(self) -> tuple[str, ...]:
        """Names of all folders where classes stand."""
        return self._layout.classes

    def _entry(self, member: Member, number: int) -> Entry:
        path = PurePosixPath(member.path)
        if member.problem:
            reason, detail = member.problem
            name = f"{member.path} (member {number})" if reason == "repeated_name" else member.path
            return Entry(name, rejected=reason, detail=detail)
        ignored = next(filter(None, map(aside, path.parts)), None)
        if ignored:
            return Entry(member.path, ignored=ignored)
        if path.suffix.lower() not in IMAGE_SUFFIXES and not self._is_image(member.path):
            return Entry(member.path, ignored="other_file")
        return self._layout.place(member.path)

    def _is_image(self, path: str) -> bool:
        try:
            return looks_like_image(self._files.read(path, HEAD_BYTES))
        except OSError:
            return True  # the scan will say what is the matter with it


@final
class ShardsSource(Source):
    """WebDataset: in tar shards, each image beside a file of the same name that ends in .cls or .json and holds the label."""

    kind = "webdataset"

    def __init__(self, root: Path, shards: Mapping[str, ArchiveFiles]) -> None:
        self.root = root
        self._shards = dict(shards)

    def entries(self) -> Iterator[Entry]:
        """Every file of every shard, shards in the order of their names."""
        for shard, files in sorted(self._shards.items()):
            labels, part = _labels(files), _part(shard or self.root.name)
            for number, member in enumerate(files.members()):
                path = f"{shard}/{member.path}" if shard else member.path
                yield self._entry(path, member, labels, part, number)

    def read(self, path: str) -> bytes:
        """The bytes of the member."""
        if "" in self._shards:
            return self._shards[""].read(path)
        shard, member = path.split("/", 1)
        return self._shards[shard].read(member)

    def _entry(self, path: str, member: Member, labels: Mapping[str, str], part: SplitName | None, number: int) -> Entry:
        if member.problem:
            name = f"{path} (member {number})" if member.problem[0] == "repeated_name" else path
            return Entry(name, rejected=member.problem[0], detail=member.problem[1])
        if PurePosixPath(path).suffix.lower() not in IMAGE_SUFFIXES:
            return Entry(path, ignored="sidecar")
        label = labels.get(_key(member.path))
        if label is None:
            return Entry(path, split=part, rejected="no_label", detail="no .cls or .json of the same name gives a label")
        return Entry(path, label=label, split=part)


@final
class _Below:
    """Files of an archive, by paths relative to a folder inside it."""

    def __init__(self, files: ArchiveFiles, folder: PurePosixPath) -> None:
        self._files, self._folder = files, folder

    def read(self, path: str) -> bytes:
        """The bytes of the member."""
        return self._files.read(str(self._folder / path))


def _sound(files: ArchiveFiles) -> Iterator[str]:
    return (member.path for member in files.members() if not member.problem)


def _manifest(files: ArchiveFiles) -> str | None:
    tables = [path for path in _sound(files) if path.lower().endswith(MANIFEST_SUFFIXES)]
    tables = sorted((path for path in tables if path.count("/") <= 1), key=lambda path: (path.count("/"), path))
    return next((path for path in tables if is_manifest(BytesIO(files.read(path)), path)), None)


def _is_shard(files: ArchiveFiles) -> bool:
    sidecars = {_key(path) for path in _sound(files) if path.endswith(SIDECARS)}
    return bool(sidecars) and any(path.lower().endswith(IMAGES) and _key(path) in sidecars for path in _sound(files))


def _key(path: str) -> str:
    """WebDataset's key: everything before the first dot of the name."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/{name.split('.', 1)[0]}"


def _labels(files: ArchiveFiles) -> dict[str, str]:
    found: dict[str, str] = {}
    for member in files.members():
        suffix = PurePosixPath(member.path).suffix
        if suffix in SIDECARS and not member.problem:
            label = _label(files.read(member.path), suffix)
            if label and (suffix == ".cls" or _key(member.path) not in found):
                found[_key(member.path)] = label
    return found


def _label(data: bytes, suffix: str) -> str | None:
    text = data.decode("utf-8", "replace").strip()
    if suffix == ".cls":
        return text or None
    try:
        facts = json.loads(text)
    except ValueError:
        return None
    values = [facts[key] for key in LABEL_KEYS if key in facts] if isinstance(facts, dict) else []
    return str(values[0]) if values else None


def _part(name: str) -> SplitName | None:
    return next((PART_NAMES[word] for word in WORDS.findall(name.lower()) if word in PART_NAMES), None)
