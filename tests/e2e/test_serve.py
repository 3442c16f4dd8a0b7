"""The real `tl serve`, with a fitted model and clients over loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from huggingface_hub import InferenceClient

pytest.importorskip("starlette")

from automl_tl.models import reference_predictions
from automl_tl_registry import Registry
from tests.e2e.conftest import Tl


@contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, and its URL."""
    command = [sys.executable, "-m", "automl_tl", "serve", *arguments, "--port", "0", "--json", "--no-access-log"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout is not None
        text = ""
        while not text.endswith("}\n") and (line := process.stdout.readline()):
            text += line
        try:
            yield process, json.loads(text)["url"]
        finally:
            process.kill()


def version_at(url: str) -> int:
    with urllib.request.urlopen(f"{url}/api/model", timeout=20) as answer:
        return int(json.load(answer)["version"])


def test_serve_answers_like_predict_follows_its_alias_and_stops_on_sigterm(tl: Tl, registry: Registry, colors: Path) -> None:
    image = colors / "red" / "000.png"
    (predicted,) = map(json.loads, tl("predict", "color-cards@1", image, "--json").out.splitlines())

    with started("color-cards@production") as (process, url):
        (first, _) = InferenceClient(model=url).image_classification(image)
        before = version_at(url)
        registry.promote("color-cards@2", "production", force=True, reason="test")
        assert process.stderr is not None
        log = json.loads(process.stderr.readline())
        after = version_at(url)
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)

    assert (first.label, before, after, process.returncode) == (predicted["label"], 1, 2, 0)
    assert first.score == pytest.approx(predicted["probability"], abs=1e-4)
    assert log["message"] == "color-cards@2 now answers for color-cards@production"


def test_serve_ends_if_reference_predictions_are_not_reproduced(
    tl: Tl, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference_predictions, "TOLERANCE", -1.0)

    ended = tl("serve", "color-cards", "--port", "0")

    assert (ended.code, ended.out) == (9, "")
    assert "does not reproduce the reference predictions" in ended.message


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["nothing@production"], 6, "no model named"),
        (["color-cards", "--host", "0.0.0.0"], 2, "add --token"),
        (["color-cards", "--token", "a b"], 2, "without spaces"),
        (["color-cards", "--host", "256.1.1.1", "--token", "x"], 10, "Cannot listen"),
    ],
)
def test_serve_explains_what_is_wrong_before_it_starts(
    tl: Tl, registry: Registry, arguments: list[str], code: int, text: str
) -> None:
    ended = tl("serve", *arguments, "--port", "0")

    assert (ended.code, ended.out) == (code, "")
    assert text in ended.message
