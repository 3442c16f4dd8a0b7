from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from automl_tl_registry import Registry
from automl_tl_registry.errors import (
    AliasMovedError,
    ConflictError,
    DamagedBlobError,
    GateFailedError,
    InvalidNameError,
    NotFoundError,
    UsageError,
)
from tests.registry.registry_fakes import MAY_DAY, FakeClock, publish


@pytest.fixture
def three(registry: Registry, work: Path) -> Registry:
    """A registry with insects@1, @2 and @3."""
    for seed in range(3):
        publish(registry, work, seed=seed)
    return registry


def test_promote_moves_the_alias(three: Registry) -> None:
    three.promote("insects@1", "production")

    change = three.promote("insects@2", "production")

    assert (change.previous, change.version) == (1, 2)
    assert three.resolve("insects@production").ref == "insects@2"
    assert three.resolve("insects@2").aliases == ("production",)


def test_promote_of_the_live_version_changes_nothing(three: Registry) -> None:
    three.promote("insects@1", "production")
    events = three.events()

    change = three.promote("insects@production", "production")

    assert not change.changed
    assert three.events() == events


def test_promote_names_the_expected_and_the_current_version(three: Registry) -> None:
    three.promote("insects@1", "production", expect=None)

    with pytest.raises(AliasMovedError, match=r"expected to be insects@3, but it is insects@1") as caught:
        three.promote("insects@2", "production", expect=3)

    assert (caught.value.expected, caught.value.found, caught.value.exit_code) == (3, 1, 7)
    assert three.resolve("insects@production").version == 1


def test_rollback_goes_back_one_change_at_a_time(three: Registry) -> None:
    for version in (1, 2, 3):
        three.promote(f"insects@{version}", "production")

    first, second = three.rollback("insects", "production"), three.rollback("insects", "production")

    assert (first.version, second.version) == (2, 1)
    with pytest.raises(ConflictError):
        three.rollback("insects", "production")


def test_rollback_undoes_a_demotion(three: Registry) -> None:
    three.promote("insects@1", "production")
    three.demote("insects", "production")

    three.rollback("insects", "production")

    assert three.resolve("insects@production").version == 1


def test_rollback_of_an_unknown_alias_lists_the_known_ones(three: Registry) -> None:
    three.promote("insects@1", "production")

    with pytest.raises(NotFoundError, match="Did you mean 'production'"):
        three.rollback("insects", "prodction")


def test_rollback_rejects_a_damaged_version(three: Registry) -> None:
    three.promote("insects@1", "production")
    three.promote("insects@2", "production")
    head = three.path("insects@1", "head")
    head.chmod(0o644)
    head.write_bytes(b"rubbish")

    with pytest.raises(DamagedBlobError):
        three.rollback("insects", "production")
    assert three.resolve("insects@production").version == 2


def test_promote_rejects_a_damaged_version_even_with_force(three: Registry) -> None:
    head = three.path("insects@1", "head")
    head.chmod(0o644)
    head.write_bytes(b"rubbish")

    with pytest.raises(GateFailedError, match="integrity"):
        three.promote("insects@1", "staging")
    with pytest.raises(DamagedBlobError):
        three.promote("insects@1", "staging", force=True, reason="I must")


def test_promote_with_force_requires_a_reason(three: Registry) -> None:
    with pytest.raises(UsageError):
        three.promote("insects@1", "production", force=True, reason="  ")


def test_history_shows_what_was_live_on_a_day(three: Registry, clock: FakeClock) -> None:
    three.promote("insects@1", "production", actor="ada", reason="the first")
    clock.forward(days=2)
    three.promote("insects@2", "production", actor="bob", reason="better on wasps")
    clock.forward(days=2)
    three.promote("insects@3", "production", actor="cyd")

    (live,) = three.history("insects", alias="production", at=date(2026, 5, 4))

    assert (live.ref, live.actor, live.reason) == ("insects@2", "bob", "better on wasps")
    assert (live.until, three.history(at=date(2026, 4, 1))) == (clock.now, [])


def test_history_of_a_day_with_a_change_lists_both_versions(three: Registry, clock: FakeClock) -> None:
    three.promote("insects@1", "production")
    clock.forward(hours=2)
    three.promote("insects@2", "production")

    assert [each.version for each in three.history(at=MAY_DAY.astimezone().date())] == [1, 2]
    assert [each.version for each in three.history(at=MAY_DAY)] == [1]


def test_promote_notes_a_likely_typo_in_the_alias(three: Registry) -> None:
    change = three.promote("insects@1", "prodution")

    assert "'production'" in change.notes[0]
    assert three.promote("insects@1", "canary").notes == ()


@pytest.mark.parametrize("alias", ["latest", "3", "a/b", "", "A", "x\n", "../x"])
def test_promote_rejects_malformed_aliases(three: Registry, alias: str) -> None:
    with pytest.raises(InvalidNameError):
        three.promote("insects@1", alias)


def test_promote_of_a_missing_version_raises(three: Registry) -> None:
    with pytest.raises(NotFoundError):
        three.promote("insects@4", "production")


def test_promote_rejects_control_characters_in_the_reason(three: Registry) -> None:
    with pytest.raises(InvalidNameError, match="reason"):
        three.promote("insects@1", "production", reason="\x1b[2J gone")


def test_rollback_to_unset_survives_a_rebuild(three: Registry) -> None:
    three.promote("insects@1", "production")
    three.demote("insects", "production")
    three.promote("insects@2", "production")

    three.rollback("insects", "production")

    assert three.verify().problems == ()
    three.rebuild()
    assert three.resolve("insects@2").aliases == ()
