"""`tl registry` with two fitted versions."""

from __future__ import annotations

import shutil
from pathlib import Path

from automl_tl_registry import Registry
from tests.e2e.conftest import Tl


def test_registry_promotes_shows_and_rolls_back_a_version(tl: Tl, registry: Registry) -> None:
    promoted = tl("registry", "promote", "color-cards@2", "production", "--expect", "1", "--json").json
    conflict = tl("registry", "promote", "color-cards@2", "production", "--expect", "1")
    rolled_back = tl("registry", "rollback", "color-cards", "production", "--reason", "try", "--json").json
    history = tl("registry", "history", "color-cards", "--json").json
    early = tl("registry", "history", "--at", "2001-01-01", "--json").json

    assert {gate["gate"]: gate["verdict"] for gate in promoted["gates"]}["reference-predictions"] == "passed"
    assert {gate["gate"]: gate["verdict"] for gate in promoted["gates"]}["comparison"] == "passed"
    assert conflict.code == 7
    assert rolled_back["version"] == 1
    assert [(tenure["version"], tenure["reason"]) for tenure in history] == [(1, "the first"), (2, None), (1, "try")]
    assert early == []


def test_promote_lists_failed_gates_and_accepts_force_with_a_reason(tl: Tl, registry: Registry) -> None:
    (registry.root / "gates.toml").write_text("[default]\nmax_size_mib = 1\n")

    refused = tl("registry", "promote", "color-cards@2", "production")
    without_reason = tl("registry", "promote", "color-cards@2", "production", "--force")
    forced = tl("registry", "promote", "color-cards@2", "production", "--force", "--reason", "we know", "--json")

    assert refused.code == 8
    assert "size" in refused.err
    assert "MiB" in refused.err
    assert without_reason.code != 0
    assert forced.json["forced"] is True


def test_diff_compares_versions_per_image(tl: Tl, registry: Registry) -> None:
    difference = tl("registry", "diff", "color-cards@1", "color-cards@2", "--json").json
    printed = tl("registry", "diff", "color-cards@1", "color-cards@2")

    assert difference["comparison"]["num_images"] >= 4
    assert difference["images"] == {"added": {}, "removed": {}, "relabeled": [], "moved": []}
    assert "shared test images" in printed.out


def test_list_and_show_give_balanced_accuracy_and_missed_classes(tl: Tl, registry: Registry) -> None:
    row = tl("registry", "list", "--json").json[0]
    listed, shown = tl("registry", "list").out, tl("registry", "show", "color-cards@1").out

    assert {"balanced_accuracy", "headline", "warnings"} <= set(row)
    assert "balanced accuracy" in listed
    assert "missed classes" in listed
    assert "balanced accuracy" in shown


def test_tag_and_list_filter_versions(tl: Tl, registry: Registry) -> None:
    tagged = tl("registry", "tag", "color-cards@2", "--add", "reviewed", "--json").json
    by_tag = tl("registry", "list", "--tag", "reviewed", "--json").json
    by_alias = tl("registry", "list", "--alias", "production", "--sort", "accuracy", "--json").json
    file = tl("registry", "path", "color-cards@production", "head").out.strip()

    assert tagged["tags"] == ["reviewed"]
    assert [row["version"] for row in by_tag] == [2]
    assert [row["version"] for row in by_alias] == [1]
    assert Path(file).is_file()


def test_show_prints_facts_and_the_model_card(tl: Tl, registry: Registry) -> None:
    shown = tl("registry", "show", "color-cards@production").out
    card = tl("registry", "show", "color-cards@1", "--card").out

    assert "lite/efficientnet_lite0" in shown
    assert "production" in shown
    assert card.startswith("#") or card.startswith("---")
    assert "color-cards" in card


def test_verify_names_damage_and_predict_rejects_it(tl: Tl, registry: Registry, colors: Path) -> None:
    assert tl("registry", "verify", "--predictions").code == 0
    head = registry.path("color-cards@1", "head")
    content = bytearray(head.read_bytes())
    content[-1] ^= 1
    head.chmod(0o644)
    head.write_bytes(bytes(content))

    verified = tl("registry", "verify", "--json")
    predicted = tl("predict", "color-cards@1", colors / "red" / "000.png")

    assert verified.code == 9
    assert any(problem["kind"] == "blob" for problem in verified.json["problems"])
    assert predicted.code == 9


def test_delete_protects_the_live_version_and_gc_frees_the_rest(tl: Tl, registry: Registry) -> None:
    refused = tl("registry", "delete", "color-cards@1")
    pruned = tl("registry", "prune", "color-cards", "--keep-best", "0", "--keep-last", "0", "--dry-run", "--json").json
    deleted = tl("registry", "delete", "color-cards@2", "--json").json
    collected = tl("registry", "gc", "--json").json

    assert refused.code == 7
    assert pruned["deleted"] == ["color-cards@2"]
    assert deleted["version"] == 2
    assert collected["dry_run"] is False
    assert [version.version for version in registry.versions()] == [1]


def test_import_into_another_registry_predicts_equally(tl: Tl, registry: Registry, colors: Path, tmp_path: Path) -> None:
    archive = tmp_path / "model.tar"
    tl("registry", "export", "color-cards@1", archive)
    elsewhere = ("--registry", tmp_path / "elsewhere")

    imported = tl("registry", "import", archive, *elsewhere, "--json").json
    again = tl("registry", "import", archive, *elsewhere, "--json").json
    predicted = tl("predict", "color-cards", colors / "green" / "000.png", *elsewhere, "--json").json

    assert (imported["name"], imported["version"]) == (again["name"], again["version"]) == ("color-cards", 1)
    assert predicted["label"] == "green"


def test_rebuild_restores_a_lost_database(tl: Tl, registry: Registry) -> None:
    for file in registry.root.glob("registry.sqlite*"):
        file.unlink()

    rebuilt = tl("registry", "rebuild", "--json").json

    assert rebuilt["num_versions"] == 2
    assert tl("registry", "list", "--alias", "production", "--json").json[0]["version"] == 1


def test_second_version_on_the_same_backbone_adds_little(tl: Tl, registry: Registry) -> None:
    first, second = registry.resolve("color-cards@1"), registry.resolve("color-cards@2")
    shared = {blob.digest for blob in first.blobs.values()}

    added = sum(blob.size_bytes for blob in second.blobs.values() if blob.digest not in shared)

    assert added < 100_000


def test_list_of_an_empty_registry_is_empty(tl: Tl, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "home", ignore_errors=True)

    assert tl("registry", "list", "--json").json == []
    assert not (tmp_path / "home").exists()
