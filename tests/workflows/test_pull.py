"""``tl backbones pull`` and what ``tl doctor`` says about downloads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from automl_tl.cli.app import app
from automl_tl.errors import UnknownBackboneError
from automl_tl.plugin_host import discover
from automl_tl.workflows.doctor import _downloads
from tests.loopback_hub import Hub, open_hub
from tests.plugin_host.test_downloads import point_at

NAME = "timm/convnext_nano.in12k_ft_in1k"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that serves one of the recommended backbones."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with open_hub() as hub:
        point_at(hub.endpoint, tmp_path / "hub", monkeypatch)
        hub.weights[NAME] = b"weights"
        yield hub


def test_pull_brings_the_weights_here_and_tells_their_origin(hub: Hub) -> None:
    result = CliRunner().invoke(app, ["backbones", "pull", NAME])

    assert result.exit_code == 0
    assert NAME in result.stdout
    assert hashlib.sha256(b"weights").hexdigest()[:12] in result.stdout
    assert discover().backbone(NAME).card.weights == "cached"
    assert "1 of 6 on this machine" in _downloads(discover()).detail


def test_pull_asks_for_nothing_if_one_name_is_unknown(hub: Hub) -> None:
    result = CliRunner().invoke(app, ["backbones", "pull", NAME, "timm/convnext_nan"])

    assert isinstance(result.exception, UnknownBackboneError)
    assert not hub.requests


def test_pull_says_what_is_wrong_with_a_damaged_file(hub: Hub) -> None:
    hub.faults[NAME] = "damaged"

    result = CliRunner().invoke(app, ["backbones", "pull", NAME])

    assert "the file is damaged: sha256 is" in str(result.exception)
    assert discover().backbone(NAME).card.weights == "download"


def test_doctor_says_where_recommended_backbones_come_from(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    online = _downloads(discover())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    offline = _downloads(discover())

    assert online.status == offline.status == "missing"
    assert f"0 of 6 on this machine; `--download` asks {hub.endpoint}" in online.detail
    assert "downloads are off (HF_HUB_OFFLINE)" in offline.detail
    assert not hub.requests
