"""Export a version to a folder, ``.tar`` or ``.zip``, and import it into another registry.

    encoder.safetensors  head.safetensors ...   one file per role, byte for byte as published
    manifest.safetensors                        the manifest blob; import trusts nothing else
    manifest.json                               the same as plain JSON, for people and scripts
    MODEL_CARD.md
    signature.json                              if the version is signed

The same version always gives the same bytes, archives included. An import may come from anyone: nothing is extracted, members
are read by their plain names up to their declared size, and an archive with anything else in it is rejected as a whole.

Importing again finds the version by the digest of its manifest and only restores missing or damaged files. A version keeps its
number if that is higher than any its name has had here; otherwise it gets the next one, and its manifest names its ``origin``.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sqlite3
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

from pydantic import JsonValue

from automl_tl_registry import contents
from automl_tl_registry.contents import (
    CARD_FILE,
    MANIFEST_FILE,
    SIGNATURE_FILE,
    SUMMARY_FILE,
    check_role,
    read_manifest,
)
from automl_tl_registry.errors import (
    ConflictError,
    DamagedManifestError,
    DiskFullError,
    InvalidNameError,
    NotFoundError,
    UnsafeArchiveError,
)
from automl_tl_registry.publication import drafted, enter
from automl_tl_registry.queries import find, resolve, take_number, view_of
from automl_tl_registry.signing import MAX_SIGNATURE_BYTES, check_files, read_signature, write_signature
from automl_tl_registry.storage import CHUNK_BYTES, chunks_of, digest_of, explained
from automl_tl_registry.store import Store
from automl_tl_registry.values import Blob, Facts, Manifest, ModelVersion, Reference, checked_name, checked_role, checked_text

OTHER_ARCHIVES: Final = (".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".safetensors")
Content = Path | bytes
MAX_MEMBERS: Final = 64
_ALLOWED: Final = re.compile(
    rf"[a-z][a-z0-9_]{{0,31}}\.safetensors|{re.escape(SUMMARY_FILE)}|{re.escape(CARD_FILE)}|{re.escape(SIGNATURE_FILE)}"
)
_BROKEN: Final = (  # raised by tarfile and zipfile for damaged or malicious input
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    KeyError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
)


@dataclass(frozen=True)
class Package:
    """Files of an export: where they are, sizes by name, and a function that opens one."""

    path: Path | str
    sizes: dict[str, int]
    open: Callable[[str], IO[bytes]]

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the content of a file, at most its declared size."""
        left = self.sizes[name]
        try:
            with self.open(name) as stream:
                while left > 0 and (chunk := stream.read(min(left, CHUNK_BYTES))):
                    left -= len(chunk)
                    yield chunk
        except _BROKEN as error:
            raise UnsafeArchiveError(self.path, [f"{name} is unreadable: {error}"]) from error

    def content(self, name: str, most_bytes: int) -> bytes:
        """Return a file as bytes.

        Args:
            name: name of the file.
            most_bytes: limit of its size.

        Raises:
            UnsafeArchiveError: it is larger.
        """
        if self.sizes[name] > most_bytes:
            raise UnsafeArchiveError(self.path, [f"{name} has more than {most_bytes} bytes"])
        return b"".join(self.chunks(name))

    def check_has(self, names: list[str]) -> None:
        """Raise UnsafeArchiveError if one of ``names`` is missing."""
        missing = [f"{name} is missing" for name in names if name not in self.sizes]
        if missing:
            raise UnsafeArchiveError(self.path, missing)


@contextmanager
def _opened(path: Path) -> Iterator[Package]:
    """Open an export: a folder, ``.tar`` or ``.zip``."""
    if path.is_dir():
        yield _folder(path)
        return
    if not path.is_file():
        raise NotFoundError(f"There is no readable export (a folder, .tar or .zip) at {path}. Specify an existing path.")
    with ExitStack() as stack:
        try:
            if zipfile.is_zipfile(path):
                package = _zip(path, stack.enter_context(zipfile.ZipFile(path)))
            else:
                package = _tar(path, stack.enter_context(tarfile.open(path, "r:")))
        except _BROKEN as error:
            raise UnsafeArchiveError(path, [f"it is not readable as .tar or .zip: {error}"]) from error
        yield package


def _folder(path: Path) -> Package:
    """Open a folder. Other files are ignored, because it is the user's folder; files of the export must be plain files."""
    ours = [file for file in sorted(path.iterdir()) if _ALLOWED.fullmatch(file.name)]
    problems = [f"{file.name} is not a plain file" for file in ours if file.is_symlink() or not file.is_file()]
    if problems:
        raise UnsafeArchiveError(path, problems)
    return Package(path, {file.name: file.stat().st_size for file in ours}, lambda name: (path / name).open("rb"))


def _zip(path: Path, archive: zipfile.ZipFile) -> Package:
    members = []
    for member in archive.infolist()[: MAX_MEMBERS + 1]:
        kind = member.external_attr >> 28  # high bits of the Unix mode, 0 where another system wrote it
        plain = kind in (0, 8) and not member.is_dir()
        members.append((member.filename, member.file_size, "file" if plain else "link or folder"))
    return checked_members(path, members, archive.open)


def _tar(path: Path, archive: tarfile.TarFile) -> Package:
    members, files = [], {}
    for member in archive:
        plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse()
        members.append((member.name, member.size, "file" if plain else "link, folder or device"))
        files[member.name] = member
        if len(members) > MAX_MEMBERS:
            break
    return checked_members(path, members, lambda name: cast("IO[bytes]", archive.extractfile(files[name])))


def checked_members(path: Path | str, members: list[tuple[str, int, str]], open_member: Callable[[str], IO[bytes]]) -> Package:
    """Return a package of members that were written by someone else.

    Args:
        path: where they come from.
        members: name, size and kind of each.
        open_member: opens one by its name.

    Raises:
        UnsafeArchiveError: one is not a plain file of an export, or occurs twice.
    """
    problems = [f"{name[:100]!a} is a {kind}" for name, _, kind in members if kind != "file"]
    problems += [f"{name[:100]!a} is not a file of an export" for name, _, _ in members if not _ALLOWED.fullmatch(name)]
    names = [name for name, _, _ in members]
    problems += [f"{name[:100]!a} occurs twice" for name in sorted({name for name in names if names.count(name) > 1})]
    if len(members) > MAX_MEMBERS:
        problems = [f"it has more than {MAX_MEMBERS} members"]
    if problems:
        raise UnsafeArchiveError(path, problems[:5])
    return Package(path, {name: size for name, size, _ in members}, open_member)


def export(store: Store, ref: str, target: Path) -> Path:
    """Export a version; the target appears only when it is complete. See ``Registry.export``."""
    if target.suffix in OTHER_ARCHIVES:
        raise InvalidNameError(target.name, what="exported to", expected="a folder, or a file ending in .tar or .zip")
    contents, place = exported_files(store, ref), target.absolute()
    if target.is_dir() and {file.name for file in target.iterdir()} != contents.keys():
        raise _target_exists(target)
    store.disk.make_folder(place.parent)
    draft = place.with_name(f".{place.name}.partial-{os.urandom(8).hex()}")
    try:
        writer = {".tar": _write_tar, ".zip": _write_zip}.get(target.suffix, _write_folder)
        with explained(target):  # of archives, whose modules write without a Disk
            writer(store, draft, contents)
        if not target.exists():
            store.disk.rename(draft, target)
        elif _digests(draft) != _digests(target):
            raise _target_exists(target)
    finally:
        if draft.exists():
            store.disk.remove(draft)
    return target


def _target_exists(path: Path) -> ConflictError:
    return ConflictError(f"{path} exists and holds something else. Nothing was written; choose another target or remove it.")


def exported_files(store: Store, ref: str) -> dict[str, Content]:
    """Return the files of an export by name, after checking every digest.

    Args:
        store: the registry.
        ref: reference to the version.
    """
    version = resolve(store, ref)
    view = view_of(store, version)
    manifest_path = store.blobs.path(version.manifest_digest)
    summary = json.dumps(read_manifest(manifest_path).model_dump(mode="json"), indent=2, sort_keys=True, allow_nan=False)
    contents: dict[str, Content] = {f"{role}.safetensors": path for role, path in sorted(view.paths.items())}
    contents[MANIFEST_FILE] = manifest_path
    contents[SUMMARY_FILE] = summary.encode() + b"\n"
    contents[CARD_FILE] = model_card(version).encode()
    signature = read_signature(store, version)
    return contents if signature is None else contents | {SIGNATURE_FILE: signature}


def _write_folder(store: Store, folder: Path, contents: Mapping[str, Content]) -> None:
    store.disk.make_folder(folder)
    for name, content in contents.items():
        store.disk.write(folder / name, [content] if isinstance(content, bytes) else chunks_of(content))
    store.disk.sync_folder(folder)


def _write_tar(store: Store, path: Path, contents: Mapping[str, Content]) -> None:
    store.disk.write(path, [])
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in contents.items():
            entry = tarfile.TarInfo(name)  # time 0 and owner 0, so that the bytes are reproducible
            entry.size = len(content) if isinstance(content, bytes) else content.stat().st_size
            with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as stream:
                archive.addfile(entry, stream)
    store.disk.sync(path)


def _write_zip(store: Store, path: Path, contents: Mapping[str, Content]) -> None:
    store.disk.write(path, [])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            with archive.open(entry, "w", force_zip64=True) as stream:
                for chunk in [content] if isinstance(content, bytes) else chunks_of(content):
                    stream.write(chunk)
    store.disk.sync(path)


def _digests(path: Path) -> dict[str, str]:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return {file.name if path.is_dir() else "": digest_of(chunks_of(file)).digest for file in files if file.is_file()}


def import_(store: Store, path: Path, *, name: str | None, actor: str, public_key: Path | None) -> ModelVersion:
    """Import an export. See ``Registry.import_``."""
    with _opened(path) as package:
        return import_package(store, package, name=name, actor=actor, public_key=public_key)


def import_package(store: Store, package: Package, *, name: str | None, actor: str, public_key: Path | None) -> ModelVersion:
    """Import the files of an export; nothing is visible before all of them are checked.

    Args:
        store: the registry.
        package: the files; only those that are not here yet are read.
        name: model name to use instead of the exported one.
        actor: who imports it.
        public_key: PEM file; the version must be signed with this key.

    Raises:
        IntegrityError: a file does not match the manifest, or the signature does not hold.
    """
    if name is not None:
        checked_name(name)
    manifest, content = packaged_manifest(package)
    files: dict[str, Content] = {f"{role}.safetensors": store.blobs.path(blob.digest) for role, blob in manifest.blobs.items()}
    package.check_has(list(files))
    signature = package.content(SIGNATURE_FILE, MAX_SIGNATURE_BYTES) if SIGNATURE_FILE in package.sizes else None
    ref = f"{manifest.name}@{manifest.version}"
    manifest = manifest.model_copy(update={"name": name or manifest.name})
    check_space(store, manifest.blobs.values())
    with drafted(store, manifest.name, manifest.blobs) as folder:
        for role, blob in manifest.blobs.items():
            store.blobs.receive(package.chunks(f"{role}.safetensors"), blob, staging=folder)
            check_role(role, store.blobs.path(blob.digest), manifest.facts)
        if public_key is not None:
            check_files(ref, files | {MANIFEST_FILE: content}, signature, public_key)
        with store.database.writing() as connection:
            version = _entered(store, connection, folder, (manifest, digest_of([content]).digest), actor)
            if signature is not None and read_signature(store, version) is None:
                write_signature(store, version.manifest_digest, signature)
            return version


def packaged_manifest(package: Package) -> tuple[Manifest, bytes]:
    """Return the checked manifest of an export and the bytes of its blob."""
    package.check_has([MANIFEST_FILE])
    content = package.content(MANIFEST_FILE, contents.MAX_MANIFEST_BYTES)
    manifest = checked_manifest(content, package.path)
    wrong = [
        f"{role}.safetensors has {found} bytes, its manifest says {blob.size_bytes}"
        for role, blob in manifest.blobs.items()
        if (found := package.sizes.get(f"{role}.safetensors", blob.size_bytes)) != blob.size_bytes
    ]
    if wrong:
        raise DamagedManifestError(str(package.path), "; ".join(wrong))
    return manifest, content


def checked_manifest(content: bytes, where: Path | str) -> Manifest:
    """Decode and check a manifest blob that may come from anyone.

    Args:
        content: all bytes of the blob.
        where: where they come from, for the error.

    Raises:
        DamagedManifestError: not a valid manifest, or it has control characters.
    """
    manifest = contents.decode_manifest(content, where)
    for role in manifest.blobs:
        checked_role(role)
    checked_text(manifest.actor, what="an actor")
    check_printable(manifest.model_dump(mode="json"), where)
    return manifest


def check_printable(value: object, path: Path | str) -> None:
    """Reject control characters, which could manipulate a terminal: what others wrote is not trusted.

    Args:
        value: JSON.
        path: where it comes from, for the error.

    Raises:
        DamagedManifestError: there is a control character.
    """
    match value:
        case str() if not all(character.isprintable() or character in "\n\t" for character in value):
            raise DamagedManifestError(str(path), f"control characters in {value[:80]!a}")
        case dict():
            for key, item in value.items():
                check_printable(key, path)
                check_printable(item, path)
        case list():
            for item in value:
                check_printable(item, path)


def check_space(store: Store, blobs: Collection[Blob]) -> None:
    """Raise DiskFullError before anything is written if files do not fit.

    Args:
        store: the registry.
        blobs: sizes and digests of the files, as declared.
    """
    folder = next(folder for folder in (store.root.absolute(), *store.root.absolute().parents) if folder.is_dir())
    needed = sum(blob.size_bytes for blob in blobs if not store.blobs.path(blob.digest).exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DiskFullError(store.root, f"the import needs {needed:,} bytes, {free:,} are free")


def _entered(
    store: Store, connection: sqlite3.Connection, folder: Path, source: tuple[Manifest, str], actor: str
) -> ModelVersion:
    manifest, digest = source
    query = "SELECT json FROM versions JOIN manifests ON digest = manifest_digest WHERE name = ? AND ? IN (digest, origin)"
    present = connection.execute(f"{query} ORDER BY version", [manifest.name, digest]).fetchone()
    if present is not None:
        ours = Manifest.model_validate(json.loads(present["json"]))
        store.blobs.put(contents.encode_manifest(ours), staging=folder)
        connection.execute("DELETE FROM drafts WHERE id = ?", [folder.name])
        return find(connection, Reference(ours.name, ours.version))
    number = take_number(connection, manifest.name)
    kept = manifest.version if manifest.version >= number else number
    numbered = manifest.model_copy(update={"version": kept})
    if digest_of([contents.encode_manifest(numbered)]).digest != digest:
        numbered = numbered.model_copy(update={"origin": digest})
    return enter(store, connection, folder, numbered, imported_by=actor)


def model_card(version: ModelVersion) -> str:
    """Return the model card of a version; it depends only on the version, not on its current aliases."""
    facts = version.facts
    classes = _plain(_listed(facts.classes))
    lines = [f"# {version.ref}", "", f"Image classifier for {len(facts.classes)} classes: {classes}.", ""]
    lines += _table("Evaluation", _measured(facts))
    lines += _table("Training", _made(version))
    for title, content in (("Data", facts.data), ("Environment", facts.environment), ("Lineage", facts.lineage)):
        lines += _table(title, _flat(content))
    lines += _table("Preprocessing", _flat(facts.preprocessing))
    lines += _table(
        "Files", [(role, f"{blob.size_bytes:,} bytes, sha256 `{blob.digest}`") for role, blob in sorted(version.blobs.items())]
    )
    if facts.notes:
        lines += ["## Notes", "", *(_plain(line) for line in facts.notes.splitlines()), ""]
    return "\n".join(lines)


def _measured(facts: Facts) -> list[tuple[str, str]]:
    metrics = facts.metrics
    low, high = metrics.interval
    rows = [("accuracy", f"{metrics.accuracy:.1%} (confidence interval {low:.1%} to {high:.1%}, n = {metrics.num_images})")]
    name, value, _ = metrics.headline
    if name != "accuracy":
        rows.insert(0, (name.replace("_", " "), f"{value:.3f}" if name == "log_loss" else f"{value:.1%}"))
    rows += [("missed class", text) for text in metrics.texts("warnings")]
    if facts.latency_ms is not None:
        rows.append(("latency", f"{facts.latency_ms:.3g} ms per image"))
    return rows + list(_flat(metrics.model_extra or {}))


def _made(version: ModelVersion) -> list[tuple[str, str]]:
    facts = version.facts
    rows = [
        ("backbone", facts.backbone),
        ("strategy", facts.strategy),
        ("parent", version.parent),
        ("published", f"{version.created_at:%Y-%m-%d %H:%M} UTC by {version.actor}"),
        ("model digest", facts.model_digest),
        ("total time", None if facts.seconds is None else f"{facts.seconds:.0f} s"),
        ("imported from manifest", version.origin),
    ]
    return [(key, value) for key, value in rows if value is not None]


def _flat(content: Mapping[str, JsonValue], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in sorted(content.items()):
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            yield prefix + key, _listed([str(item) for item in value])
        elif value is not None:
            yield prefix + key, f"{value:.4g}" if isinstance(value, float) else str(value)


def _listed(words: list[str], most: int = 20) -> str:
    shown = ", ".join(words[:most])
    return f"{shown} and {len(words) - most} more" if len(words) > most else shown


def _table(title: str, rows: Iterator[tuple[str, str]] | list[tuple[str, str]]) -> list[str]:
    filled = [f"| {_plain(key)} | {_plain(value)} |" for key, value in rows]
    return [f"## {title}", "", "| Fact | Value |", "| --- | --- |", *filled, ""] if filled else []


MARKDOWN: Final = str.maketrans({"\\": "\\\\", "|": "\\|", "[": "\\[", "&": "&amp;", "<": "&lt;"})


def _plain(text: str) -> str:
    """Return ``text`` on one line, without control characters or anything that Markdown reads as a table, tag or link."""
    visible = "".join(character if character.isprintable() else " " for character in text)
    return visible.translate(MARKDOWN)
