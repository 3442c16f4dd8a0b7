from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from automl_tl_registry import Registry
from automl_tl_registry.errors import DamagedDatabaseError
from tests.registry.registry_fakes import FakeClock, publish, publish_said


@pytest.fixture
def lived(registry: Registry, work: Path, clock: FakeClock) -> Registry:
    """A registry that has seen everything once."""
    for seed in range(3):
        publish(registry, work, seed=seed)
    publish_said(registry, work, [0, 1, 2], [0, 1, 2])
    publish(registry, work, "birds")
    registry.promote("insects@1", "production", actor="ada")
    registry.promote("insects@4", "production", actor="bob", reason="better")
    registry.promote("insects@2", "staging")
    registry.tag("insects@2", add=["paper"])
    registry.delete("insects@3")
    clock.forward(days=1)
    return registry


def state(registry: Registry) -> object:
    return registry.versions(sort="name"), registry.history()


@pytest.mark.parametrize("damage", ["none", "removed", "rubbish", "emptied", "halved"])
def test_rebuild_restores_everything(lived: Registry, damage: str) -> None:
    before, database = state(lived), lived.root / "registry.sqlite"
    content = database.read_bytes()
    if damage == "removed":
        database.unlink()
    elif damage != "none":
        database.write_bytes({"rubbish": b"rubbish" * 999, "emptied": b"", "halved": content[: len(content) // 2]}[damage])

    rebuilt = lived.rebuild(actor="ada")

    assert state(lived) == before
    assert (rebuilt.num_versions, rebuilt.num_aliases, rebuilt.recovered) == (4, 2, ())
    assert lived.verify().problems == ()


def test_rebuild_is_idempotent_and_keeps_numbering(lived: Registry, work: Path) -> None:
    (lived.root / "registry.sqlite").unlink()
    lived.rebuild()
    before = state(lived)

    lived.rebuild()

    assert state(lived) == before
    assert publish(lived, work).ref == "insects@5"
    assert lived.rollback("insects", "production").version == 1


def test_rebuild_without_the_mirror_restores_versions(lived: Registry) -> None:
    for name in ("registry.sqlite", "events.jsonl"):
        (lived.root / name).unlink()

    rebuilt = lived.rebuild()

    assert [each.ref for each in lived.versions(sort="name")] == ["birds@1", "insects@4", "insects@3", "insects@2", "insects@1"]
    assert len(rebuilt.recovered) == 5
    assert lived.history() == []
    assert lived.verify().problems == ()


def test_rebuild_reports_a_version_without_a_manifest(lived: Registry) -> None:
    digest = lived.resolve("insects@2").manifest_digest
    (lived.root / "blobs" / "sha256" / digest[:2] / digest).unlink()
    (lived.root / "registry.sqlite").unlink()

    rebuilt = lived.rebuild()

    assert any("insects@2 is lost" in problem for problem in rebuilt.problems)
    assert [each.version for each in lived.versions("insects")] == [4, 1]
    assert lived.history(alias="staging")[-1].until is not None
    assert lived.verify().problems == ()


def test_rebuild_ignores_the_mirror_after_a_damaged_line(lived: Registry) -> None:
    mirror = lived.root / "events.jsonl"
    lines = mirror.read_text().splitlines(keepends=True)
    lines[6] = lines[6].replace("bob", "eve")
    mirror.write_text("".join(lines))
    (lived.root / "registry.sqlite").unlink()

    rebuilt = lived.rebuild()

    assert any("event 7 was changed" in problem for problem in rebuilt.problems)
    assert lived.resolve("insects@production").version == 1
    assert lived.verify().problems == ()
    assert [path.name for path in lived.root.glob("events.jsonl.damaged-*")] == ["events.jsonl.damaged-2026-05-02T120000"]


def test_rebuild_recovers_an_unmirrored_version_from_its_manifest(lived: Registry, work: Path) -> None:
    mirror = lived.root / "events.jsonl"
    known = mirror.read_bytes()
    version = publish(lived, work, "birds", seed=5)
    mirror.write_bytes(known)
    (lived.root / "registry.sqlite").unlink()

    assert lived.rebuild().recovered == ("birds@2",)
    assert lived.resolve("birds@2") == version


def test_rebuild_keeps_the_damaged_database(lived: Registry) -> None:
    (lived.root / "registry.sqlite").write_bytes(b"rubbish" * 999)

    lived.rebuild()

    (kept,) = lived.root.glob("registry.sqlite.damaged-*")
    assert kept.read_bytes() == b"rubbish" * 999


def test_registry_without_its_database_raises(lived: Registry, tmp_path: Path) -> None:
    shutil.copytree(lived.root, tmp_path / "copy", ignore=shutil.ignore_patterns("registry.sqlite"))

    with pytest.raises(DamagedDatabaseError, match="rebuild"):
        Registry(tmp_path / "copy").versions()


def test_rebuild_requires_a_folder(registry: Registry) -> None:
    with pytest.raises(DamagedDatabaseError, match="no folder"):
        registry.rebuild()
