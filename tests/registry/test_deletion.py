from __future__ import annotations

from pathlib import Path

import pytest

from automl_tl_registry import Metrics, Registry
from automl_tl_registry.errors import ConflictError, InvalidNameError, NotFoundError
from tests.registry.registry_fakes import FakeClock, facts, publish, snapshot, weights


def num_blobs(registry: Registry) -> int:
    return len([path for path in (registry.root / "blobs").rglob("*") if path.is_file()])


def test_delete_removes_the_version_and_gc_its_blobs(registry: Registry, work: Path) -> None:
    publish(registry, work, seed=1)
    publish(registry, work, seed=2)

    registry.delete("insects@1", reason="a try")
    before, found = num_blobs(registry), registry.gc()

    assert [each.ref for each in registry.versions()] == ["insects@2"]
    assert (before, len(found.blobs), num_blobs(registry)) == (5, 2, 3)
    assert registry.load("insects@2").paths.keys() == {"encoder", "head"}


def test_delete_never_frees_a_number(registry: Registry, work: Path) -> None:
    publish(registry, work)
    registry.delete("insects@1")

    assert publish(registry, work).ref == "insects@2"
    with pytest.raises(NotFoundError, match="was deleted"):
        registry.resolve("insects@1")


def test_delete_rejects_recently_aliased_versions(registry: Registry, work: Path, clock: FakeClock) -> None:
    for seed in range(2):
        publish(registry, work, seed=seed)
    registry.promote("insects@1", "production")

    with pytest.raises(ConflictError, match="it is production") as caught:
        registry.delete("insects@1")
    registry.promote("insects@2", "production")
    clock.forward(days=29)
    with pytest.raises(ConflictError, match=r"it was production until 2026-05-01; .* from 2026-05-31 12:00 UTC"):
        registry.delete("insects@1")
    clock.forward(days=1)

    assert caught.value.exit_code == 7
    assert registry.delete("insects@1").ref == "insects@1"


@pytest.mark.parametrize("ref", ["insects", "insects@production"])
def test_delete_requires_a_number(registry: Registry, work: Path, ref: str) -> None:
    publish(registry, work)
    registry.promote("insects@1", "production")

    with pytest.raises(InvalidNameError, match="NAME@VERSION"):
        registry.delete(ref)


def test_gc_removes_unused_blobs_and_reports_a_dry_run(registry: Registry, work: Path) -> None:
    publish(registry, work, seed=1)
    publish(registry, work, seed=2)
    registry.delete("insects@1")
    before = snapshot(registry.root)

    planned = registry.gc(dry_run=True)

    assert snapshot(registry.root) == before
    assert planned.blobs == registry.gc().blobs
    assert registry.gc().blobs == ()
    assert registry.verify().problems == ()


def test_gc_of_a_missing_registry_creates_nothing(registry: Registry) -> None:
    assert registry.gc().blobs == ()
    assert not registry.root.exists()


def test_gc_during_a_publication_keeps_its_blobs(registry: Registry, work: Path) -> None:
    publish(registry, work, seed=1)
    registry.delete("insects@1")

    version = registry.publish("insects", {"head": weights(work / "head", 1)}, facts(), verify=lambda view: registry.gc())

    assert registry.load(version.ref).paths["head"].exists()
    assert num_blobs(registry) == 2


def test_prune_keeps_best_last_and_protected_versions(registry: Registry, work: Path) -> None:
    for seed, accuracy in enumerate([0.5, 0.9, 0.6, 0.7, 0.8]):
        publish(registry, work, seed=seed, metrics=Metrics(accuracy=accuracy, interval=(0.4, 1), num_images=9))
    registry.promote("insects@1", "staging")

    planned = registry.prune("insects", keep_best=1, keep_last=1, dry_run=True)
    done = registry.prune("insects", keep_best=1, keep_last=1)

    assert planned.deleted == done.deleted == ("insects@3", "insects@4")
    assert [each.version for each in registry.versions("insects")] == [5, 2, 1]
    assert done.kept["insects@2"] == "among the best 1"
