"""Default folders; the cache stays within its limit and removes the least recently used entries first."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from automl_tl.cli.app import app
from automl_tl.errors import ResourceError
from automl_tl.runtime import paths
from automl_tl.runtime.paths import (
    cache_dir,
    cache_use,
    clear_cache,
    read_limit,
    registry_dir,
    set_limit,
    trim_cache,
    usable_cache,
)

DAY_S = 86_400.0


def entry(folder: Path, name: str, *, mib: float, used_s: float, kind: str = "activations") -> Path:
    place = folder / kind / name
    place.mkdir(parents=True)
    (place / "rows.npy").write_bytes(b"\0" * int(mib * 2**20))
    for path in (place / "rows.npy", place):
        os.utime(path, (used_s, used_s))
    return place


def test_paths_are_below_tl_home(home: Path) -> None:
    assert registry_dir() == home / "registry"
    assert cache_dir() == home / "cache"


def test_paths_without_tl_home_are_user_directories(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TL_HOME")

    assert "automl_tl" in str(registry_dir())
    assert "automl_tl" in str(cache_dir())


@pytest.mark.parametrize("name", ["with spaces", "d\xfcne", "a/b/c"])
def test_paths_accept_any_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TL_HOME", str(tmp_path / name))

    assert registry_dir() == tmp_path / name / "registry"
    assert usable_cache(cache_dir()) == tmp_path / name / "cache"


def test_paths_reject_a_tl_home_that_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "absent")

    for name, words in (("file", "not a folder"), ("link", "a link to nothing")):
        monkeypatch.setenv("TL_HOME", str(tmp_path / name))
        with pytest.raises(ResourceError, match=words):
            registry_dir()


def without_home(name: str) -> Path:
    raise RuntimeError(f"could not determine the home directory for {name}")


@pytest.mark.parametrize("find", [without_home, lambda name: Path("~/.local/share") / name], ids=["new", "old"])
def test_paths_ask_users_without_a_home_for_tl_home(find: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TL_HOME")
    monkeypatch.setattr(paths, "user_data_path", find)

    with pytest.raises(ResourceError, match="Set TL_HOME"):
        registry_dir()


def test_usable_cache_is_temporary_where_nothing_can_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")

    folder = usable_cache(tmp_path / "file" / "cache")
    again = usable_cache(tmp_path / "file" / "cache")

    assert folder == again
    assert folder.is_dir()
    assert len(caplog.records) == 1
    assert "cannot be used (Not a directory)" in caplog.text


def test_usable_cache_is_temporary_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fcntl = pytest.importorskip("fcntl", reason="needs POSIX file locks")

    def missing(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", missing)

    assert usable_cache(tmp_path / "cache") != tmp_path / "cache"
    assert "no file locks" in caplog.text
    assert not list((tmp_path / "cache").iterdir())


def test_trim_cache_removes_least_recently_used_first(tmp_path: Path) -> None:
    old = entry(tmp_path, "old", mib=2, used_s=1 * DAY_S)
    newer = entry(tmp_path, "newer", mib=2, used_s=2 * DAY_S)
    newest = entry(tmp_path, "newest", mib=2, used_s=3 * DAY_S, kind="engines")
    set_limit(tmp_path, 4.5)

    assert trim_cache(tmp_path, now_s=9 * DAY_S) == pytest.approx(2)
    assert (old.exists(), newer.exists(), newest.exists()) == (False, True, True)
    assert trim_cache(tmp_path, now_s=9 * DAY_S) == 0


def test_trim_cache_keeps_entries_in_use(tmp_path: Path) -> None:
    busy = entry(tmp_path, "busy", mib=2, used_s=9 * DAY_S - 60)
    set_limit(tmp_path, 0.5)

    assert trim_cache(tmp_path, now_s=9 * DAY_S) == 0
    assert busy.exists()


def test_cache_that_is_missing_is_empty(tmp_path: Path) -> None:
    assert cache_use(tmp_path / "absent") == ()
    assert trim_cache(tmp_path / "absent") == 0
    assert clear_cache(tmp_path / "absent") == 0


@pytest.mark.parametrize("content", ["", "{}x", '{"limit_mib": -1}', '{"limit_mib": "much"}'])
def test_read_limit_falls_back_to_default_if_damaged(tmp_path: Path, content: str) -> None:
    (tmp_path / "limit.json").write_text(content)

    assert read_limit(tmp_path) == 10 * 1024


def test_cache_commands_report_limit_and_clear(home: Path) -> None:
    entry(home / "cache", "one", mib=3, used_s=DAY_S)
    run = CliRunner()

    before = json.loads(run.invoke(app, ["cache", "info", "--json"]).stdout)
    assert before["size_mib"] == 3
    assert before["kinds"] == [{"kind": "activations", "num_entries": 1, "size_mib": 3.0}]
    assert "3.0 MiB removed" in run.invoke(app, ["cache", "limit", "1MiB"]).stdout
    assert "1 MiB" in run.invoke(app, ["cache", "info"]).stdout
    entry(home / "cache", "two", mib=1, used_s=DAY_S)
    assert "1.0 MiB removed" in run.invoke(app, ["cache", "clear"]).stdout
    assert json.loads(run.invoke(app, ["cache", "info", "--json"]).stdout)["size_mib"] == 0
    assert run.invoke(app, ["cache", "limit", "lots"]).exit_code == 2


def test_cache_commands_print_removed_mib_as_json(home: Path) -> None:
    entry(home / "cache", "one", mib=3, used_s=DAY_S)
    run = CliRunner()

    limited = json.loads(run.invoke(app, ["cache", "limit", "1MiB", "--json"]).stdout)
    entry(home / "cache", "two", mib=1, used_s=DAY_S)
    cleared = json.loads(run.invoke(app, ["cache", "clear", "--json"]).stdout)

    assert limited == {"limit_mib": 1, "removed_mib": 3}
    assert cleared == {"removed_mib": 1}


@pytest.mark.usefixtures("windows")
def test_trim_and_clear_cache_keep_what_is_in_use(tmp_path: Path) -> None:
    busy = entry(tmp_path, "busy", mib=2, used_s=1 * DAY_S)
    free = entry(tmp_path, "free", mib=2, used_s=2 * DAY_S)
    database = tmp_path / "images.sqlite"
    database.write_bytes(b"\0" * 2**20)
    set_limit(tmp_path, 1)

    with (busy / "rows.npy").open("rb"), database.open("rb"):
        assert trim_cache(tmp_path, now_s=9 * DAY_S) == pytest.approx(2)
        assert (busy.exists(), free.exists()) == (True, False)
        assert clear_cache(tmp_path) == 0
    assert clear_cache(tmp_path) == pytest.approx(3)
