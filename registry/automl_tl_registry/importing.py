"""Importing an export: judged first, then published like any other version, all or nothing.

Idempotent: what was imported before is found by the digest of its manifest, and only put right where files are missing or
damaged. A version keeps its number where that is higher than any that its name has had here; otherwise it gets the next one and
its manifest names the one it came from (``origin``). ``parent`` keeps the words of the registry it comes from.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

from automl_tl_registry import manifests
from automl_tl_registry.blobs import digest_of
from automl_tl_registry.errors import DamagedManifestError, DiskFullError, UnsafeArchiveError
from automl_tl_registry.evidence import check_role
from automl_tl_registry.exporting import MANIFEST_FILE
from automl_tl_registry.index import find, take_number
from automl_tl_registry.names import Reference, checked_name, checked_role, checked_text
from automl_tl_registry.packages import Package, opened
from automl_tl_registry.publishing import Draft, drafted, enter
from automl_tl_registry.store import Store
from automl_tl_registry.values import Manifest, ModelVersion

__all__ = ["import_"]


def import_(store: Store, path: Path, *, name: str | None, actor: str) -> ModelVersion:
    """The version that the export at ``path`` holds, now or already in this registry.

    Raises:
        UnsafeArchiveError: it holds what no export holds.
        IntegrityError: its files don't fit its manifest.
    """
    if name is not None:
        checked_name(name)
    with opened(path) as package:
        manifest, digest = _read_manifest(package)
        package.check_has([f"{role}.safetensors" for role in manifest.blobs])
        manifest = manifest.model_copy(update={"name": name or manifest.name})
        _check_space(store, manifest)
        with drafted(store, manifest.name, manifest.blobs) as draft:
            _receive(store, package, manifest, draft)
            with store.database.writing() as connection:
                return _entered(store, connection, draft, (manifest, digest), actor)


def _read_manifest(package: Package) -> tuple[Manifest, str]:
    """The manifest of the export, judged, and the digest of its blob."""
    if package.sizes[MANIFEST_FILE] > manifests.MAX_MANIFEST_BYTES:
        raise UnsafeArchiveError(package.path, [f"{MANIFEST_FILE} has more than {manifests.MAX_MANIFEST_BYTES} bytes"])
    content = b"".join(package.chunks(MANIFEST_FILE))
    manifest = manifests.decode(content, package.path)
    for role in manifest.blobs:
        checked_role(role)
    checked_text(manifest.actor, what="an actor")
    _check_printable(manifest.model_dump(mode="json"), package.path)
    wrong = [
        f"{role}.safetensors has {found} bytes, its manifest says {blob.size_bytes}"
        for role, blob in manifest.blobs.items()
        if (found := package.sizes.get(f"{role}.safetensors", blob.size_bytes)) != blob.size_bytes
    ]
    if wrong:
        raise DamagedManifestError(str(package.path), "; ".join(wrong))
    return manifest, digest_of([content]).digest


def _check_printable(value: object, path: Path) -> None:
    """Refuse words that would do something to a terminal: this manifest may come from anybody."""
    match value:
        case str() if not all(character.isprintable() or character in "\n\t" for character in value):
            raise DamagedManifestError(str(path), f"control characters in {value[:80]!a}")
        case dict():
            for key, each in value.items():
                _check_printable(key, path)
                _check_printable(each, path)
        case list():
            for each in value:
                _check_printable(each, path)


def _check_space(store: Store, manifest: Manifest) -> None:
    """Raise DiskFullError before anything is written, if what the manifest promises can't fit."""
    folder = next(each for each in (store.root.absolute(), *store.root.absolute().parents) if each.is_dir())
    needed = sum(blob.size_bytes for blob in manifest.blobs.values() if not store.blobs.path(blob.digest).exists())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DiskFullError(store.root, f"the import needs {needed:,} bytes, {free:,} are free")


def _receive(store: Store, package: Package, manifest: Manifest, draft: Draft) -> None:
    for role, blob in manifest.blobs.items():
        store.blobs.receive(package.chunks(f"{role}.safetensors"), blob, staging=draft.folder)
        check_role(role, store.blobs.path(blob.digest), manifest.facts)


def _entered(
    store: Store, connection: sqlite3.Connection, draft: Draft, source: tuple[Manifest, str], actor: str
) -> ModelVersion:
    manifest, digest = source
    query = "SELECT json FROM versions JOIN manifests ON digest = manifest_digest WHERE name = ? AND ? IN (digest, origin)"
    present = connection.execute(f"{query} ORDER BY version", [manifest.name, digest]).fetchone()
    if present is not None:
        ours = Manifest.model_validate(json.loads(present["json"]))
        store.blobs.put(manifests.encode(ours), staging=draft.folder)
        connection.execute("DELETE FROM drafts WHERE id = ?", [draft.id])
        return find(connection, Reference(ours.name, ours.version))
    number = take_number(connection, manifest.name)
    kept = manifest.version if manifest.version >= number else number
    numbered = manifest.model_copy(update={"version": kept})
    if digest_of([manifests.encode(numbered)]).digest != digest:
        numbered = numbered.model_copy(update={"origin": digest})
    return enter(store, connection, draft, numbered, imported_by=actor)
