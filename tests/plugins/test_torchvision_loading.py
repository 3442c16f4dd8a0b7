"""Weights of torchvision models from a local server and from the cache."""

from __future__ import annotations

import hashlib
import io
import pickle
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from automl_tl.errors import WeightsError
from automl_tl_torchvision import TorchvisionBackbone, loading
from automl_tl_torchvision.cards import entries
from tests.plugins.weight_server import REFUSED, File, Trap, serving, silence

if TYPE_CHECKING:
    from torch import nn

MODEL = "shufflenet_v2_x0_5"  # 5 MiB, the smallest
Served = Callable[[str, bytes], TorchvisionBackbone]


@pytest.fixture(autouse=True)
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty cache of torch hub."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Served:
    """Backbone whose weights are ``content`` at an address, with a file name as torchvision's."""
    from torchvision import models

    def at(address: str, content: bytes) -> TorchvisionBackbone:
        url = f"{address}/{filename(content)}"
        weights = models.get_model_weights(MODEL).DEFAULT
        monkeypatch.setattr(weights.value, "url", url)
        entry = next(entry for entry in entries() if entry.card.name == f"torchvision/{MODEL}")
        return TorchvisionBackbone(replace(entry, url=url))

    return at


def filename(content: bytes) -> str:
    return f"shufflenet-{hashlib.sha256(content).hexdigest()[:8]}.pth"


def saved(network: nn.Module) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    return buffer.getvalue()


def random_network() -> nn.Module:
    from torchvision import models

    network: nn.Module = models.get_model(MODEL, weights=None)
    return network


def test_build_downloads_weights(served: Served, checkpoints: Path) -> None:
    source = random_network()
    content = saved(source)

    with serving({f"/{filename(content)}": File(content)}) as address:
        network = served(address, content).build(pretrained=True)

    assert saved(network) == content
    assert not network.training
    assert (checkpoints / filename(content)).read_bytes() == content


def test_build_loads_cached_weights_offline(served: Served, checkpoints: Path) -> None:
    content = saved(random_network())
    checkpoints.mkdir(parents=True)
    (checkpoints / filename(content)).write_bytes(content)

    network = served(REFUSED, content).build(pretrained=True)

    assert saved(network) == content


def test_build_without_network_explains_in_one_line(served: Served, checkpoints: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        served(REFUSED, b"").build(pretrained=True)

    text = str(caught.value)
    assert text.count("\n") == 0
    for expected in (f"torchvision/{MODEL}", REFUSED, str(checkpoints / filename(b"")), "--weights FILE", "--weights none"):
        assert expected in text


def test_build_gives_up_on_a_silent_server(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "CONNECT_TIMEOUT_S", 0.2)
    started_s = time.monotonic()

    with silence() as address, pytest.raises(WeightsError, match="timed out"):
        served(address, b"").build(pretrained=True)

    assert time.monotonic() - started_s < 10


def test_build_names_a_missing_file(served: Served) -> None:
    with serving({}) as address, pytest.raises(WeightsError, match="404"):
        served(address, b"").build(pretrained=True)


def test_build_refuses_a_wrong_digest(served: Served, checkpoints: Path) -> None:
    content = saved(random_network())

    with (
        serving({f"/{filename(content)}": File(b"something else")}) as address,
        pytest.raises(WeightsError, match="invalid hash value"),
    ):
        served(address, content).build(pretrained=True)

    assert list(checkpoints.iterdir()) == []


def test_build_refuses_a_pickle_with_code(served: Served, checkpoints: Path, tmp_path: Path) -> None:
    executed = tmp_path / "executed"
    content = pickle.dumps({"conv1.weight": Trap(executed)})

    with serving({f"/{filename(content)}": File(content)}) as address, pytest.raises(WeightsError, match="Delete the file"):
        served(address, content).build(pretrained=True)

    assert not executed.exists()


def test_build_names_a_damaged_cached_file(served: Served, checkpoints: Path) -> None:
    content = saved(random_network())
    checkpoints.mkdir(parents=True)
    (checkpoints / filename(content)).write_bytes(content[:1000])

    with pytest.raises(WeightsError, match=r"Delete the file to download it again") as caught:
        served(REFUSED, content).build(pretrained=True)

    assert str(checkpoints / filename(content)) in str(caught.value)


def test_build_names_a_model_unknown_to_torchvision() -> None:
    entry = next(entries())

    with pytest.raises(WeightsError, match="does not have the model 'resnet19'"):
        TorchvisionBackbone(replace(entry, model="resnet19")).build(pretrained=False)
