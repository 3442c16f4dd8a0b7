"""A Ray cluster of three nodes: equal results, a killed node, bounded work, clear errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import automl_tl
from automl_tl.contracts import Job
from automl_tl.errors import ExecutorError
from automl_tl.executors.jobs import perform
from automl_tl.executors.opening import open_executor
from automl_tl.executors.ray_cluster import RayExecutor
from automl_tl.models.bundle import build_encoder
from automl_tl.plugin_host import discover
from automl_tl.runtime.progress import Advance, Logged
from automl_tl.training.views import Origin, Prefix
from automl_tl.training.workspace import ActivationCache
from automl_tl.values import FitOutcome
from automl_tl.workflows.dataset import load_dataset
from tests.executors.conftest import Nodes
from tests.fakes import write_colors
from tests.toy_plugin import TOY

pytestmark = pytest.mark.integration

PER_CLASS = 200
NUM_NODES = 3


class KillingProgress(Logged):
    """Kills a node after the first features."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes, self.num_done = nodes, 0

    @contextmanager
    def track(self, description: str, total: int) -> Iterator[Advance]:
        def advance(done: int) -> None:
            if self.num_done == 0:
                self.nodes.kill_one()
            self.num_done += done

        yield advance


def test_ray_killed_node_costs_only_its_unfinished_features(cluster: Nodes, tmp_path: Path) -> None:
    images = write_colors(tmp_path / "colors", PER_CLASS)
    backbone = discover().backbone(TOY)
    encoder, progress = build_encoder(backbone, pretrained=True), KillingProgress(cluster)

    def prefix(folder: str, progress: Logged) -> Prefix:
        cache = ActivationCache(tmp_path / folder, progress)
        return Prefix(encoder, backbone.card.preprocessing, cache, gives_features=True, origin=Origin(TOY, None))

    with open_executor("ray") as executor:
        there = load_dataset(images, seed=0, executor=executor)
        extracted = prefix("there", progress).plain(there.images["train"]).all()
    here = load_dataset(images, seed=0)
    expected = prefix("here", Logged()).plain(here.images["train"]).all()

    assert there.index == here.index
    assert np.array_equal(extracted, expected)
    assert progress.num_done == len(expected)


def test_ray_takes_jobs_as_they_can_run_and_stops_on_demand(cluster: Nodes) -> None:
    taken = []

    def jobs() -> Iterator[Job]:
        for number in range(1000):
            taken.append(number)
            yield Job(task="command", arguments={"command": ["--version"]})

    executor = RayExecutor()
    try:
        answers = list(executor.run(jobs(), perform, lambda: len(taken) > 2))
        ((_, broken),) = executor.run([Job(task="scan", arguments={})], perform, lambda: False)
    finally:
        executor.close()

    assert len(answers) <= len(taken) <= 2 * NUM_NODES
    assert "KeyError" in str(broken.error)


class CountingProgress(Logged):
    """Counts the trials that came back from an executor."""

    def __init__(self) -> None:
        self.num_trials = 0

    @contextmanager
    def track(self, description: str, total: int) -> Iterator[Advance]:
        def advance(done: int) -> None:
            self.num_trials += done * (description == "trials on the executor")

        yield advance


def test_fit_on_ray_gives_the_local_model_and_trains_candidates_at_once(
    cluster: Nodes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images, progress = write_colors(tmp_path / "colors", 20), CountingProgress()

    def fit(on: str | None) -> FitOutcome:
        registry = tmp_path / f"registry-{on}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TL_HOME", str(tmp_path / f"home-{on}"))
            patch.setenv("PYTHONPATH", str(cluster.site))
            strategies = ("tail", "full_finetune")
            return automl_tl.fit(images, backbone=TOY, strategy=strategies, registry=registry, on=on, progress=progress)

    assert fit("ray").model_digest == fit(None).model_digest
    assert progress.num_trials == 2
    assert "failed on a worker" not in caplog.text


def test_ray_answers_a_job_that_no_node_can_run(cluster: Nodes) -> None:
    executor = RayExecutor()
    try:
        ((_, answer),) = executor.run([Job(task="scan", arguments={}, num_cpus=64)], perform, lambda: False)
    finally:
        executor.close()

    assert "has CPU 1, GPU 0. Expected CPU 64, GPU 0" in str(answer.error)


def test_ray_names_an_address_where_no_cluster_answers() -> None:
    pytest.importorskip("ray")

    with pytest.raises(ExecutorError, match=r"No Ray cluster answers at 127\.0\.0\.1:9"):
        RayExecutor("127.0.0.1:9")
    with pytest.raises(ExecutorError, match="Expected ray://HOST:PORT"):
        RayExecutor("head")
