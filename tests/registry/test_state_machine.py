"""Verbs in random order, compared with a model made of dictionaries."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from automl_tl_registry import Metrics, Registry
from automl_tl_registry.errors import AliasMovedError, ConflictError, NotFoundError
from tests.registry.registry_fakes import FakeClock, facts, weights

NAMES = st.sampled_from(["ants", "ants", "bees"])
ALIASES = st.sampled_from(["production", "production", "canary"])
MEMORY = Path("/dev/shm")


class RegistryMachine(RuleBasedStateMachine):
    """``versions``: seed of the head; ``places``: where an alias was, last where it is; ``left``: when it left a version."""

    @initialize()
    def begin(self) -> None:
        self.folder = TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None)
        self.clock = FakeClock()
        self.work = Path(self.folder.name)
        self.registry = Registry(self.work / "registry", clock=self.clock)
        self.versions: dict[tuple[str, int], int] = {}
        self.tags: dict[tuple[str, int], set[str]] = {}
        self.places: dict[tuple[str, str], list[int | None]] = {}
        self.left: dict[tuple[str, int], datetime] = {}
        self.numbers: dict[str, int] = {}

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            assert self.registry.verify().problems == ()
            self.folder.cleanup()

    def place(self, name: str, alias: str) -> int | None:
        return self.places.get((name, alias), [None])[-1]

    def leave(self, name: str, alias: str) -> None:
        if (number := self.place(name, alias)) is not None:
            self.left[name, number] = self.clock.now

    @rule(name=NAMES, seed=st.integers(0, 3), accuracy=st.floats(0, 1))
    def publish(self, name: str, seed: int, accuracy: float) -> None:
        measured = Metrics(accuracy=accuracy, interval=(0, 1), num_images=9)
        version = self.registry.publish(name, {"head": weights(self.work / "head", seed)}, facts(metrics=measured))

        self.numbers[name] = self.numbers.get(name, 0) + 1
        assert version.version == self.numbers[name]
        self.versions[name, version.version], self.tags[name, version.version] = seed, set()

    @precondition(lambda self: self.versions)
    @rule(data=st.data(), alias=ALIASES, expect=st.sampled_from(["right", "right", "right", "unset", 1, 2]))
    def promote(self, data: st.DataObject, alias: str, expect: int | str) -> None:
        name, number = data.draw(st.sampled_from([*sorted(self.versions), ("ants", 99)]))
        live = self.place(name, alias)
        expected = {"right": live, "unset": None}.get(str(expect), 1 if expect == 1 else 2)
        if (name, number) not in self.versions:
            with pytest.raises(NotFoundError):
                self.registry.promote(f"{name}@{number}", alias, expect=expected)
        elif expected != live:
            with pytest.raises(AliasMovedError):
                self.registry.promote(f"{name}@{number}", alias, expect=expected)
        else:
            changed = self.registry.promote(f"{name}@{number}", alias, expect=expected, force=True, reason="test").changed
            assert changed == (live != number)
            if changed:
                self.leave(name, alias)
                self.places.setdefault((name, alias), []).append(number)

    @precondition(lambda self: self.places)
    @rule(data=st.data())
    def rollback(self, data: st.DataObject) -> None:
        name, alias = data.draw(st.sampled_from(sorted(self.places)))
        places = self.places[name, alias]
        before = places[-2] if len(places) > 1 else None
        if len(places) < 2 or (before is not None and (name, before) not in self.versions):
            with pytest.raises(ConflictError):
                self.registry.rollback(name, alias)
        else:
            assert self.registry.rollback(name, alias).version == before
            self.leave(name, alias)
            places.pop()

    @precondition(lambda self: self.places)
    @rule(data=st.data())
    def demote(self, data: st.DataObject) -> None:
        name, alias = data.draw(st.sampled_from(sorted(self.places)))
        if self.place(name, alias) is None:
            with pytest.raises(NotFoundError):
                self.registry.demote(name, alias)
        else:
            self.registry.demote(name, alias)
            self.leave(name, alias)
            self.places[name, alias].append(None)

    @precondition(lambda self: self.versions)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        name, number = data.draw(st.sampled_from([*sorted(self.versions), ("ants", 99)]))
        live = any(self.place(name, alias) == number for alias in ("production", "canary"))
        lately = self.left.get((name, number), self.clock.now - timedelta(days=99)) > self.clock.now - timedelta(days=30)
        if (name, number) not in self.versions:
            with pytest.raises(NotFoundError):
                self.registry.delete(f"{name}@{number}")
        elif live or lately:
            with pytest.raises(ConflictError):
                self.registry.delete(f"{name}@{number}")
        else:
            self.registry.delete(f"{name}@{number}")
            del self.versions[name, number], self.tags[name, number]

    @precondition(lambda self: self.versions)
    @rule(data=st.data(), add=st.sets(st.sampled_from("xyz")), remove=st.sets(st.sampled_from("xyz")))
    def tag(self, data: st.DataObject, add: set[str], remove: set[str]) -> None:
        name, number = data.draw(st.sampled_from(sorted(self.versions)))
        self.registry.tag(f"{name}@{number}", add=add, remove=remove)
        self.tags[name, number] = (self.tags[name, number] | add) - remove

    @rule(days=st.sampled_from([1, 20, 31]))
    def wait(self, days: int) -> None:
        self.clock.forward(days=days)

    @rule()
    def gc(self) -> None:
        self.registry.gc()
        blobs = [path for path in (self.registry.root / "blobs").rglob("*") if path.is_file()]
        assert len(blobs) == len(self.versions) + len(set(self.versions.values()))

    @precondition(lambda self: self.numbers)
    @rule(lose=st.booleans())
    def rebuild(self, lose: bool) -> None:
        if lose:
            (self.registry.root / "registry.sqlite").unlink()
        assert self.registry.rebuild().problems == ()

    @invariant()
    def the_registry_is_what_the_model_says(self) -> None:
        if not hasattr(self, "registry"):
            return
        found = {(each.name, each.version): each for each in self.registry.versions()}
        assert found.keys() == self.versions.keys()
        for (name, number), version in found.items():
            assert set(version.aliases) == {alias for alias in ("production", "canary") if self.place(name, alias) == number}
            assert set(version.tags) == self.tags[name, number]


NUM_EXAMPLES = 200 if os.environ.get("REGISTRY_FULL") else 6
TestRegistryMachine = RegistryMachine.TestCase
TestRegistryMachine.settings = settings(
    max_examples=NUM_EXAMPLES, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
