"""WebDataset: tar shards in which a file of the same name that ends in .cls or .json holds the label of an image.

A sample is all files with one key: the name up to the first dot after the last slash, as WebDataset defines it
(``webdataset.tariterators.base_plus_ext``). Names of images have dots too (``Screen Shot 10.15.22.png``), so that different
images may share a key. An image therefore has the label of the sidecar that has its own name up to the suffix, else of
``<key>.cls`` or ``<key>.json``, and of no other.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple, final

from automl_tl.data.image_formats import has_image_suffix
from automl_tl.data.sources.archives import Archive, open_archive
from automl_tl.data.sources.layout import ignore_reason
from automl_tl.data.sources.source import Entry, Source, split_in_name

LABEL_KEYS: Final = ("label", "class", "class_name", "cls", "category")
SIDECARS: Final = (".cls", ".json")  # the first with a label counts
SHARD_SUFFIXES: Final = (".tar", ".tar.gz", ".tgz")
MAX_SIDECAR_BYTES: Final = 2**20
UTF_16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")


def is_shard(archive: Archive) -> bool:
    """Whether an archive holds an image with a .cls, or with a .json that holds a label or lies in no folder."""
    images = [path for path in archive.paths() if has_image_suffix(path) and not ignore_reason(path)]
    sidecars = _find_sidecars(archive)
    keys = {_key(path) for path in sidecars}
    paired = [path for path in images if _key(path) in keys]
    if any(path.lower().endswith(".cls") for path in sidecars) or all("/" not in path for path in paired):
        return bool(paired)
    labels = _Labels(archive)
    return any(labels.find(path).label for path in paired)  # else class folders with some other .json beside the images


def open_shards(folder: Path) -> Source | None:
    """The WebDataset in a folder of tar shards; ``None`` if the first archive there is not a shard."""
    files = sorted(file for suffix in SHARD_SUFFIXES for file in folder.glob(f"*{suffix}"))
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
            labels, split = _Labels(shard), split_in_name(name or self.root.name)
            for member in shard.members.values():
                path = f"{name}/{member.path}" if name else member.path
                if member.rejected:
                    yield Entry(path, rejected=member.rejected, detail=member.detail)
                elif ignored := ignore_reason(member.path):
                    yield Entry(path, ignored=ignored)
                elif not has_image_suffix(path):
                    yield Entry(path, ignored="sidecar")
                elif (found := labels.find(member.path)).label is None:
                    yield Entry(path, split=split, rejected="no_label", detail=found.problem)
                else:
                    yield Entry(path, found.label, split)

    def read(self, path: str) -> bytes:
        """The bytes of the member."""
        if "" in self._shards:
            return self._shards[""].read(path)
        name, member = path.split("/", 1)
        return self._shards[name].read(member)


class _Label(NamedTuple):
    """A label, or why there is none."""

    label: str | None
    problem: str = ""


@final
class _Labels:
    """Labels of the images of one shard."""

    def __init__(self, shard: Archive) -> None:
        self._shard = shard
        self._by_stem: defaultdict[str, list[str]] = defaultdict(list)  # sidecars by their path without suffix
        self._by_key: defaultdict[str, list[str]] = defaultdict(list)
        for path in _find_sidecars(shard):
            self._by_stem[_stem(path)].append(path)
            self._by_key[_key(path)].append(path)

    def find(self, image: str) -> _Label:
        """The label of the image at path ``image``."""
        stem, key = _stem(image), _key(image)
        own = self._by_stem.get(stem) or self._by_stem.get(key, [])
        if not own:
            return _Label(None, self._missing(stem, key))
        labels = [(path, self._read(path)) for path in sorted(own, key=_precedence)]
        problems = "; ".join(f"{path.rpartition('/')[2]} {label.problem}" for path, label in labels)
        return next((label for _, label in labels if label.label is not None), _Label(None, problems))

    def _missing(self, stem: str, key: str) -> str:
        wanted = " or ".join(f"{name.rpartition('/')[2]}.cls" for name in dict.fromkeys((stem, key)))
        others = [path.rpartition("/")[2] for path in self._by_key.get(key, ())]
        if not others:
            return f"there is no {wanted} (or .json) with its label"
        names = ", ".join(others[:3]) + (" ..." if len(others) > 3 else "")
        name = key.rpartition("/")[2]
        return f"there is no {wanted} (or .json); labels of the key {name!r} are in {names}, and may be another image's"

    def _read(self, sidecar: str) -> _Label:
        try:
            data = self._shard.read(sidecar, MAX_SIDECAR_BYTES + 1)
        except OSError as error:
            return _Label(None, f"can't be read ({error})")
        if len(data) > MAX_SIDECAR_BYTES:
            return _Label(None, "is larger than 1 MiB")
        return _parse_text(data) if sidecar.lower().endswith(".cls") else _parse_json(data)


def _find_sidecars(archive: Archive) -> list[str]:
    return [path for path in archive.paths() if path.lower().endswith(SIDECARS) and not ignore_reason(path)]


def _stem(path: str) -> str:
    """``path`` without its last suffix."""
    return path.rpartition(".")[0]


def _key(path: str) -> str:
    """WebDataset's key: everything before the first dot of the name, with its folder."""
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{name.partition('.')[0]}"


def _precedence(sidecar: str) -> tuple[bool, str]:
    return not sidecar.lower().endswith(SIDECARS[0]), sidecar


def _parse_text(data: bytes) -> _Label:
    """The label in a .cls file: one line of text, such as a name or a number."""
    try:
        text = data.decode("utf-16" if data.startswith(UTF_16_MARKS) else "utf-8-sig").strip()
    except UnicodeDecodeError:
        text = "\0"
    if not all(character.isprintable() or character in "\t\r\n" for character in text):
        return _Label(None, f"is not text ({data[:8].hex(' ')})")
    if len(text.splitlines()) > 1:
        return _Label(None, f"has {len(text.splitlines())} lines instead of one label")
    return _Label(text) if text else _Label(None, "is empty")


def _parse_json(data: bytes) -> _Label:
    """The label in a .json file: an object with a text or number under one of ``LABEL_KEYS``."""
    try:
        facts = json.loads(data)
    except (ValueError, RecursionError):
        return _Label(None, "is not valid JSON")
    if not isinstance(facts, dict):
        return _Label(None, f"holds a {type(facts).__name__} instead of an object")
    keys = [key for key in LABEL_KEYS if key in facts]
    if not keys:
        return _Label(None, f"has none of the keys {', '.join(LABEL_KEYS)}")
    key = next((key for key in keys if facts[key] not in (None, "")), keys[0])
    if label := _to_label(facts[key]):
        return _Label(label)
    return _Label(None, f"has {json.dumps(facts[key], ensure_ascii=False)[:60]} as {key!r}, which is not one label")


def _to_label(value: object) -> str | None:
    """Text, or a number or truth value as JSON writes it; ``None`` for anything else."""
    if isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float):
        return None if not math.isfinite(value) else str(int(value)) if value.is_integer() else str(value)
    return str(value).strip() if isinstance(value, int | str) else None
