"""Programs that tests run in other processes, killed at every step or run concurrently. They start fast, without numpy.

python registry_workers.py crash VERB kill|power-cut BASE WORK OUT     a copy of BASE for every step in OUT
python registry_workers.py publish ROOT NUMBER COUNT                   publish and promote COUNT versions
python registry_workers.py gc ROOT STOP                                collect until the file STOP is there
python registry_workers.py read ROOT STOP                              read until the file STOP is there
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from automl_tl_registry import Registry, RegistryError
from automl_tl_registry.errors import AliasMovedError
from automl_tl_registry.storage import Disk
from tests.registry.registry_fakes import FakeClock, facts, publish, weights

VERBS = ("publish", "first-publish", "promote", "delete", "gc", "import", "export", "rebuild")


class Killer:
    """Kills this process without any cleanup at step number ``at``."""

    def __init__(self, at: int) -> None:
        self.at, self.step = at, 0

    def __call__(self, label: str) -> None:
        if label.startswith("before") or label == "after commit":
            if self.step == self.at:
                self.fall(label)
            self.step += 1

    def fall(self, label: str) -> None:
        print(label, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


class PowerCut(Disk):
    """A disk that loses at a power failure what was not fsynced: bytes of files, and names in folders."""

    def __init__(self, killer: Killer) -> None:
        super().__init__(killer)
        object.__setattr__(self, "unsynced", set())
        object.__setattr__(self, "unnamed", set())
        killer.fall = self.forget  # type: ignore[method-assign]

    @contextmanager
    def _step(self, label: str, path: Path) -> Iterator[None]:
        with super()._step(label, path):
            yield
        unsynced: set[Path] = self.__dict__["unsynced"]
        unnamed: set[Path] = self.__dict__["unnamed"]
        if label == "write":
            unsynced.add(path)
            unnamed.add(path)
        elif label == "fsync":
            unsynced.discard(path)
        elif label in ("rename", "mkdir", "link"):
            unnamed.add(path)
        elif label == "fsync folder":
            unnamed -= {each for each in unnamed if each.parent == path}

    def forget(self, label: str) -> None:
        for path in self.__dict__["unsynced"]:
            if path.exists():
                os.truncate(path, path.stat().st_size // 2)
        for path in self.__dict__["unnamed"]:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        print(label, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


def act(verb: str, registry: Registry, work: Path, out: Path) -> None:
    if verb in ("publish", "first-publish"):
        publish(registry, work, seed=77)
    elif verb == "promote":
        registry.promote("insects@3", "production", actor="eve")
    elif verb == "delete":
        registry.delete("insects@2", actor="eve")
    elif verb == "gc":
        registry.gc(actor="eve")
    elif verb == "import":
        registry.import_(work / "export.tar", actor="eve")
    elif verb == "export":
        registry.export("insects@1", out.with_name(out.name + "-exported"))
    elif verb == "rebuild":
        registry.rebuild(actor="eve")


def warm_up() -> None:
    """Import modules and build pydantic's validators once, instead of once in each forked process."""
    with TemporaryDirectory() as folder:
        registry = Registry(Path(folder) / "registry", clock=FakeClock())
        for seed in range(2):
            publish(registry, Path(folder) / "work", seed=seed)
        registry.promote("insects@1", "production", actor="eve")
        registry.delete("insects@2", actor="eve")
        exported = registry.export("insects@1", Path(folder) / "export.tar")
        Registry(Path(folder) / "other").import_(exported)
        registry.rebuild(actor="eve")


def crash(verb: str, kind: str, base: Path, work: Path, out: Path) -> None:
    """Die at step 0, 1, 2 ... of the verb, each time in a new process on a new copy, until the verb completes."""
    warm_up()
    for step in count():
        root = out / f"{step:04}"
        if base.exists():
            shutil.copytree(base, root)
        child = os.fork()
        if child == 0:
            killer = Killer(step)
            disk = PowerCut(killer) if kind == "power-cut" else Disk(killer)
            act(verb, Registry(root, disk=disk, clock=FakeClock()), work, root)  # a still clock: the same steps each time
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            return


def publish_and_promote(root: Path, number: int, num_versions: int) -> None:
    """Publish versions that share an encoder; promote each with compare-and-set, once."""
    registry, work = Registry(root), root.parent / f"work-{number}"
    work.mkdir()
    encoder, won, lost = weights(work / "encoder", 999, 5000), 0, 0
    for turn in range(num_versions):
        head = weights(work / "head", 1000 * number + turn)
        version = registry.publish("insects", {"encoder": encoder, "head": head}, facts(), actor=f"worker {number}")
        live = [each.version for each in registry.versions("insects", alias="production")]
        try:
            registry.promote(version.ref, "production", expect=live[0] if live else None, actor=f"worker {number}")
            won += 1
        except AliasMovedError:
            lost += 1
    print(json.dumps({"won": won, "lost": lost}))


def collect(root: Path, stop: Path) -> None:
    turns = 0
    while not stop.exists():
        Registry(root).gc(actor="gc")
        turns += 1
    print(json.dumps({"turns": turns}))


def read(root: Path, stop: Path) -> None:
    """Ask everything; each answer must be whole."""
    turns, registry = 0, Registry(root)
    while not stop.exists():
        versions = registry.versions("insects", last=20)
        assert [each.version for each in versions] == sorted((each.version for each in versions), reverse=True)
        if versions:
            registry.load(versions[0].ref)
        turns += 1
    print(json.dumps({"turns": turns}))


if __name__ == "__main__":
    try:
        match sys.argv[1:]:
            case ["crash", verb, kind, base, work, out]:
                crash(verb, kind, Path(base), Path(work), Path(out))
            case ["publish", root, number, num_versions]:
                publish_and_promote(Path(root), int(number), int(num_versions))
            case ["gc", root, stop]:
                collect(Path(root), Path(stop))
            case ["read", root, stop]:
                read(Path(root), Path(stop))
    except RegistryError as error:
        sys.exit(f"{type(error).__name__}: {error}")
