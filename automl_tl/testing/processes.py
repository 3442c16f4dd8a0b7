"""What a plugin does in a process of its own: how long its import takes, what it drags along, whether answers repeat."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Final

from automl_tl.contracts import Situation
from automl_tl.plugin_host import timeout
from automl_tl.testing.verdicts import CheckFailed
from automl_tl.values import Value

__all__ = ["ImportProbe", "answers_of_new_process", "probe_cards", "probe_import"]

MOST_TRIES: Final = 3  # the quickest counts: a busy machine makes any import slow once
QUICK_S: Final = 0.2
HEAVY: Final = ("torch", "torchvision", "timm", "tensorflow", "jax")

IMPORT = """
import contextlib, importlib, io, json, sys, time
asked = json.loads(sys.stdin.read())
sys.path[:] = asked["path"]
import automl_tl.contracts
printed, error, cards = io.StringIO(), None, []
started_s = time.perf_counter()
seconds = 0.0
try:
    with contextlib.redirect_stdout(printed):
        found = importlib.import_module(asked["module"])
        seconds = time.perf_counter() - started_s
        if asked["attribute"]:
            for name in asked["attribute"].split("."):
                found = getattr(found, name)
            cards = [backbone.card.name for backbone in found()]
except BaseException as problem:
    error = f"{type(problem).__name__}: {problem}"
heavy = [name for name in asked["heavy"] if name in sys.modules]
print(json.dumps({"seconds": seconds, "heavy": heavy, "printed": printed.getvalue()[:200], "error": error}))
"""

ANSWERS = """
import contextlib, importlib, json, sys
asked = json.loads(sys.stdin.read())
sys.path[:] = asked["path"]
from automl_tl.contracts import Situation
with contextlib.redirect_stdout(sys.stderr):
    found = importlib.import_module(asked["module"])
    for name in asked["attribute"].split("."):
        found = getattr(found, name)
    situations = [Situation.model_validate(each) for each in asked["situations"]]
    answers = [[found().recipe(each).model_dump_json(), found().expect(each).model_dump_json()] for each in situations]
print(json.dumps(answers))
"""


class ImportProbe(Value):
    """One import in a new process."""

    seconds: float
    heavy: tuple[str, ...]
    printed: str
    error: str | None


def probe_import(point: EntryPoint) -> ImportProbe:
    """The quickest of a few imports of the entry point's module, each in a new process that has imported the contracts."""
    probes: list[ImportProbe] = []
    while len(probes) < MOST_TRIES:
        probes.append(_probe(point, attribute=""))
        if probes[-1].error or probes[-1].heavy or probes[-1].seconds <= QUICK_S:
            break
    return min(probes, key=lambda probe: probe.seconds)


def probe_cards(point: EntryPoint) -> ImportProbe:
    """The same, with every card read."""
    return _probe(point, attribute=point.attr)


def _probe(point: EntryPoint, *, attribute: str) -> ImportProbe:
    try:
        done = _run(IMPORT, {"module": point.module, "attribute": attribute, "heavy": HEAVY})
    except subprocess.TimeoutExpired:
        problem = f"not imported within {timeout.IMPORT_LIMIT_S:g} s"
        return ImportProbe(seconds=timeout.IMPORT_LIMIT_S, heavy=(), printed="", error=problem)
    try:
        return ImportProbe.model_validate_json(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return ImportProbe(seconds=0.0, heavy=(), printed="", error=f"the process ended with {_last_words(done)}")


def answers_of_new_process(point: EntryPoint, situations: Sequence[Situation]) -> list[tuple[str, str]]:
    """Recipe and expectation for each situation, as JSON, from a process with another hash seed.

    Raises:
        CheckFailed: that process gave no answers.
    """
    asked = {"module": point.module, "attribute": point.attr, "situations": [each.model_dump() for each in situations]}
    done = _run(ANSWERS, asked)
    if done.returncode != 0:
        raise CheckFailed(f"a new process that asked for recipes ended with {_last_words(done)}")
    return [(recipe, expectation) for recipe, expectation in json.loads(done.stdout.splitlines()[-1])]


def _run(script: str, asked: Mapping[str, object]) -> subprocess.CompletedProcess[str]:
    path = [str(Path(each or ".").absolute()) for each in sys.path]
    return subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps({**asked, "path": path}),
        env={**os.environ, "PYTHONHASHSEED": "4711"},
        capture_output=True,
        text=True,
        timeout=timeout.IMPORT_LIMIT_S,
        check=False,
    )


def _last_words(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}, silently"])[-1]
