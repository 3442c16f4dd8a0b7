"""Downloads from a loopback hub: complete, resumed, broken in every way that a user meets."""

from __future__ import annotations

import hashlib
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import NoReturn

import pytest

from automl_tl.errors import UnavailableWeightsError
from automl_tl.plugin_host.downloads import download, is_reachable, is_unreachable, local_file, pretrained_weights
from automl_tl.values import BackboneCard, Preprocessing
from tests.loopback_hub import COMMIT, Hub, open_hub
from tests.plugins.weight_server import REFUSED

REPOSITORY = "timm/net.a1"
CONTENT = bytes(range(256)) * 3000
CARD = BackboneCard(
    name="timm/net.a1", family="net", preprocessing=Preprocessing(side_px=32), feature_dim=8, license="MIT",
    weights="download", weights_mib=0.7, hub=REPOSITORY, hub_files=("model.safetensors", "pytorch_model.bin"),
)  # fmt: skip


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with open_hub() as hub:
        point_at(hub.endpoint, tmp_path, monkeypatch)
        hub.weights[REPOSITORY] = CONTENT
        yield hub


def point_at(endpoint: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what huggingface_hub reads from the environment when it is imported."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 1.0)


def partial(cache: Path) -> Path:
    return cache / "models--timm--net.a1" / "blobs" / f"{hashlib.sha256(CONTENT).hexdigest()}.partial"


def test_download_puts_the_file_where_the_hub_client_finds_it(hub: Hub) -> None:
    file = download(CARD)
    again = download(CARD)

    assert file.read_bytes() == CONTENT
    assert local_file(CARD) == file == again
    assert [method for method, _, _ in hub.requests] == ["HEAD", "GET"]


def test_pretrained_weights_state_digest_commit_and_license(hub: Hub) -> None:
    assert pretrained_weights(CARD).sha256 is None
    download(CARD)

    weights = pretrained_weights(CARD)

    assert weights.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert (weights.repository, weights.commit, weights.license) == (REPOSITORY, COMMIT, "MIT")


def test_download_goes_on_after_a_cut_connection(hub: Hub) -> None:
    hub.faults[REPOSITORY] = "cut once"

    assert download(CARD).read_bytes() == CONTENT
    assert [asked for method, _, asked in hub.requests if method == "GET"] == ["bytes=0-", f"bytes={len(CONTENT) // 3}-"]


def test_download_resumes_the_partial_file_of_an_earlier_attempt(hub: Hub, tmp_path: Path) -> None:
    partial(tmp_path).parent.mkdir(parents=True)
    partial(tmp_path).write_bytes(CONTENT[:1234])

    assert download(CARD).read_bytes() == CONTENT
    assert hub.requests[-1][2] == "bytes=1234-"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("404", "404"), ("401", "GatedRepoError"), ("500", "500"), ("short", "expected 768,000"), ("damaged", "sha256 is")],
)
def test_download_names_what_is_wrong_and_leaves_nothing(hub: Hub, tmp_path: Path, fault: str, reason: str) -> None:
    hub.faults[REPOSITORY] = fault

    with pytest.raises(UnavailableWeightsError, match=reason) as caught:
        download(CARD)

    assert str(caught.value).count("\n") == 0
    assert not is_unreachable(caught.value)
    assert local_file(CARD) is None
    assert not partial(tmp_path).exists()


def test_download_stops_at_its_time_limit_and_keeps_what_it_has(hub: Hub, tmp_path: Path) -> None:
    hub.faults[REPOSITORY] = "slow"

    with pytest.raises(UnavailableWeightsError, match="is too slow"):
        download(CARD, limit_s=0.3)

    hub.faults.clear()
    assert 0 < partial(tmp_path).stat().st_size < len(CONTENT)
    assert download(CARD).read_bytes() == CONTENT


def test_download_refuses_a_full_disk_before_it_asks_for_bytes(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))

    with pytest.raises(UnavailableWeightsError, match=r"no space left: 0\.8 MB needed, 0\.0 MB free") as caught:
        download(CARD)

    assert not is_unreachable(caught.value)
    assert [method for method, _, _ in hub.requests] == ["HEAD"]


def test_download_without_network_is_recognized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at(REFUSED, tmp_path, monkeypatch)

    with pytest.raises(UnavailableWeightsError) as caught:
        download(CARD)

    assert is_unreachable(caught.value)


@pytest.mark.parametrize("variable", ["", "http_proxy"])
def test_is_reachable_connects_to_the_hub_or_its_proxy_and_sends_nothing(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    if variable:
        point_at("http://hub.invalid", tmp_path, monkeypatch)
        monkeypatch.setenv(variable, hub.endpoint.removeprefix("http://"))

    assert is_reachable(5.0)
    assert not hub.requests


def test_is_reachable_does_not_wait_for_a_lookup_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = Event()

    def hang(*_: object, **__: object) -> NoReturn:
        ended.wait(60)
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", hang)

    assert not is_reachable(0.01)
    ended.set()


def test_download_asks_nothing_in_offline_mode(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    with pytest.raises(UnavailableWeightsError, match="Offline"):
        download(CARD)

    assert not hub.requests
