"""Exporting a version: a self-contained folder, or a ``.tar`` or ``.zip`` of the same files. Reads the registry only.

    encoder.safetensors  head.safetensors ...   one file for each role, the published bytes
    manifest.safetensors                        the manifest blob; this is what import believes
    manifest.json                               the same for people and scripts: classes, preprocessing, metrics ...
    MODEL_CARD.md

The same version gives the same bytes, archives included, so exporting twice to one target is fine.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from automl_tl_registry.blobs import digest_of
from automl_tl_registry.card import model_card
from automl_tl_registry.disk import chunks_of
from automl_tl_registry.errors import InvalidNameError, TargetExistsError
from automl_tl_registry.loading import resolve, view_of
from automl_tl_registry.manifests import read_manifest
from automl_tl_registry.store import Store

__all__ = ["ARCHIVES", "CARD_FILE", "MANIFEST_FILE", "SUMMARY_FILE", "export"]

MANIFEST_FILE: Final = "manifest.safetensors"
SUMMARY_FILE: Final = "manifest.json"
CARD_FILE: Final = "MODEL_CARD.md"
ARCHIVES: Final = (".tar", ".zip")
OTHER_ARCHIVES: Final = (".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".safetensors")
Content = Path | bytes


def export(store: Store, ref: str, target: Path) -> Path:
    """``target``, holding the version; nothing is there before all of it is.

    Raises:
        NotFoundError: there is no such version.
        IntegrityError: a file of it is damaged.
        TargetExistsError: ``target`` holds something else.
    """
    if target.suffix in OTHER_ARCHIVES:
        raise InvalidNameError(target.name, what="exported to", expected="a folder, or a file ending in .tar or .zip")
    contents, place = _contents(store, ref), target.absolute()
    if target.is_dir() and {each.name for each in target.iterdir()} != contents.keys():
        raise TargetExistsError(target)
    store.disk.make_folder(place.parent)
    draft = place.with_name(f".{place.name}.partial-{os.urandom(8).hex()}")
    try:
        writer = {".tar": _write_tar, ".zip": _write_zip}.get(target.suffix, _write_folder)
        writer(store, draft, contents)
        if not target.exists():
            store.disk.rename(draft, target)
        elif _digests(draft) != _digests(target):
            raise TargetExistsError(target)
    finally:
        if draft.exists():
            store.disk.remove(draft)
    return target


def _contents(store: Store, ref: str) -> dict[str, Content]:
    version = resolve(store, ref)
    view = view_of(store, version)
    manifest_path = store.blobs.path(version.manifest_digest)
    summary = json.dumps(read_manifest(manifest_path).model_dump(mode="json"), indent=2, sort_keys=True)
    contents: dict[str, Content] = {f"{role}.safetensors": path for role, path in sorted(view.paths.items())}
    contents[MANIFEST_FILE] = manifest_path
    contents[SUMMARY_FILE] = summary.encode() + b"\n"
    contents[CARD_FILE] = model_card(version).encode()
    return contents


def _write_folder(store: Store, folder: Path, contents: Mapping[str, Content]) -> None:
    store.disk.make_folder(folder)
    for name, content in contents.items():
        store.disk.write(folder / name, [content] if isinstance(content, bytes) else chunks_of(content))
    store.disk.sync_folder(folder)


def _write_tar(store: Store, path: Path, contents: Mapping[str, Content]) -> None:
    store.disk.write(path, [])
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in contents.items():
            entry = tarfile.TarInfo(name)  # time 0, owner 0: the same version, the same bytes
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
    return {each.name if path.is_dir() else "": digest_of(chunks_of(each)).digest for each in files if each.is_file()}
