"""Full disks, read-only folders, schemas of other releases, locks: clear errors, nothing partial."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from automl_tl_registry import Registry
from automl_tl_registry.errors import (
    DiskFullError,
    NoLocksError,
    NotWritableError,
    RegistryError,
    StorageError,
)
from automl_tl_registry.storage import Disk, check_locks, check_writable, file_lock, is_locked
from automl_tl_registry.store import Database
from tests.registry.registry_fakes import FakeClock, publish, snapshot


class FailingDisk:
    """Raises ``number`` at step ``at``, and ever after if ``lasting``."""

    def __init__(self, number: int, at: int, *, lasting: bool) -> None:
        self.number, self.at, self.lasting, self.step = number, at, lasting, 0

    def __call__(self, label: str) -> None:
        if label.startswith("before") and not label.startswith(("before remove", "before commit")):
            failing = self.step >= self.at if self.lasting else self.step == self.at
            self.step += 1
            if failing:
                raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("lasting", [True, False])
def test_publish_on_a_full_disk_raises_and_publishes_nothing(registry: Registry, work: Path, lasting: bool) -> None:
    publish(registry, work, seed=1)
    at, published = 0, 1
    while True:
        failing = FailingDisk(errno.ENOSPC, at, lasting=lasting)
        try:
            publish(Registry(registry.root, disk=Disk(failing), clock=registry._store.clock), work, seed=100 + at)
            published += 1
        except DiskFullError:
            pass
        assert len(registry.versions()) == published
        if failing.step <= at:
            break
        at += 1

    assert at > 10
    registry.gc()
    publish(registry, work, seed=2)
    assert registry.verify().problems == ()


def test_publish_that_fails_leaves_no_files(registry: Registry, work: Path) -> None:
    publish(registry, work, seed=1)
    before = {path for path in snapshot(registry.root) if "sha256/" not in path or len(path) > 70}

    with pytest.raises(DiskFullError):
        publish(Registry(registry.root, disk=Disk(FailingDisk(errno.ENOSPC, 9, lasting=False))), work, seed=2)

    assert {path for path in snapshot(registry.root) if "sha256/" not in path or len(path) > 70} == before


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_publish_names_what_is_not_writable(registry: Registry, work: Path, number: int) -> None:
    with pytest.raises(NotWritableError, match="Nothing was changed"):
        publish(Registry(registry.root, disk=Disk(FailingDisk(number, 0, lasting=True))), work)

    assert not registry.root.exists()


# ---------------------------------------------------------------------------------------------------------- read-only


@pytest.fixture
def shown(work: Path) -> Iterator[Registry]:
    """A world-readable registry, outside pytest's folder, which other users cannot enter."""
    with TemporaryDirectory(prefix="automl_tl-test-") as folder:
        Path(folder).chmod(0o755)
        registry = Registry(Path(folder) / "registry", clock=FakeClock())
        publish(registry, work, seed=1)
        publish(registry, work, seed=2)
        registry.promote("insects@1", "production", actor="ada")
        registry.delete("insects@2")
        yield registry
        writable(registry.root, True)


def writable(root: Path, yes: bool) -> None:
    for path in [root, *root.rglob("*")]:
        path.chmod((0o755 if path.is_dir() else 0o644) if yes else (0o555 if path.is_dir() else 0o444))


def as_nobody(question: Callable[[], object]) -> str:
    """What ``question`` answers in a process without special rights: root may write everywhere."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
            answer = repr(question())
        except RegistryError as error:
            answer = f"{type(error).__name__}: {error}"
        except BaseException as error:
            answer = f"unexpected {error!r}"
        os.write(writer, answer.encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as stream:
        return stream.read().decode()


unix_only = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and file modes")
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")  # Python 3.12; the child only asks


@unix_only
def test_queries_work_on_a_read_only_registry(shown: Registry) -> None:
    writable(shown.root, False)
    before = snapshot(shown.root)

    assert as_nobody(lambda: [each.ref for each in shown.versions()]) == "['insects@1']"
    assert as_nobody(lambda: shown.load("insects@production").version) == "1"
    assert as_nobody(lambda: len(shown.history())) == "1"
    assert as_nobody(lambda: shown.verify().problems) == "()"
    assert as_nobody(lambda: len(shown.gc(dry_run=True).blobs)) == "2"
    assert "class_names" not in as_nobody(lambda: shown.card("insects"))
    assert snapshot(shown.root) == before


def die_in_a_commit(registry: Registry) -> None:
    """Leave the database half written beside its journal, as a process that is killed in the middle of a commit does."""
    child = os.fork()
    if child == 0:
        with registry._store.database.writing() as connection:
            connection.execute("PRAGMA cache_size = 2")  # pages are written to the database before the commit
            connection.executemany("INSERT INTO tags VALUES ('insects', 1, ?)", [(f"{n}" * 90,) for n in range(1000)])
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert (registry.root / "registry.sqlite-journal").stat().st_size > 0


@unix_only
def test_read_undoes_the_commit_of_a_dead_writer(shown: Registry) -> None:
    whole = (shown.root / "registry.sqlite").read_bytes()
    die_in_a_commit(shown)
    torn = (shown.root / "registry.sqlite").read_bytes()

    assert shown.resolve("insects").tags == ()
    assert torn != whole
    assert shown.verify().problems == ()


@unix_only
def test_read_explains_a_commit_that_cannot_be_undone_without_writing(shown: Registry) -> None:
    die_in_a_commit(shown)
    writable(shown.root, False)
    before = snapshot(shown.root)

    assert as_nobody(lambda: shown.resolve("insects").tags).startswith("NotWritableError: ")
    assert snapshot(shown.root) == before


@unix_only
def test_queries_work_on_a_read_only_registry_during_a_write(shown: Registry) -> None:
    with shown._store.database.writing() as connection:
        connection.execute("INSERT INTO tags VALUES ('insects', 1, 'pending')")
        during = as_nobody(lambda: shown.resolve("insects").tags)

    assert (during, as_nobody(lambda: shown.resolve("insects").tags)) == ("()", "('pending',)")


@unix_only
@pytest.mark.parametrize("verb", ["publish", "promote", "rollback", "tag", "delete", "gc", "prune", "import", "rebuild"])
def test_writes_to_a_read_only_registry_raise_and_change_nothing(shown: Registry, work: Path, verb: str) -> None:
    exported = shown.export("insects@1", shown.root.with_name("exported"))
    files = {"head": work / "head"}
    shutil.copy(work / "head", shown.root.with_name("head"))
    files = {"head": shown.root.with_name("head")}
    version = shown.resolve("insects@1")
    verbs: dict[str, Callable[[], object]] = {
        "publish": lambda: shown.publish("insects", files, version.facts),
        "promote": lambda: shown.promote("insects@1", "staging"),
        "rollback": lambda: shown.demote("insects", "production"),
        "tag": lambda: shown.tag("insects@1", add=["x"]),
        "delete": lambda: shown.delete("insects@1"),
        "gc": shown.gc,
        "prune": lambda: shown.prune("insects", keep_best=0, keep_last=0),
        "import": lambda: shown.import_(exported, name="other"),
        "rebuild": shown.rebuild,
    }
    writable(shown.root, False)
    before = snapshot(shown.root)

    answer = as_nobody(verbs[verb])

    expected = "Pruned(" if verb == "prune" else "NotWritableError: "  # there is nothing that prune may delete
    assert answer.startswith(expected)
    assert snapshot(shown.root) == before


@unix_only
def test_publish_into_a_read_only_folder_raises(shown: Registry) -> None:
    shutil.copy(shown.path("insects", "head"), shown.root.with_name("head"))
    shown.root.parent.chmod(0o555)
    elsewhere = Registry(shown.root.parent / "deep" / "registry")

    answer = as_nobody(lambda: elsewhere.publish("a", {"head": shown.root.with_name("head")}, shown.resolve("insects").facts))

    shown.root.parent.chmod(0o755)
    assert answer.startswith("NotWritableError: ")


# ------------------------------------------------------------------------------------------------------ other releases


def test_database_rejects_a_newer_schema(registry: Registry, work: Path) -> None:
    publish(registry, work)
    with closing(sqlite3.connect(registry.root / "registry.sqlite")) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = snapshot(registry.root)

    for ask in (registry.versions, registry.gc, registry.rebuild, registry.verify, lambda: publish(registry, work)):
        with pytest.raises(StorageError, match=r"schema 99; this release supports up to 1.*upgrade") as caught:
            ask()
        assert caught.value.exit_code == 10
    assert {path for path in snapshot(registry.root) if "sqlite-" not in path} == set(before)


def test_write_raises_busy_after_the_timeout(registry: Registry, work: Path) -> None:
    publish(registry, work)
    impatient = Database(registry.root / "registry.sqlite", Disk(), timeout_s=0.05)

    with registry._store.database.writing(), pytest.raises(StorageError, match="Another process"), impatient.writing():
        pass


def test_read_during_a_write_sees_the_last_commit(registry: Registry, work: Path) -> None:
    publish(registry, work)

    with registry._store.database.writing() as connection:
        connection.execute("INSERT INTO tags VALUES ('insects', 1, 'pending')")
        during = registry.resolve("insects").tags
        connection.execute("DELETE FROM tags")

    assert during == ()


def test_commit_waits_for_readers(registry: Registry, work: Path) -> None:
    publish(registry, work)
    impatient = Database(registry.root / "registry.sqlite", Disk(), timeout_s=0.05)

    def read_while_another_writes(connection: sqlite3.Connection) -> list[int]:
        counts = [connection.execute("SELECT count(*) FROM tags").fetchone()[0]]
        with pytest.raises(StorageError), impatient.writing() as writer:
            writer.execute("INSERT INTO tags VALUES ('insects', 1, 'late')")
        return [*counts, connection.execute("SELECT count(*) FROM tags").fetchone()[0]]

    assert registry._store.database.read(read_while_another_writes) == [0, 0]
    assert registry.resolve("insects").tags == ()


def test_file_lock_is_seen_by_others_until_it_is_released(tmp_path: Path) -> None:
    with file_lock(tmp_path / "lock"):
        during = is_locked(tmp_path / "lock")

    assert (during, is_locked(tmp_path / "lock"), is_locked(tmp_path / "missing")) == (True, False, False)


@unix_only
def test_file_lock_is_released_by_kill(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with file_lock(tmp_path / "lock"):
            os.write(writer, b"locked")
            signal.pause()
    os.read(reader, 6)
    before = is_locked(tmp_path / "lock")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reader)
    os.close(writer)

    assert (before, is_locked(tmp_path / "lock")) == (True, False)


@unix_only
def test_is_locked_reads_a_lock_file_that_is_not_writable(shown: Registry) -> None:
    path = shown.root / "lock"
    with file_lock(path):
        path.chmod(0o444)
        during = as_nobody(lambda: is_locked(path))

    assert (during, as_nobody(lambda: is_locked(path))) == ("True", "False")


# ------------------------------------------------------------------------------------------------------- without locks


def remove_locks(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Take away one of the two kinds of locks, as on Lustre, some NFS mounts and FUSE."""
    fcntl = pytest.importorskip("fcntl", reason="needs POSIX file locks")
    number = {"flock": errno.ENOSYS, "lockf": errno.ENOLCK}[kind]

    def missing(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, kind, missing)


@pytest.mark.parametrize("kind", ["flock", "lockf"])
def test_check_writable_requires_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    remove_locks(monkeypatch, kind)

    with pytest.raises(NoLocksError, match="without file locks"):
        check_writable(tmp_path / "registry")
    assert not list(tmp_path.iterdir())


def test_check_writable_accepts_a_folder_to_be_made(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "registry")
    check_locks(tmp_path)

    assert not list(tmp_path.iterdir())


def test_check_writable_rejects_links_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "registry").symlink_to(tmp_path / "absent")

    with pytest.raises(NotWritableError, match="not a folder"):
        check_writable(tmp_path / "registry")


def test_database_without_locks_is_read_and_never_written(
    registry: Registry, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(registry, work, seed=1)
    remove_locks(monkeypatch, "lockf")
    database = Database(registry.root / "registry.sqlite", Disk())
    with closing(sqlite3.connect(database.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")  # what SQLite makes of a missing lock: the database is locked

        with pytest.raises(NoLocksError, match="Nothing was changed"), database.writing():
            pass
        assert len(registry.versions()) == 1


def test_promote_without_locks_fails_before_the_gates(registry: Registry, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(registry, work, seed=1)
    remove_locks(monkeypatch, "flock")
    checked: list[object] = []

    with pytest.raises(NoLocksError):
        Registry(registry.root, check_predictions=checked.append).promote("insects@1", "production")
    assert not checked


def test_publish_without_locks_publishes_nothing(registry: Registry, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(registry, work, seed=1)
    with monkeypatch.context() as patch:
        remove_locks(patch, "flock")
        with pytest.raises(NoLocksError):
            publish(registry, work, seed=2)

    assert len(registry.versions()) == 1
    assert registry.verify().problems == ()


def test_check_writable_rejects_a_path_that_is_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(NotWritableError, match="not valid UTF-8"):
        check_writable(tmp_path / os.fsdecode(b"caf\xe9"))
