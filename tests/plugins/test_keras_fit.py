"""A fit on a Keras backbone with the user's weights, through the command line: registered, reloaded, exported."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import automl_tl
from automl_tl.cli.app import app
from automl_tl.errors import PluginError
from automl_tl.plugin_host import Catalog, PluginEntry
from tests.fakes import write_colors
from tests.plugin_host.distributions import Package, importable, install
from tests.plugins.keras_networks import SMALLEST, Untyped, keras_model, needs_keras

KERAS = PluginEntry(
    kind="backbones", name="keras", distribution="automl-tl", version="0", entry_point="automl_tl_keras:backbones"
)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The provider as an installed plugin, for child processes as well."""
    site = tmp_path / "site"
    site.mkdir()
    with importable(site, monkeypatch):
        monkeypatch.setenv("PYTHONPATH", str(site), prepend=":")
        install(site, Package("tl-keras", "from automl_tl_keras import backbones", {"backbones.keras": "backbones"}))
        yield


@needs_keras
@pytest.mark.integration
@pytest.mark.filterwarnings("ignore:__array__ implementation")  # when keras saves
@pytest.mark.usefixtures("installed")
def test_fit_with_the_users_weights_is_registered_reloaded_and_exported(tmp_path: Path) -> None:
    images = write_colors(tmp_path / "colors", 12)
    weights = tmp_path / "own.weights.h5"
    keras_model(SMALLEST, 224).save_weights(weights)
    backbone = ["--backbone", f"keras/{SMALLEST}", "--weights", str(weights)]

    fit = run("auto", "fit", str(images), *backbone, "--strategy", "linear_probe", "--json")
    shown = run("registry", "show", "colors@1", "--json")
    (prediction,) = automl_tl.load("colors").predict([images / "red" / "000.png"])
    run("export", "colors", "--format", "onnx", "--out", str(tmp_path / "exported"), "--json")

    assert fit["model"] == "colors@1"
    assert shown["facts"]["lineage"]["weights_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert prediction.label == "red"


def run(*arguments: str) -> Untyped:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_provider_without_keras_is_listed_with_the_command_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "keras", None)
    catalog = Catalog([KERAS])

    (plugin,) = catalog.plugins

    assert plugin.needs == "needs keras, which is not installed: pip install 'automl-tl[keras]'"
    assert catalog.problems == ()
    assert dict(catalog.backbones) == {}
    with pytest.raises(PluginError, match=r"'keras' \(automl-tl\) needs keras, which is not installed: pip install"):
        catalog.backbone("keras/vgg16")
