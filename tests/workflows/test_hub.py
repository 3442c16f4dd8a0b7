"""Pushing to the Hugging Face Hub, here a loopback server that speaks the endpoints of an upload."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from automl_tl.errors import ModelError
from automl_tl.workflows.hub import push_to_hub
from tests.fakes import write_colors
from tests.loopback_hub import Hub, open_hub


@pytest.fixture
def hub() -> Iterator[Hub]:
    with open_hub() as hub:
        yield hub


@pytest.mark.integration
def test_push_uploads_the_folder_that_timm_loads(hub: Hub, tmp_path: Path) -> None:
    images = write_colors(tmp_path / "images", 20)
    environment = {**os.environ, "TL_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": "hf_loopback"}

    def tl(*arguments: str) -> str:
        command = [sys.executable, "-m", "automl_tl", *arguments]
        ended = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, timeout=300, check=False)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    network = ("--backbone", "lite/efficientnet_lite0:levels", "--strategy", "linear_probe")
    tl("auto", "fit", str(images), "--name", "flowers", *network)
    printed = tl("registry", "push", "flowers", "hf://team/flowers")

    assert {"config.json", "model.safetensors", "README.md", "predict.py"} <= set(hub.files)
    assert json.loads(hub.files["config.json"])["label_names"] == ["green", "red"]
    assert "The linear layer was distilled" in hub.files["README.md"].decode()
    assert hub.tokens == {"Bearer hf_loopback"}
    assert f"{hub.endpoint}/team/flowers" in printed


@pytest.mark.parametrize("url", ["hf://", "hf://flowers", "hf://team/flowers/main"])
def test_push_refuses_what_is_no_repository(url: str) -> None:
    with pytest.raises(ModelError, match="hf://USER/REPOSITORY"):
        push_to_hub("flowers", url)
