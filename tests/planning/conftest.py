"""Datasets and a cache that all tests of planning share: features and speeds are computed once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import pytest

from automl_tl.planning import EvidenceCollector, make_plan
from automl_tl.plugin_host import Catalog
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.values import Constraints, Plan
from automl_tl.workflows.dataset import Dataset, load_dataset
from tests.fakes import COLORS, write_colors
from tests.planning.fake_plugins import FAINT, FixedProbes, evidence_of


class MakePlan(Protocol):
    """Plans for a dataset, by default ``colors``, with fixed probes unless another kind of evidence is given."""

    def __call__(
        self,
        catalog: Catalog,
        constraints: Constraints = Constraints(),
        *,
        dataset: Dataset | None = None,
        kind: type[EvidenceCollector] = FixedProbes,
        run_trials: bool = False,
        progress: Progress = QUIET,
    ) -> Plan: ...


def load_colors(folder: Path, per_class: int, colors: Mapping[str, tuple[int, int, int]]) -> Dataset:
    """Write and load a dataset outside of any test's home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TL_HOME", str(folder / "home"))
        images = write_colors(folder / "images", per_class, classes=("blue", "green", "red"), colors=colors)
        return load_dataset(images, seed=0, progress=QUIET)


@pytest.fixture(scope="session")
def colors(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Three colors that a linear probe tells apart, 40 images each."""
    return load_colors(tmp_path_factory.mktemp("colors"), 40, COLORS)


@pytest.fixture(scope="session")
def faint(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Three faint colors that random features hardly tell apart, 60 images each."""
    return load_colors(tmp_path_factory.mktemp("faint"), 60, FAINT)


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features and speeds of the fake backbones."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def plan(colors: Dataset, tmp_path: Path, cache_dir: Path) -> MakePlan:
    """Return ``make_plan`` with a workspace of this test and the shared cache; trials have their own for checkpoints."""

    def plan(
        catalog: Catalog,
        constraints: Constraints = Constraints(),
        *,
        dataset: Dataset | None = None,
        kind: type[EvidenceCollector] = FixedProbes,
        run_trials: bool = False,
        progress: Progress = QUIET,
    ) -> Plan:
        cache = None if run_trials else cache_dir
        evidence = evidence_of(dataset or colors, tmp_path, constraints, cache_dir=cache, progress=progress, kind=kind)
        return make_plan(catalog, evidence, run_trials=run_trials)

    return plan
