from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from automl_tl_registry import Registry, VersionView
from automl_tl_registry.errors import DamagedBlobError, DamagedManifestError, NotFoundError
from automl_tl_registry.journal import hash_of
from automl_tl_registry.values import Event
from tests.registry.registry_fakes import FakeClock, publish, snapshot


@pytest.fixture
def busy(registry: Registry, work: Path) -> Registry:
    """A registry with two versions, an alias and a tag."""
    publish(registry, work, seed=1)
    publish(registry, work, seed=2)
    registry.promote("insects@1", "production", actor="ada", reason="first")
    registry.promote("insects@2", "production", actor="bob")
    registry.tag("insects@2", add=["paper"])
    return registry


def tamper(registry: Registry, *statements: str) -> None:
    """Change the database as somebody would who knows SQLite."""
    with closing(sqlite3.connect(registry.root / "registry.sqlite", isolation_level=None)) as connection:
        connection.execute("DROP TRIGGER events_never_change")
        connection.execute("DROP TRIGGER events_never_leave")
        for statement in statements:
            connection.execute(statement)


def problems(registry: Registry) -> list[tuple[str, str]]:
    return [(problem.kind, problem.subject.split()[0]) for problem in registry.verify().problems]


def test_verify_of_an_intact_registry_changes_nothing(busy: Registry) -> None:
    before = snapshot(busy.root)

    found = busy.verify()

    assert (found.problems, found.sound, found.num_versions, found.num_events) == ((), True, 2, 5)
    assert snapshot(busy.root) == before


def test_verify_accepts_a_missing_registry(registry: Registry) -> None:
    assert registry.verify().problems == ()


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "remove"])
def test_verify_names_version_and_role_of_a_damaged_blob(busy: Registry, damage: str) -> None:
    path = busy.path("insects@1", "head")
    content = path.read_bytes()
    path.unlink()
    damaged = {"flip": content[:-1] + bytes([content[-1] ^ 1]), "cut": content[:-5], "empty": b""}
    if damage != "remove":
        path.write_bytes(damaged[damage])

    found = busy.verify()

    assert [problem.subject for problem in found.problems] == [f"insects@1 head {path.name}"]
    assert not found.sound


def test_verify_names_each_version_of_a_shared_blob(busy: Registry) -> None:
    busy.path("insects@1", "encoder").unlink()

    assert problems(busy) == [("blob", "insects@2"), ("blob", "insects@1")]


def test_verify_names_a_damaged_manifest(busy: Registry) -> None:
    digest = busy.resolve("insects@1").manifest_digest
    path = busy.root / "blobs" / "sha256" / digest[:2] / digest
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content.replace(b"0.9,", b"1.0,"))

    with pytest.raises(DamagedBlobError):
        busy.load("insects@1")
    assert problems(busy) == [("manifest", "insects@1")]


def test_verify_names_facts_edited_in_the_database(busy: Registry) -> None:
    tamper(busy, "UPDATE manifests SET json = replace(json, '\"accuracy\":0.9', '\"accuracy\":0.99')")

    with pytest.raises(DamagedManifestError, match="disagrees with the database"):
        busy.load("insects@1")
    assert problems(busy) == [("manifest", "insects@2"), ("manifest", "insects@1")]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE events SET actor = 'eve' WHERE seq = 3",
        "UPDATE events SET at = '2026-05-02T00:00:00.000000+00:00' WHERE seq = 3",
        "UPDATE events SET detail = '{}' WHERE seq = 3",
        "UPDATE events SET version = 2 WHERE seq = 3",
        "DELETE FROM events WHERE seq = 3",
    ],
)
def test_verify_names_an_edited_event(busy: Registry, change: str) -> None:
    tamper(busy, change)

    assert ("log", "event") in problems(busy)
    assert any(problem.subject == "event 3" for problem in busy.verify().problems)


def test_verify_finds_a_rehashed_log_through_the_mirror(busy: Registry) -> None:
    events, statements = busy.events(), []
    for event in events[2:]:
        previous = events[event.seq - 2].hash
        changed = event.model_copy(update={"previous": previous} | ({"actor": "eve"} if event.seq == 3 else {}))
        events[event.seq - 1] = changed.model_copy(update={"hash": hash_of(changed)})
        row = events[event.seq - 1]
        statements.append(
            f"UPDATE events SET actor='{row.actor}', previous='{row.previous}', hash='{row.hash}' WHERE seq={row.seq}"
        )
    tamper(busy, *statements)

    assert problems(busy) == [("mirror", "event")]


def test_verify_finds_a_truncated_log(busy: Registry) -> None:
    tamper(busy, "DELETE FROM events WHERE seq > 4", "DELETE FROM tags")

    assert problems(busy) == [("mirror", "events.jsonl")]


def test_verify_names_an_alias_moved_without_an_event(busy: Registry) -> None:
    tamper(busy, "UPDATE aliases SET version = 1", "DELETE FROM tags")

    assert problems(busy) == [("state", "insects@production"), ("state", "insects@2")]


def test_events_are_append_only_in_sqlite(busy: Registry) -> None:
    with closing(sqlite3.connect(busy.root / "registry.sqlite")) as connection:
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute("UPDATE events SET actor = 'eve'")
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute("DELETE FROM events")


def test_verify_warns_about_an_incomplete_mirror(busy: Registry) -> None:
    mirror = busy.root / "events.jsonl"
    lines = mirror.read_bytes().splitlines(keepends=True)
    mirror.write_bytes(b"".join(lines[:-2]) + lines[-2][:20])

    assert (problems(busy), busy.verify().sound) == ([("mirror", "events.jsonl")], True)
    busy.tag("insects@1", add=["old"])
    assert busy.verify().problems == ()


def test_verify_warns_about_an_unknown_file(busy: Registry) -> None:
    (busy.root / "blobs" / "sha256" / "ab").mkdir(exist_ok=True)
    (busy.root / "blobs" / "sha256" / "ab" / "readme.txt").write_text("hello")

    assert (problems(busy), busy.verify().sound) == ([("unknown_file", "blobs/sha256/ab/readme.txt")], True)


def test_verify_names_an_unreadable_database(busy: Registry) -> None:
    (busy.root / "registry.sqlite").write_bytes(b"rubbish" * 1000)

    assert problems(busy) == [("database", "registry.sqlite")]


def test_verify_warns_about_an_event_from_the_future(busy: Registry, clock: FakeClock) -> None:
    clock.forward(days=-1)

    assert (problems(busy), busy.verify().sound) == ([("clock", "clock")], True)


def test_verify_accepts_one_version(busy: Registry) -> None:
    busy.path("insects@1", "head").unlink()

    assert busy.verify("insects@2").problems == ()
    assert len(busy.verify("insects@1").problems) == 1
    with pytest.raises(NotFoundError):
        busy.verify("insects@3")


def test_verify_computes_reference_predictions_of_each_version(busy: Registry) -> None:
    def disagree(view: VersionView) -> None:
        if view.version == 1:
            raise ArithmeticError("class 2 instead of 1")

    found = Registry(busy.root, check_predictions=disagree).verify(predictions=True)

    assert found.num_predicted == 2
    assert [(each.kind, each.subject, each.text) for each in found.problems if each.kind == "reference_predictions"] == [
        ("reference_predictions", "insects@1", "ArithmeticError: class 2 instead of 1")
    ]


def test_mirror_equals_the_log(busy: Registry) -> None:
    lines = (busy.root / "events.jsonl").read_text().splitlines()

    assert [Event.model_validate(json.loads(line)) for line in lines] == busy.events()
