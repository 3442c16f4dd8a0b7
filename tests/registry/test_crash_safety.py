"""State of the registry after the process is killed, or the power fails, between any two steps of a verb.

A step is what ``Disk`` does: each write, fsync, rename, mkdir, remove and commit. ``kill`` is SIGKILL; ``power-cut`` also takes
back what wasn't fsynced. SQLite's own files are SQLite's: we only stop before and after its commits.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from automl_tl_registry import Registry
from tests.registry.registry_fakes import FakeClock, publish
from tests.registry.registry_workers import VERBS

WORKERS = ("-m", "tests.registry.registry_workers")
LEAST_STEPS = {"publish": 20, "first-publish": 35, "import": 20, "promote": 4, "delete": 4, "gc": 5, "export": 10, "rebuild": 3}
EVERY = 1 if os.environ.get("REGISTRY_FULL") else 10  # after how many of the steps a further publication is tried
CASES = [(verb, kind) for verb in VERBS for kind in ("power-cut", "kill")]
if not os.environ.get("REGISTRY_FULL"):  # a kill loses less than a power cut: one verb shows it
    CASES = [case for case in CASES if case[1] == "power-cut" or case[0] == "publish"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with three versions, an alias and garbage; beside it an export of another model."""
    folder = tmp_path_factory.mktemp("crash")
    registry = Registry(folder / "base", clock=FakeClock())
    for seed in range(4):
        publish(registry, folder / "work", seed=seed)
    registry.delete("insects@4")
    registry.promote("insects@1", "production", actor="ada")
    # With the time of day the manifest's digest would be another each time, and now and then its folder there already.
    elsewhere = Registry(folder / "elsewhere", clock=FakeClock())
    publish(elsewhere, folder / "work", "birds", seed=50)
    elsewhere.export("birds@1", folder / "work" / "export.tar")
    return folder


def crashed(base: Path, out: Path, verb: str, kind: str) -> list[str]:
    """Labels of the steps at which the verb was stopped; the registries are ``out/0000``, ``out/0001`` ..."""
    start = base / ("nothing" if verb == "first-publish" else "base")
    command = [sys.executable, *WORKERS, "crash", verb, kind, str(start), str(base / "work"), str(out)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.parametrize(("verb", "kind"), CASES)
def test_crash_at_any_step_loses_nothing_and_exposes_nothing_partial(base: Path, tmp_path: Path, verb: str, kind: str) -> None:
    (tmp_path / "out").mkdir()

    labels = crashed(base, tmp_path / "out", verb, kind)

    assert len(labels) >= LEAST_STEPS[verb]
    if (verb, kind) == ("publish", "kill"):
        check_publication_is_visible_from_its_commit(tmp_path / "out", labels)
    for step, label in enumerate(labels):
        registry = Registry(tmp_path / "out" / f"{step:04}", clock=FakeClock())
        check_nothing_is_half_done(registry, verb, f"{verb}: {label}")
        if step % EVERY == 0:
            publish(registry, base / "work", "afterwards")
            assert registry.verify().problems == (), label


def check_nothing_is_half_done(registry: Registry, verb: str, where: str) -> None:
    found = registry.verify()
    assert found.sound, (where, found.problems)
    refs = {version.ref for version in registry.versions()}
    before = set() if verb == "first-publish" else {"insects@1", "insects@2", "insects@3"}
    done = {"publish": {"insects@5"}, "first-publish": {"insects@1"}, "import": {"birds@1"}}.get(verb, set())
    assert refs in (before, before | done) or (verb == "delete" and refs == before - {"insects@2"}), where
    registry.gc()
    needed = {blob.digest for version in registry.versions() for blob in version.blobs.values()}
    needed |= {version.manifest_digest for version in registry.versions()}
    assert {path.name for path in (registry.root / "blobs").rglob("*") if path.is_file()} == needed, where
    if registry.versions():
        assert [*(registry.root / "staging").glob("*"), *registry.root.glob("*.new-*")] == [], where


def check_publication_is_visible_from_its_commit(out: Path, labels: list[str]) -> None:
    commit = [step for step, label in enumerate(labels) if label == "after commit"][1]
    visible = [Registry(out / f"{step:04}").resolve("insects").version == 5 for step in range(len(labels))]
    assert visible == [step >= commit for step in range(len(labels))]
