"""The registry under the rules of Windows: read-only and open files are neither removed nor replaced, folders not flushed."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from filelock import lock_descriptor

from automl_tl_registry import Registry
from automl_tl_registry.errors import InvalidBlobError
from automl_tl_registry.storage import Disk, file_lock, is_locked
from automl_tl_registry.store import sqlite_uri
from tests.registry.registry_fakes import facts, publish, weights

windows = pytest.mark.usefixtures("windows")


@windows
def test_gc_removes_read_only_blobs(registry: Registry, work: Path) -> None:
    blob = registry.path(publish(registry, work).ref, "head")
    registry.delete("insects@1")

    collected = registry.gc()

    assert len(collected.blobs) == 3
    assert not blob.exists()


@windows
def test_publish_replaces_a_damaged_read_only_blob(registry: Registry, work: Path) -> None:
    blob = registry.path(publish(registry, work).ref, "encoder")
    content = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(b"damaged")
    blob.chmod(0o444)

    publish(registry, work, seed=1)

    assert blob.read_bytes() == content


@windows
def test_publish_that_is_refused_leaves_no_blob(registry: Registry, work: Path) -> None:
    (work / "predictions").write_bytes(b"no tensors")

    with pytest.raises(InvalidBlobError):
        registry.publish("insects", {"head": weights(work / "head"), "predictions": work / "predictions"}, facts())

    assert not [path for path in registry.root.rglob("*") if path.is_file() and len(path.name) == 64]
    assert not list((registry.root / "staging").glob("*"))


@windows
def test_gc_removes_read_only_files_of_an_abandoned_draft(registry: Registry, work: Path) -> None:
    publish(registry, work)
    draft = registry.root / "staging" / ("0" * 32)
    draft.mkdir()
    (draft / "blob").write_bytes(b"x")
    (draft / "blob").chmod(0o444)

    assert registry.gc().num_abandoned == 1
    assert not draft.exists()


@windows
@pytest.mark.parametrize("name", ["insects.tar", "insects.zip", "insects"])
def test_export_and_import_round_trip(registry: Registry, work: Path, name: str) -> None:
    publish(registry, work)

    registry.export("insects@1", work / name)
    other = Registry(work / "other")
    imported = other.import_(work / name)

    assert imported.ref == "insects@1"
    assert other.verify().problems == ()


@windows
def test_file_lock_waits_longer_than_locks_of_windows_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept_s = 0.0

    def sleep(seconds: float) -> None:
        nonlocal slept_s
        slept_s += seconds
        if slept_s > 60:
            holder.close()  # `msvcrt.LK_LOCK` gives up after 10 s

    monkeypatch.setattr("time.sleep", sleep)
    holder = (tmp_path / "lock").open("wb")
    assert lock_descriptor(holder.fileno(), blocking=False)

    with file_lock(tmp_path / "lock"):
        assert is_locked(tmp_path / "lock")

    assert slept_s > 60


@pytest.mark.skipif(os.name == "nt", reason="folders are never flushed there")
@pytest.mark.parametrize(("number", "is_fatal"), [(errno.EINVAL, False), (errno.EOPNOTSUPP, False), (errno.EIO, True)])
def test_sync_folder_accepts_file_systems_without_it(
    number: int, is_fatal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)

    try:
        Disk().sync_folder(tmp_path)
    except OSError:
        assert is_fatal
    else:
        assert not is_fatal


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        (PurePosixPath("/home/ann/a b?#%/registry.sqlite"), "file:///home/ann/a%20b%3F%23%25/registry.sqlite"),
        (PureWindowsPath(r"C:\Users\Ann\registry.sqlite"), "file:///C:/Users/Ann/registry.sqlite"),
        (PureWindowsPath(r"\\server\share\registry.sqlite"), "file:////server/share/registry.sqlite"),  # no authority
    ],
)
def test_sqlite_uri_names_files_of_every_system(path: PurePosixPath | PureWindowsPath, uri: str) -> None:
    assert sqlite_uri(path) == uri


def test_actor_is_unknown_without_a_user_database(registry: Registry, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "pwd", None)

    registry.publish("insects", {"head": weights(work / "head")}, facts())

    assert registry.events()[0].actor.startswith("unknown@")
