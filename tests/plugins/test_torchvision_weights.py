"""torchvision's own loader, against a real server on the loopback: weights arrive safely or with one clear line."""

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
from tests.plugins.zoo_server import REFUSED, File, Trap, serving, silence

if TYPE_CHECKING:
    from torch import nn

MODEL = "shufflenet_v2_x0_5"  # 5 MiB, the smallest
Served = Callable[[str, bytes], TorchvisionBackbone]


@pytest.fixture(autouse=True)
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of torch hub's."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Served:
    """The backbone whose weights are ``content``, named as torchvision names files, at an address."""
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


def test_weights_come_through_torchvisions_loader_and_nothing_goes_to_stdout(
    served: Served, checkpoints: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = random_network()
    content = saved(source)

    with serving({f"/{filename(content)}": File(content)}) as address:
        network = served(address, content).build(pretrained=True)

    assert saved(network) == content
    assert not network.training
    assert (checkpoints / filename(content)).read_bytes() == content
    assert capsys.readouterr().out == ""


def test_cached_weights_need_no_network(served: Served, checkpoints: Path) -> None:
    content = saved(random_network())
    checkpoints.mkdir(parents=True)
    (checkpoints / filename(content)).write_bytes(content)

    network = served(REFUSED, content).build(pretrained=True)

    assert saved(network) == content


def test_without_a_network_one_line_says_what_was_tried_and_what_to_do(served: Served, checkpoints: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        served(REFUSED, b"").build(pretrained=True)

    text = str(caught.value)
    assert text.count("\n") == 0
    for part in (f"torchvision/{MODEL}", REFUSED, str(checkpoints / filename(b"")), "--weights FILE", "--weights none"):
        assert part in text


def test_a_server_that_never_answers_does_not_hold_us(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "CONNECT_TIMEOUT_S", 0.2)
    started_s = time.monotonic()

    with silence() as address, pytest.raises(WeightsError, match="timed out"):
        served(address, b"").build(pretrained=True)

    assert time.monotonic() - started_s < 10


def test_a_missing_file_on_the_server_is_named(served: Served) -> None:
    with serving({}) as address, pytest.raises(WeightsError, match="404"):
        served(address, b"").build(pretrained=True)


def test_bytes_that_do_not_have_the_digest_in_their_name_are_refused(served: Served, checkpoints: Path) -> None:
    content = saved(random_network())

    with (
        serving({f"/{filename(content)}": File(b"something else")}) as address,
        pytest.raises(WeightsError, match="invalid hash value"),
    ):
        served(address, content).build(pretrained=True)

    assert list(checkpoints.iterdir()) == []


def test_a_checkpoint_that_would_run_code_is_refused(served: Served, checkpoints: Path, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    content = pickle.dumps({"conv1.weight": Trap(sprung)})

    with serving({f"/{filename(content)}": File(content)}) as address, pytest.raises(WeightsError, match="Delete the file"):
        served(address, content).build(pretrained=True)

    assert not sprung.exists()


def test_a_damaged_cached_file_is_named_with_what_to_do(served: Served, checkpoints: Path) -> None:
    content = saved(random_network())
    checkpoints.mkdir(parents=True)
    (checkpoints / filename(content)).write_bytes(content[:1000])

    with pytest.raises(WeightsError, match=r"Delete the file to download it again") as caught:
        served(REFUSED, content).build(pretrained=True)

    assert str(checkpoints / filename(content)) in str(caught.value)


def test_a_model_that_the_installed_torchvision_lacks_is_named() -> None:
    entry = next(entries())

    with pytest.raises(WeightsError, match="doesn't know 'resnet19'"):
        TorchvisionBackbone(replace(entry, model="resnet19")).build(pretrained=False)
