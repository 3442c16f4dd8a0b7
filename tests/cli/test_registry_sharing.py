"""``tl registry`` with a shared registry in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from automl_tl.cli import main
from automl_tl_registry import Registry
from tests.registry.registry_fakes import publish

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run ``tl registry`` in this process: exit code, standard output, standard error."""

    def run_main(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["tl", "registry", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run_main


def test_push_pull_and_sync_print_what_they_moved(run: Run, tmp_path: Path) -> None:
    publish(Registry(tmp_path / "mine"), tmp_path / "work")
    shared, mine, yours = str(tmp_path / "shared"), str(tmp_path / "mine"), str(tmp_path / "yours")

    pushed = run("push", "insects", shared, "--registry", mine)
    pulled = run("pull", "insects@1", shared, "--registry", yours, "--json")
    synced = run("sync", "insects", shared, "--registry", yours, "--json")

    assert pushed[:2] == (0, f"pushed insects@1 to {Path(shared).as_uri()}: 3 files, 0.0 MiB, 1 event\n")
    assert json.loads(pulled[1])["versions"] == ["insects@1"]
    assert json.loads(synced[1])["pulled"]["num_present"] == json.loads(synced[1])["pushed"]["num_present"] == 1


def test_remote_queries_and_alias_moves(run: Run, tmp_path: Path) -> None:
    publish(Registry(tmp_path / "mine"), tmp_path / "work")
    Registry(tmp_path / "mine").push("insects", str(tmp_path / "shared"))
    where = ("--remote", str(tmp_path / "shared"), "--registry", str(tmp_path / "yours"))

    promoted = run("promote", "insects@1", "production", *where, "--force", "--reason", "no reference images", "--json")
    lost = run("promote", "insects@1", "staging", *where, "--expect", "2")

    assert (promoted[0], json.loads(promoted[1])["version"]) == (0, 1)
    assert lost[0] == 7
    assert "insects@staging was expected to be insects@2, but it is unset" in lost[2]
    assert json.loads(run("list", *where, "--json")[1])[0]["aliases"] == ["production"]
    assert json.loads(run("show", "insects@production", *where, "--json")[1])["version"] == 1
    assert json.loads(run("history", *where, "--json")[1])[0]["reason"] == "no reference images"
    assert json.loads(run("demote", "insects", "production", *where, "--json")[1])["version"] is None
    assert json.loads(run("rollback", "insects", "production", *where, "--json")[1])["version"] == 1


def test_remote_upkeep(run: Run, tmp_path: Path) -> None:
    for seed in range(2):
        publish(Registry(tmp_path / "mine"), tmp_path / "work", seed=seed)
    Registry(tmp_path / "mine").push("insects", str(tmp_path / "shared"))
    where = ("--remote", str(tmp_path / "shared"), "--registry", str(tmp_path / "yours"))

    verified, deleted, collected = run("verify", *where), run("delete", "insects@1", *where), run("gc", *where)
    refused = run("verify", "--predictions", *where)
    next((tmp_path / "shared" / "models" / "insects" / "log").iterdir()).write_text("{}")
    damaged = run("verify", *where)

    assert verified[1].startswith("sound: 2 versions, 5 blobs, 2 events")
    assert "in a week, `tl registry gc --remote" in deleted[1]
    assert collected[:2] == (0, "removed 0 files, 0.0 MiB\n")
    assert (refused[0], damaged[0]) == (2, 9)
    assert "--predictions needs the files here" in refused[2]
