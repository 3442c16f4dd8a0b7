"""Many processes at once. REGISTRY_FULL=1 runs the full counts: 8 processes with 50 publications each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from automl_tl_registry import Registry
from automl_tl_registry.store import Mirror, Store
from tests.registry.registry_fakes import publish

WORKERS = ("-m", "tests.registry.registry_workers")
NUM_PROCESSES, NUM_VERSIONS = (8, 50) if os.environ.get("REGISTRY_FULL") else (3, 4)


def start(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, *WORKERS, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> dict[str, int]:
    printed, complaints = process.communicate(timeout=600)
    assert process.returncode == 0, complaints
    counts: dict[str, int] = json.loads(printed)
    return counts


def test_registry_serves_many_processes_at_once(tmp_path: Path) -> None:
    root, stop = tmp_path / "registry", tmp_path / "stop"

    publishers = [start("publish", root, number, NUM_VERSIONS) for number in range(NUM_PROCESSES)]
    others = [start("gc", root, stop), start("read", root, stop)]
    done = [finish(process) for process in publishers]
    stop.touch()
    turns = [finish(process)["turns"] for process in others]

    registry = Registry(root)
    total = NUM_PROCESSES * NUM_VERSIONS
    assert [version.version for version in registry.versions("insects")] == list(range(total, 0, -1))
    assert len({version.blobs["head"].digest for version in registry.versions()}) == total
    moves = [event for event in registry.events() if event.verb == "promoted"]
    assert len(moves) == sum(each["won"] for each in done)
    assert [move.detail["from"] for move in moves] == [None, *(move.version for move in moves[:-1])]
    assert registry.verify().problems == ()
    assert registry.gc().blobs == ()
    print(
        f"{total} versions, {len(moves)} promotions won, {sum(each['lost'] for each in done)} lost, gc and reader turns {turns}"
    )


def test_publish_tolerates_a_concurrent_first_publication(
    registry: Registry, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the other leaves is seen after one has looked for a database and before one looks for the rest."""
    others = [lambda: publish(Registry(registry.root), work)]

    def mirror(self: Store) -> Mirror:
        if others:
            others.pop()()
        return Mirror(self.root / "events.jsonl", self.disk)

    monkeypatch.setattr(Store, "mirror", property(mirror))

    assert publish(registry, work).ref == "insects@2"
