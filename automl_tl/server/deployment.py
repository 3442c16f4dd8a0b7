"""Which version answers: follows an alias when it is promoted or rolled back, and opens other versions by name.

A new version replaces the old one only after it was loaded and proven; requests in progress keep the one they began with.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from threading import Event, Lock, Thread
from typing import Final

from automl_tl.server.served_model import ServedModel
from automl_tl_registry import ModelVersion, Registry
from automl_tl_registry.values import Reference

POLL_S: Final = 0.5  # a query takes about 2 ms
RETRY_S: Final = 60.0  # before a version that could not be loaded is tried again
MAX_OTHERS: Final = 2  # versions in memory beside the current one

_log = logging.getLogger(__name__)
Open = Callable[[str], ServedModel]  # of ``name@3``


class Deployment:
    """The current version of a model, and a few others that were asked for by name."""

    def __init__(self, ref: str, registry: Registry, open_version: Open) -> None:
        """Load the version that ``ref`` points to.

        Args:
            ref: ``name`` (the latest version now), ``name@3``, or ``name@production``, which is followed.
            registry: holds the versions.
            open_version: loads and proves one.

        Raises:
            RegistryError: no such version, or a damaged one.
            AutomlTlError: it cannot be used.
        """
        self.reference = Reference.parse(ref)
        self.current = open_version(registry.resolve(ref).ref)
        self.num_replaced = self.num_failed = 0
        self._registry, self._open = registry, open_version
        self._others: OrderedDict[str, ServedModel] = OrderedDict()
        self._lock, self._stopped = Lock(), Event()
        self._failed: tuple[str, float] | None = None  # version, and when to try again
        self._problem = ""
        self._watcher = Thread(target=self._watch, name="alias", daemon=True)

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.reference.name

    @property
    def alias(self) -> str | None:
        """Alias that is followed."""
        return self.reference.alias

    def start(self) -> None:
        """Begin to follow the alias, if there is one."""
        if self.alias is not None:
            self._watcher.start()

    def stop(self) -> None:
        """Stop following; wait for a version that is being loaded, because native code must not outlive the interpreter."""
        self._stopped.set()
        if self._watcher.is_alive():
            self._watcher.join()

    def follow(self) -> None:
        """Load the version that the alias points to now, unless it is the current one."""
        ref = self._registry.resolve(str(self.reference)).ref
        if ref == self.current.ref or (self._failed and self._failed[0] == ref and time.monotonic() < self._failed[1]):
            return
        try:
            self.current = self._others.get(ref) or self._open(ref)
        except Exception as error:  # the old version goes on, whatever is wrong with the new one
            self._failed = (ref, time.monotonic() + RETRY_S)
            self.num_failed += 1
            _log.error("%s cannot be loaded, %s goes on: %s", ref, self.current.ref, error)
            return
        self._failed = None
        self.num_replaced += 1
        _log.info("%s now answers for %s", ref, self.reference)

    def version(self, text: str) -> ServedModel:
        """Return a version by its number or alias, loaded if necessary.

        Args:
            text: from a client.

        Raises:
            RegistryError: no such version, or a damaged one.
            AutomlTlError: it cannot be used.
        """
        ref = self._registry.resolve(f"{self.name}@{text}").ref
        current = self.current
        if ref == current.ref:
            return current
        with self._lock:
            if ref not in self._others:
                self._others[ref] = self._open(ref)
            self._others.move_to_end(ref)
            while len(self._others) > MAX_OTHERS:
                self._others.popitem(last=False)
            return self._others[ref]

    def versions(self) -> list[ModelVersion]:
        """Return all versions of the model, newest first."""
        return self._registry.versions(self.name)

    def _watch(self) -> None:
        while not self._stopped.wait(POLL_S):
            try:
                self.follow()
                problem = ""
            except Exception as error:  # such as an alias that was removed, or a registry on a disk that is away
                problem = str(error)
            if problem and problem != self._problem:
                _log.warning("%s goes on: %s", self.current.ref, problem)
            self._problem = problem
