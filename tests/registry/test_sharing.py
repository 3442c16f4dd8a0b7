"""Push, pull and sync through a folder: what is visible when, how histories merge, and what damage is named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from automl_tl_registry import Event, Registry, RegistryError
from automl_tl_registry.contents import decode_manifest, encode_metadata
from automl_tl_registry.errors import (
    AliasMovedError,
    ConflictError,
    DamagedManifestError,
    DamagedObjectError,
    GateFailedError,
    NoExclusiveCreateError,
    NotFoundError,
    RemoteError,
    UsageError,
)
from automl_tl_registry.journal import hash_of
from automl_tl_registry.remote_store import FolderStore, open_store
from automl_tl_registry.signing import read_signature, write_signature
from automl_tl_registry.storage import Disk
from automl_tl_registry.store import Store, utc_now
from tests.registry.registry_fakes import FakeClock, publish, publish_said
from tests.registry.sharing_workers import WatchedStore, sharing

EVERY = 1 if os.environ.get("REGISTRY_FULL") else 5  # after how many of the steps the next push is tried
WORKER = (sys.executable, "-m", "tests.registry.sharing_workers")


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A folder for a shared registry."""
    return (tmp_path / "shared").as_uri()


@pytest.fixture
def other(tmp_path: Path, clock: FakeClock) -> Registry:
    """The registry of a colleague."""
    return Registry(tmp_path / "other", clock=clock)


def ten_versions(registry: Registry, work: Path, clock: FakeClock) -> None:
    for number in range(1, 11):
        publish(registry, work, seed=number)
        clock.forward(minutes=1)
        registry.tag(f"insects@{number}", add=[f"run-{number}"])
        if number % 3 == 0:
            registry.promote(f"insects@{number}", "production", reason=f"round {number}", actor="ada")
            clock.forward(hours=1)
    registry.rollback("insects", "production", reason="worse on wasps")


def assert_equal(one: Registry, two: Registry) -> None:
    for sort in ("created", "name", "accuracy"):
        assert one.versions(sort=sort) == two.versions(sort=sort)
    assert one.history() == two.history()
    assert one.verify().problems == two.verify().problems == ()


def test_pull_into_fresh_directory_equals_the_origin(
    registry: Registry, other: Registry, work: Path, clock: FakeClock, url: str
) -> None:
    publish(other, work, "bees")  # an event before and one after, so that the logs differ
    ten_versions(registry, work, clock)
    registry.push("insects", url)

    pulled = other.pull("insects", url)

    assert len(pulled.versions) == 10
    other.delete("bees@1")
    assert_equal(registry, other)
    assert other.shared(url).versions() == registry.versions()
    assert other.shared(url).history() == registry.history()
    assert other.shared(url).resolve("insects@production") == registry.resolve("insects@production")


def test_pull_survives_rebuild(registry: Registry, other: Registry, work: Path, clock: FakeClock, url: str) -> None:
    ten_versions(registry, work, clock)
    registry.push("insects", url)
    other.pull("insects", url)
    (other.root / "registry.sqlite").unlink()

    other.rebuild()

    assert_equal(registry, other)


def test_second_push_and_pull_move_nothing(registry: Registry, other: Registry, work: Path, tmp_path: Path) -> None:
    publish(registry, work)
    steps: list[str] = []
    folder = FolderStore(tmp_path / "shared")
    sharing(registry.root, folder).push("insects")
    sharing(other.root, folder).pull("insects", actor="bob")

    pushed = sharing(registry.root, WatchedStore(folder, steps.append)).push("insects")
    pulled = sharing(other.root, WatchedStore(folder, steps.append)).pull("insects", actor="bob")

    assert (pushed.num_files, pushed.num_events, pulled.num_files, pulled.num_events) == (0, 0, 0, 0)
    assert not [step for step in steps if "blobs" in step or "upload" in step or "create" in step]


def test_push_of_one_version_leaves_aliases_and_a_later_push_completes(
    registry: Registry, other: Registry, work: Path, clock: FakeClock, url: str
) -> None:
    ten_versions(registry, work, clock)

    first = registry.push("insects@production", url)
    visible = [(version.ref, version.tags, version.aliases) for version in registry.shared(url).versions()]
    rest = registry.push("insects", url)
    other.pull("insects@2", url)
    other.pull("insects", url)

    assert first.versions == ("insects@6",)
    assert visible == [("insects@6", ("run-6",), ())]
    assert (len(rest.versions), rest.num_present) == (9, 1)
    assert_equal(registry, other)


# ------------------------------------------------------------------------------------------------------- crashes and damage


def test_push_killed_at_any_step_shows_nothing_partial_and_is_completed_by_the_next(tmp_path: Path, work: Path) -> None:
    registry = Registry(tmp_path / "base", clock=FakeClock())
    for seed in range(2):
        publish(registry, work, seed=seed)
    registry.promote("insects@1", "production")
    registry.tag("insects@2", add=["new"])
    out = tmp_path / "out"
    out.mkdir()

    labels = subprocess.run(
        [*WORKER, "crash", registry.root, out], capture_output=True, text=True, check=True
    ).stdout.splitlines()

    assert len(labels) > 30
    assert {label.split()[1] for label in labels} == {"create", "list", "stored", "upload"}
    for step, label in enumerate(labels):
        remote = open_store(str(out / f"{step:04}" / "shared"))
        reader = Registry(out / f"{step:04}" / "reader")
        shared = sharing(reader.root, remote)
        visible = shared.versions()
        if visible:
            shared.pull("insects", actor="bob")
        assert reader.versions() == visible, label
        assert reader.verify().problems == (), label
        if step % EVERY == 0:
            sharing(registry.root, remote).push("insects")
            assert sharing(reader.root, remote).versions() == registry.versions(), label


def test_pull_names_each_damaged_object_and_keeps_nothing_of_it(tmp_path: Path, work: Path, clock: FakeClock) -> None:
    registry = Registry(tmp_path / "registry", clock=clock)
    ten_versions(registry, work, clock)
    registry.push("insects", str(tmp_path / "shared"))
    objects = sorted(path for path in (tmp_path / "shared").rglob("*") if path.is_file() and path.stat().st_size)
    last = max(path for path in objects if path.suffix == ".json")
    random, kinds = Random(0), set()
    for case in range(100):
        path = random.choice(objects)
        content = path.read_bytes()
        kind = random.choice(["bit", "cut", "longer", "swapped"] + ["missing"] * (path != last))
        damage(path, kind, random, random.choice([one for one in objects if one != path and one.suffix == path.suffix]))
        if path.exists() and path.read_bytes() == content:
            continue  # a swap of equal entries
        kinds.add((kind, path.suffix))
        reader = Registry(tmp_path / f"reader-{case}", clock=clock)

        with pytest.raises(DamagedObjectError) as raised:
            reader.pull("insects", str(tmp_path / "shared"))

        assert raised.value.url == path.as_uri()
        assert path.as_uri() in str(raised.value)
        assert reader.versions() == []
        assert reader.events() == []
        assert not [file for file in reader.root.rglob("*") if file.is_file() and "blobs" in file.parts]
        path.write_bytes(content)
        shutil.rmtree(reader.root, ignore_errors=True)
    assert len(kinds) == 10


def damage(path: Path, kind: str, random: Random, another: Path) -> None:
    content = bytearray(path.read_bytes())
    place = random.randrange(len(content) - 1)
    if kind == "missing":
        path.unlink()
        return
    if kind == "bit":
        content[place] ^= 1 << random.randrange(8)
    cut, longer = bytes(content[:place]), bytes(content) + b"x"
    damaged = {"bit": bytes(content), "cut": cut, "longer": longer, "swapped": another.read_bytes()}
    path.write_bytes(damaged[kind])


def test_push_repair_replaces_damaged_objects(
    registry: Registry, other: Registry, work: Path, tmp_path: Path, url: str
) -> None:
    publish(registry, work)
    registry.push("insects", url)
    for path in (tmp_path / "shared" / "blobs").rglob("*"):
        if path.is_file():
            path.write_bytes(b"x" * path.stat().st_size)

    registry.push("insects", url, repair=True)

    other.pull("insects", url)
    assert_equal(registry, other)


def test_pull_repairs_damaged_local_files(registry: Registry, other: Registry, work: Path, url: str) -> None:
    publish(registry, work)
    registry.push("insects", url)
    other.pull("insects", url)
    head = other.path("insects", "head")
    head.unlink()

    pulled = other.pull("insects", url)

    assert pulled.num_files == 1
    assert other.verify().problems == ()


# ------------------------------------------------------------------------------------------------------------------- merging


def test_sync_merges_what_both_sides_added(registry: Registry, other: Registry, work: Path, clock: FakeClock, url: str) -> None:
    publish(registry, work, seed=1)
    registry.sync("insects", url)
    other.sync("insects", url)
    other.promote("insects@1", "staging", actor="bob")
    clock.forward(minutes=1)
    registry.tag("insects@1", add=["reviewed"])
    publish(registry, work, seed=2)

    registry.sync("insects", url)
    other.sync("insects", url)
    registry.sync("insects", url)

    assert [version.ref for version in registry.versions()] == ["insects@2", "insects@1"]
    assert registry.resolve("insects@staging").tags == ("reviewed",)
    assert_equal(registry, other)


def test_alias_moved_on_both_sides_follows_the_shared_registry(
    registry: Registry, other: Registry, work: Path, clock: FakeClock, url: str
) -> None:
    for seed in range(3):
        publish(registry, work, seed=seed)
    registry.promote("insects@1", "staging", actor="ada")
    registry.sync("insects", url)
    other.sync("insects", url)
    other.promote("insects@2", "staging", actor="bob")
    other.push("insects", url)
    registry.promote("insects@3", "staging", actor="ada")

    with pytest.raises(AliasMovedError, match="by bob"):
        registry.push("insects", url)
    pulled, _ = registry.sync("insects", url)
    other.pull("insects", url)

    assert pulled.notes == (f"insects@staging: insects@3 -> insects@2, as moved in {url} by bob.",)
    assert registry.resolve("insects@staging").version == other.resolve("insects@staging").version == 2
    assert [event.verb for event in other.events("insects", last=2)] == ["promoted", "superseded"]
    assert [tenure.version for tenure in other.history()] == [1, 2]
    assert registry.rollback("insects", "staging").version == 3  # here it was moved to 3 before
    assert registry.verify().problems == other.verify().problems == ()


def test_rollback_undone_elsewhere_still_rolls_back_here(
    registry: Registry, other: Registry, work: Path, clock: FakeClock, url: str
) -> None:
    for seed in range(3):
        publish(registry, work, seed=seed)
    registry.promote("insects@1", "staging")
    registry.sync("insects", url)
    other.sync("insects", url)
    other.promote("insects@2", "staging")
    other.rollback("insects", "staging")
    other.push("insects", url)
    registry.promote("insects@3", "staging")
    registry.pull("insects", url)

    change = registry.rollback("insects", "staging")

    assert change.previous == 1
    assert registry.verify().problems == ()


def test_version_number_of_two_versions_is_a_conflict_with_a_way_out(
    registry: Registry, other: Registry, work: Path, tmp_path: Path, url: str
) -> None:
    publish(registry, work, seed=1)
    publish(other, work, seed=2)
    registry.push("insects", url)

    for transfer in (other.push, other.pull, other.sync):
        with pytest.raises(ConflictError, match="pushed by ada, are different versions"):
            transfer("insects", url)
    exported = other.export("insects@1", tmp_path / "mine.tar")
    other.delete("insects@1")
    other.pull("insects", url)
    assert other.import_(exported).ref == "insects@2"
    other.push("insects", url)
    registry.pull("insects", url)

    assert [version.blobs["head"] for version in registry.versions()] == [version.blobs["head"] for version in other.versions()]
    assert registry.verify().problems == other.verify().problems == ()


def test_version_deleted_here_stays_shared_and_can_come_back(registry: Registry, work: Path, url: str) -> None:
    for seed in range(3):
        publish(registry, work, seed=seed)
    registry.push("insects", url)
    registry.delete("insects@2")

    _, pushed = registry.sync("insects", url)
    assert [version.version for version in registry.versions()] == [3, 1]
    assert [version.version for version in registry.shared(url).versions()] == [3, 2, 1]
    assert pushed.num_events == 1
    registry.pull("insects@2", url)

    assert [version.version for version in registry.versions(sort="name")] == [3, 2, 1]
    assert registry.verify().problems == ()


def test_pull_follows_an_alias_to_a_version_deleted_here(registry: Registry, other: Registry, work: Path, url: str) -> None:
    for seed in range(2):
        publish(registry, work, seed=seed)
    registry.push("insects", url)
    other.pull("insects", url)
    registry.delete("insects@1")
    other.promote("insects@1", "staging")
    other.push("insects", url)

    registry.pull("insects", url)

    assert registry.resolve("insects@staging").version == 1
    assert registry.verify().problems == ()


def test_versions_deleted_before_the_first_push_stay_on_record(
    registry: Registry, other: Registry, work: Path, url: str
) -> None:
    for seed in range(2):
        publish(registry, work, seed=seed)
    registry.delete("insects@1")

    registry.push("insects", url)
    other.pull("insects", url)

    assert [event.verb for event in other.events("insects")] == ["superseded", "published", "superseded"]
    assert other.versions() == registry.versions()
    assert other.verify().problems == ()


def test_signature_travels_with_its_version(
    registry: Registry, other: Registry, work: Path, clock: FakeClock, url: str
) -> None:
    version = publish(registry, work)
    write_signature(Store(registry.root, Disk(), utc_now), version.manifest_digest, b"{}")
    registry.push("insects", url)

    other.pull("insects", url)

    assert read_signature(Store(other.root, Disk(), utc_now), other.resolve("insects")) == b"{}"


# ------------------------------------------------------------------------------------------------------------------ promoting


def test_remote_promotion_judges_by_the_files_it_pulls(registry: Registry, other: Registry, work: Path, url: str) -> None:
    truth = [0, 1, 2] * 20
    publish_said(registry, work, truth, truth)
    publish_said(registry, work, [0] * 60, truth)
    registry.promote("insects@1", "production")
    registry.push("insects", url)

    with pytest.raises(GateFailedError) as raised:
        other.shared(url).promote("insects@2", "production")
    change = other.shared(url).promote("insects@2", "production", force=True, reason="a test", actor="bob")

    assert "60 shared test images" in str(raised.value)
    assert (change.previous, change.version, change.forced) == (1, 2, True)
    tenure = other.shared(url).history()[-1]
    assert (tenure.ref, tenure.actor, tenure.reason, tenure.forced) == ("insects@2", "bob", "a test", True)
    assert other.resolve("insects@2").aliases == ()  # the local alias follows with the next pull


def test_remote_promotion_uses_the_gates_of_the_shared_registry(
    registry: Registry, work: Path, tmp_path: Path, url: str
) -> None:
    publish(registry, work)
    registry.push("insects", url)
    (tmp_path / "shared" / "gates.toml").write_text("[default]\nmin_accuracy = 0.99\n")

    with pytest.raises(GateFailedError, match=r"the minimum is 99\.0%"):
        registry.shared(url).promote("insects@1", "production")


def test_remote_promotion_checks_the_expected_version_and_names_who_moved_it(registry: Registry, work: Path, url: str) -> None:
    for seed in range(2):
        publish(registry, work, seed=seed)
    registry.promote("insects@1", "staging", actor="ada")
    registry.push("insects", url)

    with pytest.raises(AliasMovedError, match="by ada"):
        registry.shared(url).promote("insects@2", "staging", expect=2)


def test_remote_rollback_and_demote(registry: Registry, work: Path, url: str) -> None:
    for seed in range(2):
        publish(registry, work, seed=seed)
    registry.push("insects", url)
    shared = registry.shared(url)
    shared.promote("insects@1", "staging")
    shared.promote("insects@2", "staging")

    assert shared.rollback("insects", "staging").version == 1
    assert shared.demote("insects", "staging").previous == 1
    registry.pull("insects", url)
    assert [tenure.version for tenure in registry.history()] == [1, 2, 1]
    assert registry.resolve("insects@1").aliases == ()


def test_store_without_exclusive_creation_takes_versions_and_refuses_aliases(
    registry: Registry, other: Registry, work: Path
) -> None:
    publish(registry, work)
    registry.promote("insects@1", "production")

    pushed = registry.push("insects", "memory://shared")
    pulled = other.pull("insects", "memory://shared")

    assert pushed.versions == pulled.versions == ("insects@1",)
    assert "not moved" in pushed.notes[0]
    with pytest.raises(NoExclusiveCreateError):
        registry.shared("memory://shared").promote("insects@1", "production")
    assert other.verify().problems == ()


# ------------------------------------------------------------------------------------------------------- upkeep of the store


def blobs_of(url: str) -> list[Path]:
    return sorted(path for path in FolderStore(Path(url.removeprefix("file://"))).folder.glob("blobs/sha256/*/*"))


def aged(url: str, clock: FakeClock, *, days: int) -> None:
    """Let all files in the store be ``days`` old by the clock."""
    moment = clock().timestamp() - days * 86_400
    for path in blobs_of(url):
        os.utime(path, (moment, moment))


def test_remote_verify_names_each_damaged_object(registry: Registry, work: Path, tmp_path: Path, url: str) -> None:
    for seed in range(2):
        version = publish(registry, work, seed=seed)
    publish(registry, work, "bees")
    registry.push("insects", url)
    registry.push("bees", url)
    shared = registry.shared(url)
    sound = shared.verify()
    folder = tmp_path / "shared" / "blobs" / "sha256"
    (folder / version.manifest_digest[:2] / version.manifest_digest).unlink()
    head = registry.resolve("insects@1").blobs["head"].digest
    (folder / head[:2] / head).write_bytes(b"x")
    (tmp_path / "shared" / "models" / "bees" / "log" / "00000001.json").write_text("{}")

    damaged = registry.shared(url).verify()

    assert (sound.num_versions, sound.num_events, sound.problems) == (3, 3, ())
    assert sound.num_bytes == registry.verify().num_bytes
    assert [(problem.kind, problem.subject.split()[0]) for problem in damaged.problems] == [
        ("log", "bees"),
        ("manifest", "insects@2"),
        ("blob", "insects@1"),
    ]
    assert head in damaged.problems[2].text
    assert [problem.kind for problem in shared.verify("insects@1").problems] == ["blob"]
    with pytest.raises(NotFoundError, match="There is no insects@7"):
        shared.verify("insects@7")


def test_remote_deletion_frees_storage_after_a_week_and_leaves_copies(
    registry: Registry, other: Registry, work: Path, clock: FakeClock, url: str
) -> None:
    for seed in range(2):
        publish(registry, work, seed=seed)
    registry.push("insects", url)
    other.pull("insects", url)
    shared = registry.shared(url)
    shared.delete("insects@1", actor="ada", reason="wrong labels")
    aged(url, clock, days=30)

    early = shared.gc()
    clock.forward(days=8)
    planned, removed = shared.gc(dry_run=True), shared.gc()
    pulled = other.pull("insects", url)
    pushed = other.push("insects", url)
    fresh = Registry(work / "fresh", clock=clock)
    fresh.pull("insects", url)

    assert early.blobs == ()
    assert {blob.digest for blob in removed.blobs} == {
        registry.resolve("insects@1").blobs["head"].digest,
        registry.resolve("insects@1").manifest_digest,
    }
    assert planned.blobs == removed.blobs
    assert pulled.notes == (f"insects@1: deleted in {url} by ada. It stays here; `tl registry delete insects@1` deletes it.",)
    assert (pushed.num_files, pushed.versions) == (0, ())
    assert "insects@1: deleted in" in pushed.notes[0]
    assert [version.version for version in other.versions()] == [2, 1]
    assert [version.version for version in fresh.versions()] == [2]
    for each in (registry, other, fresh):
        assert each.verify().problems == ()
    assert shared.verify().problems == ()


def test_deleted_version_comes_back_by_a_push_that_names_it(
    registry: Registry, other: Registry, work: Path, clock: FakeClock, url: str
) -> None:
    for seed in range(2):
        publish(registry, work, seed=seed)
    registry.push("insects", url)
    shared = registry.shared(url)
    shared.delete("insects@1")
    registry.promote("insects@1", "staging")

    with pytest.raises(ConflictError, match=r"deleted in .* `tl registry push insects@1 .* brings it back"):
        registry.push("insects", url)
    assert registry.push("insects@1", url).versions == ("insects@1",)
    registry.push("insects", url)
    other.pull("insects", url)

    assert_equal(registry, other)
    assert registry.shared(url).versions() == registry.versions()


def test_remote_deletion_refuses_a_live_version(registry: Registry, work: Path, url: str) -> None:
    publish(registry, work)
    registry.promote("insects@1", "production")
    registry.push("insects", url)

    with pytest.raises(ConflictError, match="it is production"):
        registry.shared(url).delete("insects@1")


def test_gc_leaves_a_push_in_progress_and_push_renews_old_leftovers(
    registry: Registry, work: Path, clock: FakeClock, url: str
) -> None:
    version = publish(registry, work)
    registry.push("insects", url)
    log = next(FolderStore(Path(url.removeprefix("file://"))).folder.glob("models/insects/log/*"))
    log.unlink()  # as if the push was killed before its last step
    shared = registry.shared(url)
    aged(url, clock, days=5)

    assert shared.gc().blobs == ()
    assert registry.push("insects", url).num_files == len(version.blobs) + 1
    assert all(path.stat().st_mtime > clock().timestamp() - 86_400 for path in blobs_of(url))


def test_gc_removes_nothing_while_a_log_is_damaged(registry: Registry, work: Path, clock: FakeClock, url: str) -> None:
    publish(registry, work)
    registry.push("insects", url)
    next(FolderStore(Path(url.removeprefix("file://"))).folder.glob("models/insects/log/*")).write_text("{}")
    aged(url, clock, days=30)
    before = blobs_of(url)

    with pytest.raises(DamagedObjectError):
        registry.shared(url).gc()
    with pytest.raises(NoExclusiveCreateError):
        registry.shared("memory://elsewhere").gc()

    assert blobs_of(url) == before


@pytest.mark.parametrize(
    ("url", "error", "text"),
    [
        ("s3:///models", UsageError, "names no bucket"),
        ("file://models", UsageError, "three slashes"),
        ("nonsense://models", UsageError, "Protocol not known"),
        ("absent", NotFoundError, "There is no model named 'insects'"),
    ],
)
def test_pull_from_unusable_url_is_explained(registry: Registry, url: str, error: type[RegistryError], text: str) -> None:
    with pytest.raises(error, match=text):
        registry.pull("insects", url)
    assert not registry.root.exists()


def test_lost_log_is_written_again_by_a_push(registry: Registry, other: Registry, work: Path, tmp_path: Path, url: str) -> None:
    for seed in range(2):
        publish(registry, work, seed=seed)
    registry.push("insects", url)
    registry.shared(url).promote("insects@1", "staging")
    registry.pull("insects", url)
    other.pull("insects", url)
    log = tmp_path / "shared" / "models" / "insects" / "log"
    (log / "00000001.json").unlink()

    with pytest.raises(DamagedObjectError, match="from a registry with the whole history writes the log again"):
        registry.push("insects", url)
    shutil.rmtree(log)

    assert registry.push("insects", url).num_files == 0
    assert other.pull("insects", url).num_events == 0
    assert other.shared(url).versions() == registry.versions()
    assert other.shared(url).history() == registry.history()


def test_manifest_of_a_newer_version_asks_for_an_upgrade() -> None:
    content = encode_metadata({"manifest": json.dumps({"format": "automl_tl.manifest/2"})})

    with pytest.raises(DamagedManifestError, match=r"'automl_tl\.manifest/2', .* reads automl_tl\.manifest/1\. Upgrade"):
        decode_manifest(content, "s3://team/models")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes in folders")
def test_pipe_in_a_shared_folder_does_not_block(
    registry: Registry, other: Registry, work: Path, tmp_path: Path, url: str
) -> None:
    version = publish(registry, work)
    registry.push("insects", url)
    path = tmp_path / "shared" / "blobs" / "sha256" / version.manifest_digest[:2] / version.manifest_digest
    path.unlink()
    os.mkfifo(path)

    with pytest.raises(DamagedObjectError, match="is missing"):
        other.pull("insects", url)


def test_advice_about_a_shared_registry_names_it(registry: Registry, other: Registry, work: Path, url: str) -> None:
    publish(registry, work)
    registry.push("insects", url)

    with pytest.raises(NotFoundError, match=f"`tl registry list insects --remote {url}` shows all"):
        other.shared(url).resolve("insects@7")


def test_log_of_another_model_is_refused(registry: Registry, other: Registry, work: Path, tmp_path: Path, url: str) -> None:
    publish(registry, work)
    registry.push("insects", url)
    (tmp_path / "shared" / "models" / "insects").rename(tmp_path / "shared" / "models" / "bees")

    with pytest.raises(DamagedObjectError, match="it is about 'insects', not bees"):
        other.pull("bees", url)


def test_log_entry_with_control_characters_is_refused(
    registry: Registry, other: Registry, work: Path, tmp_path: Path, url: str
) -> None:
    publish(registry, work)
    registry.push("insects", url)
    entry = tmp_path / "shared" / "models" / "insects" / "log" / "00000001.json"
    entry.write_text(json.dumps(json.loads(entry.read_text()) | {"actor": "\x1b[2Jeve"}))

    with pytest.raises(DamagedObjectError, match="control characters"):
        other.pull("insects", url)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"verb": "archived"}, "does not know its verb 'archived'; upgrade automl_tl"),
        ({"detail": {"manifest": "../../secret"}}, "the sha256 of a manifest is missing"),
        ({"verb": "deleted", "detail": {}}, "the sha256 of a manifest is missing"),
    ],
)
def test_log_entry_of_impossible_content_is_refused(  # noqa: PLR0917 - fixtures and parameters
    registry: Registry, other: Registry, work: Path, tmp_path: Path, url: str, change: dict[str, object], text: str
) -> None:
    publish(registry, work)
    registry.push("insects", url)
    path = tmp_path / "shared" / "models" / "insects" / "log" / "00000001.json"
    event = Event.model_validate_json(path.read_bytes()).model_copy(update=change)
    path.write_text(event.model_copy(update={"hash": hash_of(event)}).model_dump_json())

    with pytest.raises(DamagedObjectError, match=text):
        other.pull("insects", url)


def test_folder_that_cannot_be_written_is_named(registry: Registry, work: Path, tmp_path: Path) -> None:
    publish(registry, work)
    (tmp_path / "file").write_text("")

    for change in (Registry.push, lambda registry, _, url: registry.shared(url).gc()):
        with pytest.raises(RemoteError, match="file/shared"):
            change(registry, "insects", str(tmp_path / "file" / "shared"))


def test_password_in_url_is_not_shown() -> None:
    assert open_store("memory://ann:secret@host/models").url == "memory://ann:***@host/models"


def test_unknown_shared_model_is_answered_with_the_known_ones(registry: Registry, work: Path, url: str) -> None:
    publish(registry, work)
    registry.push("insects", url)

    with pytest.raises(NotFoundError, match=r"no model named 'insect' in file:.*Did you mean 'insects'"):
        registry.shared(url).resolve("insect")
