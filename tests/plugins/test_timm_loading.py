"""Weights of timm models from a local server that speaks the hub's protocol, and from caches."""

from __future__ import annotations

import hashlib
import io
import pickle
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from automl_tl.errors import WeightsError
from automl_tl_timm import TimmBackbone, loading
from automl_tl_timm.cards import Entry, entries
from tests.plugins.weight_server import REFUSED, File, Trap, serving, silence

if TYPE_CHECKING:
    from torch import nn

MODEL = "test_resnet.r160_in1k"  # 2 MiB
REPOSITORY = f"timm/{MODEL}"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
NO_SUCH_FILE = File(b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, status=404)
AT_URL = "legacy_seresnet18.in1k"  # one of the few that are not on the hub


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches of both libraries; the hub client reads the location of its cache at import."""
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.5)
    return tmp_path


def point_hub_at(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")


def entry_of(model: str) -> Entry:
    return next(entry for entry in entries() if entry.card.name == f"timm/{model}")


def hub_files(content: bytes, name: str = "model.safetensors") -> Mapping[str, File]:
    """The hub's answers for one file of the repository."""
    headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
    return {f"/{REPOSITORY}/resolve/{revision}/{name}": File(content, headers) for revision in ("main", COMMIT)}


def random_network(model: str = MODEL) -> nn.Module:
    import timm

    network: nn.Module = timm.create_model(model)
    return network


def as_safetensors(network: nn.Module) -> bytes:
    from safetensors.torch import save

    return save(network.state_dict())


def as_checkpoint(network: nn.Module) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    return buffer.getvalue()


def test_build_downloads_weights_from_the_hub(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = as_safetensors(random_network())

    with serving(hub_files(content)) as address:
        point_hub_at(address, monkeypatch)
        network = TimmBackbone(entry_of(MODEL)).build(pretrained=True)

    assert as_safetensors(network) == content
    assert not network.training
    assert entry_of(MODEL).card.weights == "cached"
    assert entry_of("test_resnet").card.weights == "cached"


def test_build_accepts_a_repository_without_safetensors(monkeypatch: pytest.MonkeyPatch) -> None:
    source = random_network()
    old = hub_files(as_checkpoint(source), name="pytorch_model.bin")
    missing = {path.replace("pytorch_model.bin", "model.safetensors"): NO_SUCH_FILE for path in old}

    with serving({**old, **missing}) as address:
        point_hub_at(address, monkeypatch)
        network = TimmBackbone(entry_of(MODEL)).build(pretrained=True)

    assert as_safetensors(network) == as_safetensors(source)


def test_build_ignores_a_snapshot_of_another_revision(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put_in_hub_cache(caches, as_safetensors(random_network()))
    (path.parents[2] / "refs" / "main").write_text("f" * 40)
    point_hub_at(REFUSED, monkeypatch)

    with pytest.raises(WeightsError, match="Cannot download"):
        TimmBackbone(entry_of(MODEL)).build(pretrained=True)


def test_build_loads_cached_weights_offline(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = as_safetensors(random_network())
    put_in_hub_cache(caches, content)
    point_hub_at(REFUSED, monkeypatch)
    started_s = time.monotonic()

    network = TimmBackbone(entry_of(MODEL)).build(pretrained=True)

    assert as_safetensors(network) == content
    assert time.monotonic() - started_s < 5  # the hub client retries for most of a minute


def put_in_hub_cache(caches: Path, content: bytes) -> Path:
    repository = caches / "hub" / f"models--{REPOSITORY.replace('/', '--')}"
    path = repository / "snapshots" / COMMIT / "model.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return path


def test_build_without_network_explains_in_one_line(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_hub_at(REFUSED, monkeypatch)
    started_s = time.monotonic()

    with pytest.raises(WeightsError) as caught:
        TimmBackbone(entry_of(MODEL)).build(pretrained=True)

    text = str(caught.value)
    assert time.monotonic() - started_s < 5
    assert text.count("\n") == 0
    cached = f"{caches}/hub/models--timm--{MODEL}/snapshots/*/model.safetensors"
    for expected in (f"timm/{MODEL}", f"huggingface.co/{REPOSITORY}", cached, "--weights FILE", "--weights none"):
        assert expected in text


def test_build_gives_up_on_a_silent_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, started_s = TimmBackbone(entry_of(MODEL)), time.monotonic()

    with silence() as address:
        point_hub_at(address, monkeypatch)
        with pytest.raises(WeightsError, match="timed out"):
            backbone.build(pretrained=True)

    assert time.monotonic() - started_s < 10


def test_build_respects_offline_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    with serving(hub_files(as_safetensors(random_network()))) as address:
        point_hub_at(address, monkeypatch)
        with pytest.raises(WeightsError, match="OfflineModeIsEnabled"):
            TimmBackbone(entry_of(MODEL)).build(pretrained=True)


def test_build_names_an_unknown_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving({}) as address:
        point_hub_at(address, monkeypatch)
        with pytest.raises(WeightsError, match="404"):
            TimmBackbone(entry_of(MODEL)).build(pretrained=True)


def test_build_names_a_damaged_cached_file(caches: Path) -> None:
    path = put_in_hub_cache(caches, b"not a model")

    with pytest.raises(WeightsError, match="Delete the file to download it again") as caught:
        TimmBackbone(entry_of(MODEL)).build(pretrained=True)

    assert str(path) in str(caught.value)


def test_build_refuses_a_pickle_with_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    old = hub_files(pickle.dumps({"fc.weight": Trap(tmp_path / "executed")}), name="pytorch_model.bin")
    missing = {path.replace("pytorch_model.bin", "model.safetensors"): NO_SUCH_FILE for path in old}

    with serving({**old, **missing}) as address:
        point_hub_at(address, monkeypatch)
        with pytest.raises(WeightsError, match="Cannot download"):
            TimmBackbone(entry_of(MODEL)).build(pretrained=True)

    assert not (tmp_path / "executed").exists()


def test_build_downloads_weights_from_their_url(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = random_network(AT_URL)
    content = as_checkpoint(source)

    with serving({"/seresnet18.pth": File(content)}) as address:
        backbone = at_address(f"{address}/seresnet18.pth", monkeypatch)
        network = backbone.build(pretrained=True)

    assert as_safetensors(network) == as_safetensors(source)
    assert (caches / "torch" / "hub" / "checkpoints" / "seresnet18.pth").read_bytes() == content


def test_build_gives_up_on_a_silent_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "CONNECT_TIMEOUT_S", 0.2)
    started_s = time.monotonic()

    with silence() as address, pytest.raises(WeightsError, match="timed out"):
        at_address(f"{address}/seresnet18.pth", monkeypatch).build(pretrained=True)

    assert time.monotonic() - started_s < 10


def at_address(url: str, monkeypatch: pytest.MonkeyPatch) -> TimmBackbone:
    from timm.models._registry import _model_pretrained_cfgs

    monkeypatch.setattr(_model_pretrained_cfgs[AT_URL], "url", url)
    entry = entry_of(AT_URL)
    return TimmBackbone(replace(entry, source=replace(entry.source, url=url)))


def test_build_names_a_model_without_weights() -> None:
    entry = next(entry for entry in entries() if entry.card.weights == "none")

    with pytest.raises(WeightsError, match="has no pretrained weights in timm"):
        TimmBackbone(entry).build(pretrained=True)


def test_build_names_a_model_or_tag_unknown_to_timm() -> None:
    entry = entry_of(MODEL)

    for unknown in ("resnet19", "test_resnet.of_tomorrow"):
        with pytest.raises(WeightsError, match=f"does not have the model '{unknown}'"):
            TimmBackbone(replace(entry, model=unknown)).build(pretrained=False)
