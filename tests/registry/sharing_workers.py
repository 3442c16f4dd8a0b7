"""Programs that tests of shared registries run in other processes.

python sharing_workers.py crash BASE OUT          push BASE to OUT/0000/shared ..., killed one step later each time
python sharing_workers.py promote ROOT URL        promote what each line of stdin says: REF, ALIAS and the expected version
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

from automl_tl_registry import Registry
from automl_tl_registry.errors import AliasMovedError
from automl_tl_registry.remote_store import FolderStore, RemoteStore, Stored
from automl_tl_registry.sharing import SharedRegistry
from automl_tl_registry.storage import Disk
from automl_tl_registry.store import Store, utc_now


class WatchedStore:
    """A store that reports each operation and its key, before and after it."""

    def __init__(self, store: RemoteStore, reached: Callable[[str], None]) -> None:
        self._store, self._reached, self.url = store, reached, store.url

    def _watched(self, operation: str, key: str, *arguments: object) -> Any:  # noqa: ANN401 - what the operation returns
        self._reached(f"before {operation} {key}")
        result = getattr(self._store, operation)(key, *arguments)
        self._reached(f"after {operation} {key}")
        return result

    def chunks(self, key: str) -> Iterator[bytes]:
        yield from self._watched("chunks", key)

    def stored(self, key: str) -> Stored | None:
        stored: Stored | None = self._watched("stored", key)
        return stored

    def remove(self, key: str) -> None:
        self._watched("remove", key)

    def create(self, key: str, content: bytes) -> bool:
        return bool(self._watched("create", key, content))

    def upload(self, key: str, path: Path) -> None:
        self._watched("upload", key, path)

    def list(self, prefix: str) -> list[str]:
        return list(self._watched("list", prefix))

    def creates_exclusively(self) -> bool:
        return self._store.creates_exclusively()


def sharing(root: Path, remote: RemoteStore) -> SharedRegistry:
    """The shared registry in ``remote``, used from the registry in ``root``."""
    return SharedRegistry(Store(root, Disk(), utc_now), remote)


def crash(base: Path, out: Path) -> None:
    """Push to an empty folder, killed at step 0, 1, 2 ..., each time in a new process, until a push completes."""
    for at in count():
        child = os.fork()
        if child == 0:
            steps = count()

            def kill(label: str, at: int = at, steps: count[int] = steps) -> None:
                if next(steps) == at:
                    print(label, flush=True)
                    os.kill(os.getpid(), signal.SIGKILL)

            store = WatchedStore(FolderStore(out / f"{at:04}" / "shared"), kill)
            sharing(base, store).push("insects")
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            return


def promote(root: Path, url: str) -> None:
    shared = Registry(root).shared(url)
    print("ready", flush=True)
    for line in sys.stdin:
        ref, alias, expected = line.split()
        try:
            shared.promote(ref, alias, expect=None if expected == "unset" else int(expected), actor=root.name)
            print(json.dumps({"won": True}), flush=True)
        except AliasMovedError as error:
            print(json.dumps({"won": False, "by": error.by, "found": error.found, "code": error.exit_code}), flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["crash", base, out]:
            crash(Path(base), Path(out))
        case ["promote", root, url]:
            promote(Path(root), url)
