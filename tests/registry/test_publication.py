from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError
from safetensors import safe_open

import automl_tl_registry
from automl_tl_registry import Registry, VersionView
from automl_tl_registry.errors import (
    DamagedBlobError,
    DamagedDatabaseError,
    InvalidBlobError,
    InvalidNameError,
    NotFoundError,
)
from tests.registry.registry_fakes import FakeClock, facts, predictions, publish, snapshot, weights


def test_missing_registry_reads_as_empty(registry: Registry) -> None:
    found = (registry.versions(), registry.history(), registry.events())

    assert found == ([], [], [])
    assert not registry.root.exists()


def test_publish_creates_the_registry_and_version_one(registry: Registry, work: Path) -> None:
    version = publish(registry, work)

    assert version.ref == "insects@1"
    assert registry.resolve("insects") == version


def test_publish_numbers_versions_in_order(registry: Registry, work: Path) -> None:
    refs = [publish(registry, work, seed=seed).ref for seed in range(3)]

    assert refs == ["insects@1", "insects@2", "insects@3"]
    assert [each.ref for each in registry.versions("insects")] == ["insects@3", "insects@2", "insects@1"]


def test_load_returns_the_published_bytes(registry: Registry, work: Path) -> None:
    publish(registry, work)

    view = registry.load("insects@1")

    assert view.paths["head"].read_bytes() == (work / "head").read_bytes()
    assert view.paths["encoder"].read_bytes() == (work / "encoder").read_bytes()
    assert view.facts == facts()


def test_publish_shares_the_encoder(registry: Registry, work: Path) -> None:
    weights(work / "big", seed=7, size=1_000_000)
    registry.publish("insects", {"encoder": work / "big", "head": weights(work / "head", 1)}, facts())
    before = sum(size for size, _ in snapshot(registry.root).values())

    registry.publish("insects", {"encoder": work / "big", "head": weights(work / "head", 2)}, facts())

    assert sum(size for size, _ in snapshot(registry.root).values()) - before < 100_000


def test_manifest_is_in_a_safetensors_header(registry: Registry, work: Path) -> None:
    version = publish(registry, work)

    digest = version.manifest_digest
    with safe_open(registry.root / "blobs" / "sha256" / digest[:2] / digest, "np") as blob:
        manifest = json.loads(blob.metadata()["manifest"])

    assert (manifest["name"], manifest["version"]) == ("insects", 1)
    assert manifest["facts"] == facts().model_dump(mode="json")


def test_queries_change_no_file(registry: Registry, work: Path) -> None:
    publish(registry, work)
    before = snapshot(registry.root)

    registry.versions(), registry.load("insects"), registry.history(), registry.events(), registry.path("insects", "head")

    assert snapshot(registry.root) == before


def test_publish_leaves_only_blobs_database_and_log(registry: Registry, work: Path) -> None:
    publish(registry, work)

    assert {path.name for path in registry.root.iterdir()} == {
        "blobs",
        "registry.sqlite",
        "events.jsonl",
        "events.lock",
        "staging",
    }
    assert list((registry.root / "staging").iterdir()) == []


def test_publish_stops_if_verify_raises(registry: Registry, work: Path) -> None:
    def disagree(view: VersionView) -> None:
        assert view.paths["head"].read_bytes() == (work / "head").read_bytes()
        assert registry.versions() == []
        raise ArithmeticError("other predictions")

    with pytest.raises(ArithmeticError, match="other predictions"):
        registry.publish("insects", {"head": weights(work / "head")}, facts(), verify=disagree)

    assert registry.versions() == []
    assert [path for path in registry.root.rglob("*") if path.is_file() and "blobs" in path.parts] == []


def test_publish_that_fails_keeps_shared_blobs(registry: Registry, work: Path) -> None:
    publish(registry, work, seed=1)

    with pytest.raises(ZeroDivisionError):
        registry.publish("insects", {"head": weights(work / "head", 1)}, facts(), verify=lambda view: 1 / 0)

    assert registry.load("insects@1").paths["head"].exists()


def test_publish_again_repairs_a_damaged_shared_blob(registry: Registry, work: Path) -> None:
    path = registry.path(publish(registry, work).ref, "encoder")
    path.unlink()
    path.write_bytes(b"rubbish")

    publish(registry, work)

    assert registry.load("insects@1").paths["encoder"].read_bytes() == (work / "encoder").read_bytes()


def test_publish_records_the_parent_by_number(registry: Registry, work: Path) -> None:
    publish(registry, work)

    child = registry.publish("insects", {"head": work / "head"}, facts(), parent="insects")

    assert child.parent == "insects@1"


@pytest.mark.parametrize(
    "name", ["", "Insects", "../up", "a/b", "a\\b", "a\x00b", "a\nb", "-a", ".hidden", "a" * 65, "a@1", "insécts", "\x1b[31m"]
)
def test_publish_rejects_malformed_names(registry: Registry, work: Path, name: str) -> None:
    with pytest.raises(InvalidNameError, match="expected") as caught:
        registry.publish(name, {"head": weights(work / "head")}, facts())

    assert str(caught.value).isprintable()
    assert not registry.root.exists()


@pytest.mark.parametrize("role", ["", "Head", "../head", "a/b", "manifest", "a\n"])
def test_publish_rejects_malformed_roles(registry: Registry, work: Path, role: str) -> None:
    with pytest.raises(InvalidNameError, match="role"):
        registry.publish("insects", {role: weights(work / "head")}, facts())


def test_publish_names_a_missing_file(registry: Registry, work: Path) -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        registry.publish("insects", {"head": work / "nowhere"}, facts())

    assert not registry.root.exists()


def test_publish_rejects_predictions_for_other_classes(registry: Registry, work: Path) -> None:
    two_classes = predictions(work / "predictions", [0, 1], [0, 1], num_classes=2)

    with pytest.raises(InvalidBlobError, match="probability"):
        registry.publish("insects", {"predictions": two_classes}, facts())


def test_facts_reject_unknown_fields_and_nan() -> None:
    with pytest.raises(ValidationError, match="color"):
        facts(color="red")
    with pytest.raises(ValidationError, match="NaN"):
        facts(extra={"deep": [{"down": float("nan")}]})


def test_not_found_errors_list_what_exists(registry: Registry, work: Path) -> None:
    publish(registry, work)

    with pytest.raises(NotFoundError, match="Did you mean 'insects'"):
        registry.resolve("insect")
    with pytest.raises(NotFoundError, match="latest versions are: 1"):
        registry.resolve("insects@7")
    with pytest.raises(NotFoundError, match="promote"):
        registry.resolve("insects@production")
    with pytest.raises(NotFoundError, match="Did you mean 'head'"):
        registry.path("insects", "heat")


@pytest.mark.parametrize(
    "ref", ["insects@", "insects@0", "insects@-1", "insects@1@2", "insects@../x", "@1", "insects@99999999999"]
)
def test_resolve_rejects_malformed_references(registry: Registry, ref: str) -> None:
    with pytest.raises(InvalidNameError):
        registry.resolve(ref)


def test_load_rejects_flipped_truncated_and_missing_files(registry: Registry, work: Path) -> None:
    path = registry.path(publish(registry, work).ref, "head")
    content = path.read_bytes()
    path.chmod(0o644)

    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DamagedBlobError, match=path.name):
        registry.load("insects@1")
    path.write_bytes(content[:-1])
    with pytest.raises(DamagedBlobError, match=path.name):
        registry.path("insects@1", "head")
    path.unlink()
    with pytest.raises(DamagedBlobError, match=path.name):
        registry.load("insects@1")


def test_missing_database_beside_blobs_raises(registry: Registry, work: Path) -> None:
    publish(registry, work)
    (registry.root / "registry.sqlite").unlink()

    with pytest.raises(DamagedDatabaseError, match="rebuild"):
        registry.versions()
    with pytest.raises(DamagedDatabaseError, match="rebuild"):
        publish(registry, work)


def test_versions_can_be_filtered_sorted_and_limited(registry: Registry, work: Path) -> None:
    for seed, latency in enumerate([30.0, 10.0, 20.0]):
        publish(registry, work, seed=seed, latency_ms=latency)
    publish(registry, work, "birds", latency_ms=5.0)
    registry.promote("insects@2", "staging", actor="ada")

    assert [each.ref for each in registry.versions(last=2)] == ["birds@1", "insects@3"]
    assert [each.ref for each in registry.versions("insects", sort="latency")] == ["insects@2", "insects@3", "insects@1"]
    assert [each.ref for each in registry.versions(alias="staging")] == ["insects@2"]


def test_import_loads_neither_numpy_nor_torch_nor_the_core() -> None:
    forbidden = ("numpy", "torch", "automl_tl", "tarfile", "automl_tl_registry.gates")
    code = f"import sys; from automl_tl_registry import Registry; print([name for name in {forbidden} if name in sys.modules])"

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert printed.strip() == "[]"


def test_public_names_exist_and_are_sorted() -> None:
    assert list(automl_tl_registry.__all__) == sorted(automl_tl_registry.__all__) == dir(automl_tl_registry)
    assert all(
        getattr(automl_tl_registry, name).__module__.startswith("automl_tl_registry") for name in automl_tl_registry.__all__
    )
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        automl_tl_registry.nothing_of_the_kind  # noqa: B018 - looking it up is the test


def test_log_stays_ordered_when_the_clock_goes_back(registry: Registry, work: Path, clock: FakeClock) -> None:
    publish(registry, work, seed=1)
    clock.forward(days=-1)
    publish(registry, work, seed=2)

    first, second = registry.events()

    assert second.at == first.at
    assert second.detail["clock"] == "2026-04-30T12:00:00.000000+00:00"
