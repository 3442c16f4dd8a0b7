"""Downloads while planning, from a loopback hub: what is said about them, which are probed, and what replaces a broken one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save
from torch import nn

from automl_tl.contracts import Recommendation
from automl_tl.planning.evidence import Probe
from automl_tl.plugin_host import Catalog, LoadedBackbone
from automl_tl.plugin_host.downloads import local_file
from automl_tl.testing import ToyBackbone
from automl_tl.training.closed_form import DEFAULT_SOLVER, Solver
from automl_tl.values import Constraints, Plan
from tests.loopback_hub import Hub, open_hub
from tests.planning.conftest import MakePlan
from tests.planning.fake_plugins import ClosedForm, FixedProbes, Renamed, catalog_of
from tests.planning.test_planner import Recorder, reasons_of
from tests.plugin_host.test_downloads import point_at
from tests.plugins.weight_server import REFUSED, silence

RECOMMENDED = Recommendation(situation="laptop", pooling="mean", evidence="81% fine-tuned", source="a test")
DOWNLOAD = Constraints(download=True, optimize="accuracy")


class OnHub(Renamed):
    """The toy backbone with weights on the hub."""

    def __init__(self, name: str, **facts: object) -> None:
        facts = {"imagenet_top1": 0.8, "recommended": RECOMMENDED, "weights_mib": 1.0, **facts}
        hub = {"hub": f"team/{name}", "hub_files": ("model.safetensors",), "weights": "download"}
        super().__init__(name=f"toy/{name}", **hub, **facts)

    def build(self, *, pretrained: bool) -> nn.Module:
        """The toy network with the weights that were downloaded."""
        network = super().build(pretrained=False)
        file = local_file(self.card)
        assert file is not None
        network.load_state_dict(load_file(file))
        return network


class BetterOnHub(FixedProbes):
    """Backbones of the hub get every image right."""

    def probe(self, backbone: LoadedBackbone, *, solver: Solver = DEFAULT_SOLVER, levels: Probe | None = None) -> Probe:
        """Build the network, and know the labels if it is one of the hub's."""
        probe = super().probe(backbone, solver=solver, levels=levels)
        if not backbone.card.hub:
            return probe
        return replace(probe, log_probabilities=np.log(0.9 * np.eye(3)[probe.labels] + 0.1 / 3))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that serves two toy networks."""
    with open_hub() as hub:
        point_at(hub.endpoint, tmp_path / "hub", monkeypatch)
        for name in ("best", "good"):
            hub.weights[f"team/{name}"] = save(ToyBackbone().build(pretrained=True).state_dict())
        yield hub


@pytest.fixture
def catalog() -> Catalog:
    """One backbone on this machine, two recommended ones on the hub."""
    local, best, good = Renamed(imagenet_top1=0.7), OnHub("best", imagenet_top1=0.85), OnHub("good")
    return catalog_of([local, best, good], [ClosedForm()])


def asked(hub: Hub) -> list[str]:
    """Return the repositories whose files were sent, in order."""
    return [repository for method, repository, _ in hub.requests if method == "GET"]


def hints(plan: Plan) -> list[str]:
    """Return what the plan says of downloads."""
    return [change for change in plan.changes if "--download" in change]


def test_make_plan_says_what_a_download_would_bring_where_the_hub_answers(plan: MakePlan, catalog: Catalog, hub: Hub) -> None:
    recorder = Recorder()

    result = plan(catalog, progress=recorder)

    expected = "with --download: toy/best (1 MB, about +20.3 pp, 0 s), at an assumed 10 MB/s"
    assert hints(result) == [expected]
    assert expected in recorder.messages
    assert not hub.requests
    assert result.backbone == "toy/three_blocks"


def test_make_plan_names_the_budget_that_has_time_for_a_download(plan: MakePlan, hub: Hub) -> None:
    large = OnHub("best", weights_mib=2000.0)

    result = plan(catalog_of([Renamed(imagenet_top1=0.7), large], [ClosedForm()]), Constraints(budget_s=60))

    assert hints(result) == ["with --download --budget 11m: toy/best (2097 MB, about +13.5 pp, 210 s), at an assumed 10 MB/s"]


@pytest.mark.parametrize("constraints", [Constraints(), DOWNLOAD])
def test_make_plan_without_network_neither_hints_nor_fails(
    plan: MakePlan, catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, constraints: Constraints
) -> None:
    point_at(REFUSED, tmp_path, monkeypatch)
    recorder = Recorder()

    result = plan(catalog, constraints, progress=recorder)

    assert result.backbone == "toy/three_blocks"
    assert not hints(result)
    assert any("does not answer within 2 s" in text for text in recorder.messages) == constraints.download


@pytest.mark.parametrize("constraints", [Constraints(), DOWNLOAD])
def test_make_plan_asks_nothing_in_offline_mode(
    plan: MakePlan, catalog: Catalog, hub: Hub, monkeypatch: pytest.MonkeyPatch, constraints: Constraints
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    recorder = Recorder()

    assert not hints(plan(catalog, constraints, progress=recorder))
    assert not hub.requests
    assert ("--download: nothing to download (HF_HUB_OFFLINE is set)" in recorder.messages) == constraints.download


def test_make_plan_downloads_probes_and_chooses_the_better_backbone(plan: MakePlan, catalog: Catalog, hub: Hub) -> None:
    result = plan(catalog, DOWNLOAD, kind=BetterOnHub)

    assert result.backbone == "toy/best"
    assert asked(hub) == ["team/best", "team/good"]
    assert result.weights[0].repository == "team/best"
    assert result.weights[0].sha256 is not None


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("404", "404"),
        ("damaged", "sha256 is"),
        ("short", "the server has"),
        ("reset", "the next attempt resumes there"),
        ("slow", "is too slow"),
    ],
)
def test_make_plan_takes_the_next_backbone_after_a_broken_download(
    plan: MakePlan, catalog: Catalog, hub: Hub, monkeypatch: pytest.MonkeyPatch, fault: str, reason: str
) -> None:
    hub.faults["team/best"] = fault
    monkeypatch.setattr("automl_tl.planning.downloads.MAX_S", 0.3)  # of the slow one
    recorder = Recorder()

    result = plan(catalog, DOWNLOAD, kind=BetterOnHub, progress=recorder)

    assert result.backbone == "toy/good"
    assert reason in reasons_of(result)["toy/best"]
    assert sum("Planning without toy/best." in text for text in recorder.messages) == 1


def test_make_plan_asks_a_hub_that_falls_silent_only_once(
    plan: MakePlan, catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with silence() as address:
        point_at(address, tmp_path, monkeypatch)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", 0.1)

        result = plan(catalog, DOWNLOAD)

    assert reasons_of(result)["toy/good"] == "the hub cannot be reached"


def test_make_plan_leaves_out_downloads_that_would_be_too_slow_at_prediction(plan: MakePlan, hub: Hub) -> None:
    slow = OnHub("best", num_macs=10**9)
    catalog = catalog_of([Renamed(imagenet_top1=0.7, num_macs=10**6), slow], [ClosedForm()])

    result = plan(catalog, DOWNLOAD.model_copy(update={"max_latency_ms": 50.0}))

    assert not hub.requests
    assert reasons_of(result)["toy/best"] == "about 1000 ms per image expected; the limit is 50"
