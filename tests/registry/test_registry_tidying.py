from __future__ import annotations

from pathlib import Path

import pytest

from automl_tl_registry import Metrics, Registry, write_tensors
from automl_tl_registry.errors import InvalidNameError, ProtectedVersionError, VersionNotFoundError
from tests.registry.registry_fakes import FakeClock, facts, image_digests, publish, publish_said, snapshot, weights


def num_blobs(registry: Registry) -> int:
    return len([path for path in (registry.root / "blobs").rglob("*") if path.is_file()])


def test_delete_takes_the_version_and_gc_its_blobs(registry: Registry, work: Path) -> None:
    publish(registry, work, seed=1)
    publish(registry, work, seed=2)

    registry.delete("insects@1", reason="a try")
    before, found = num_blobs(registry), registry.gc()

    assert [each.ref for each in registry.versions()] == ["insects@2"]
    assert (before, len(found.blobs), num_blobs(registry)) == (5, 2, 3)
    assert registry.load("insects@2").paths.keys() == {"encoder", "head"}


def test_a_number_is_never_used_again(registry: Registry, work: Path) -> None:
    publish(registry, work)
    registry.delete("insects@1")

    assert publish(registry, work).ref == "insects@2"
    with pytest.raises(VersionNotFoundError, match="was deleted"):
        registry.resolve("insects@1")


def test_what_is_aliased_or_lately_was_is_not_deleted(registry: Registry, work: Path, clock: FakeClock) -> None:
    for seed in range(2):
        publish(registry, work, seed=seed)
    registry.promote("insects@1", "production")

    with pytest.raises(ProtectedVersionError, match="it is production") as caught:
        registry.delete("insects@1")
    registry.promote("insects@2", "production")
    clock.forward(days=29)
    with pytest.raises(ProtectedVersionError, match=r"it was production until 2026-05-01; .* from 2026-05-31 12:00 UTC"):
        registry.delete("insects@1")
    clock.forward(days=1)

    assert caught.value.exit_code == 7
    assert registry.delete("insects@1").ref == "insects@1"


@pytest.mark.parametrize("ref", ["insects", "insects@production"])
def test_delete_wants_a_number(registry: Registry, work: Path, ref: str) -> None:
    publish(registry, work)
    registry.promote("insects@1", "production")

    with pytest.raises(InvalidNameError, match="NAME@VERSION"):
        registry.delete(ref)


def test_gc_takes_nothing_that_is_needed_and_tells_beforehand(registry: Registry, work: Path) -> None:
    publish(registry, work, seed=1)
    publish(registry, work, seed=2)
    registry.delete("insects@1")
    before = snapshot(registry.root)

    told = registry.gc(dry_run=True)

    assert snapshot(registry.root) == before
    assert told.blobs == registry.gc().blobs
    assert registry.gc().blobs == ()
    assert registry.verify().problems == ()


def test_gc_of_a_missing_registry_makes_nothing(registry: Registry) -> None:
    assert registry.gc().blobs == ()
    assert not registry.root.exists()


def test_gc_during_a_publication_leaves_its_blobs_alone(registry: Registry, work: Path) -> None:
    publish(registry, work, seed=1)
    registry.delete("insects@1")

    version = registry.publish("insects", {"head": weights(work / "head", 1)}, facts(), verify=lambda view: registry.gc())

    assert registry.load(version.ref).paths["head"].exists()
    assert num_blobs(registry) == 2


def test_prune_keeps_the_best_the_last_and_the_protected(registry: Registry, work: Path) -> None:
    for seed, accuracy in enumerate([0.5, 0.9, 0.6, 0.7, 0.8]):
        publish(registry, work, seed=seed, metrics=Metrics(accuracy=accuracy, interval=(0.4, 1), num_images=9))
    registry.promote("insects@1", "staging")

    told = registry.prune("insects", keep_best=1, keep_last=1, dry_run=True)
    done = registry.prune("insects", keep_best=1, keep_last=1)

    assert told.deleted == done.deleted == ("insects@3", "insects@4")
    assert [each.version for each in registry.versions("insects")] == [5, 2, 1]
    assert done.kept["insects@2"] == "among the best 1"


def test_tags_are_added_removed_and_filtered_by(registry: Registry, work: Path) -> None:
    publish(registry, work)
    registry.tag("insects@1", add=["paper", "team:bio"])

    tagged = registry.tag("insects", add=["best"], remove=["paper", "never"])

    assert tagged.tags == ("best", "team:bio")
    assert [each.ref for each in registry.versions(tag="team:bio")] == ["insects@1"]
    assert registry.versions(tag="paper") == []
    assert registry.tag("insects", add=["best"]) == tagged
    assert len(registry.events()) == 3


@pytest.mark.parametrize("tag", ["", "a b", "a/b", "\x07", "x" * 129])
def test_impossible_tags_are_refused(registry: Registry, work: Path, tag: str) -> None:
    publish(registry, work)

    with pytest.raises(InvalidNameError, match="tag"):
        registry.tag("insects", add=[tag])


def test_diff_tells_settings_classes_data_and_metrics(registry: Registry, work: Path) -> None:
    publish(registry, work, plan={"epochs": 3}, data={"num_images": 10})
    worse = Metrics(accuracy=0.8, interval=(0.7, 0.9), num_images=100, calibration_error=0.02)
    publish(registry, work, plan={"epochs": 5}, data={"num_images": 12}, classes=["ant", "bee", "fly"], metrics=worse)

    found = registry.diff("insects@1", "insects@2")

    assert [(each.key, each.before, each.after) for each in found.settings] == [("plan.epochs", 3, 5)]
    assert (found.classes_added, found.classes_removed) == (("fly",), ("wasp",))
    assert [(each.key, each.before, each.after) for each in found.data] == [("num_images", 10, 12)]
    assert [each.key for each in found.metrics] == ["metrics.accuracy", "metrics.interval"]
    assert found.comparison is None


def test_diff_names_each_image_that_changed_sides(registry: Registry, work: Path) -> None:
    publish_said(registry, work, [0, 1, 2, 2], [0, 1, 2, 0])
    publish_said(registry, work, [0, 1, 1, 0], [0, 1, 2, 0])

    found = registry.diff("insects@1", "insects@2")

    assert found.comparison is not None
    assert (found.comparison.gained, found.comparison.lost, len(found.changed)) == (1, 1, 2)
    assert found.changed[0].digest == image_digests(1, first=3)[0].tobytes().hex()


def test_diff_tells_which_images_were_added_removed_relabeled_and_moved(registry: Registry, work: Path) -> None:
    import numpy as np

    for first, label, part in ((0, [0, 1, 2], [0, 1, 2]), (1, [2, 2, 0], [1, 0, 0])):
        tensors = {"image_digest": image_digests(3, first), "label": np.array(label), "part": np.array(part, np.uint8)}
        registry.publish("insects", {"images": write_tensors(work / "images", tensors)}, facts())
    digests = [row.tobytes().hex() for row in image_digests(4)]

    found = registry.diff("insects@1", "insects@2").images

    assert found is not None
    assert (found.added, found.removed) == ({"train": (digests[3],)}, {"train": (digests[0],)})
    assert (found.relabeled, found.moved) == ((digests[1],), (digests[2],))


def test_the_card_tells_facts_and_cannot_be_broken_by_them(registry: Registry, work: Path) -> None:
    publish(registry, work, notes="line | one\n<script>", classes=["a|b", "c\x1b[31m"], environment={"os": {"name": "Linux"}})

    card = registry.card("insects@1")

    assert "accuracy | 90.0% (confidence interval 85.0% to 95.0%, n = 100)" in card
    assert "| os.name | Linux |" in card
    assert "\x1b" not in card
    assert "<script>" not in card
    assert "a\\|b" in card
