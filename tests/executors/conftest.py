"""One Ray cluster of three nodes for all tests, with the toy backbone installed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plugin_host.distributions import Package, install
from tests.toy_plugin import SOURCE

# Before anything imports ray: a cluster of `ray.cluster_utils` has no token, and a driver with one cannot talk to it.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")


class Nodes:
    """A running cluster."""

    def __init__(self, process: subprocess.Popen[str], site: Path) -> None:
        self._process, self.site = process, site
        self.address = self._answer()

    def kill_one(self) -> None:
        assert self._process.stdin
        self._process.stdin.write("kill\n")
        self._process.stdin.flush()
        assert self._answer() == "killed"

    def _answer(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()


@pytest.fixture(scope="session")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    pytest.importorskip("ray")
    site = tmp_path_factory.mktemp("site")
    install(site, Package("tl-toy", SOURCE, {"backbones.toy": "backbones"}))
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join([str(site), root, os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "TL_HOME": str(site / "home")}
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("ray_nodes.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as process:
        yield Nodes(process, site)
        assert process.stdin
        process.stdin.close()


@pytest.fixture
def cluster(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> Nodes:
    """The cluster, which ``--on ray`` joins."""
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    monkeypatch.syspath_prepend(str(nodes.site))
    return nodes
