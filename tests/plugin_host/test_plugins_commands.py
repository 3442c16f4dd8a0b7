"""``tl plugins``: output and exit codes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from automl_tl.cli.app import app
from automl_tl.cli.render import log_on_stderr
from automl_tl.errors import PluginError
from tests.plugin_host.distributions import SOUND_STRATEGY, Package, install, strategy_source

UNBUILDABLE = Package(
    "tl-far",
    """
class Net(Backbone):
    @property
    def card(self):
        return BackboneCard(
            name="far/net", family="net", preprocessing=Preprocessing(side_px=32), feature_dim=8, num_parameters=1_234_567,
            imagenet_top1=0.705, license="MIT", weights="download", weights_mib=4.9,
        )

    def build(self, *, pretrained):
        raise AssertionError("a list builds nothing")

    def cut(self, network):
        raise AssertionError("a list builds nothing")

def backbones():
    return [Net()]
""",
    {"backbones.far": "backbones"},
)
TORCH_SCRIPT = """
import sys
from automl_tl.cli import main
sys.argv = ["tl", "plugins", *sys.argv[1:]]
try:
    main()
finally:
    print("torch" in sys.modules)
"""


def tl(*arguments: str | Path) -> Result:
    with log_on_stderr():
        return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_list_shows_all_plugins(site: Path) -> None:
    install(site, SOUND_STRATEGY)

    listed = tl("plugins", "list")

    assert listed.exit_code == 0
    assert "made for a test" in listed.stdout
    assert "tl-sound 1.0" in listed.stdout
    assert "3 backbones" in listed.stdout


def test_help_imports_no_plugin(site: Path) -> None:
    install(site, SOUND_STRATEGY)

    assert tl("--help").exit_code == 0

    assert "tl_sound" not in sys.modules


@pytest.mark.parametrize(("listing", "shown"), [("list", "tl-sound 1.0"), ("backbones", "lite/efficientnet_lite0")])
def test_lists_import_no_torch(site: Path, listing: str, shown: str) -> None:
    install(site, SOUND_STRATEGY)
    done = subprocess.run(
        [sys.executable, "-c", TORCH_SCRIPT, listing],
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.splitlines()[-1] == "False", done.stderr
    assert shown in done.stdout


def test_backbones_reads_cards_only(site: Path) -> None:
    install(site, UNBUILDABLE)

    listed = tl("plugins", "backbones", "far/")
    cards = json.loads(tl("plugins", "backbones", "far/", "--json").stdout)

    assert re.split(r" {2,}", listed.stdout.splitlines()[1]) == ["far/net", "MIT", "1.2 M", "70.5%", "to download, 5 MiB"]
    assert [(card["name"], card["license"], card["imagenet_top1"]) for card in cards] == [("far/net", "MIT", 0.705)]
    assert cards[0]["distribution"] == "tl-far"


def test_backbones_local_lists_local_weights_only(site: Path) -> None:
    install(site, UNBUILDABLE)

    cards = json.loads(tl("plugins", "backbones", "--local", "--json").stdout)

    assert {"lite/efficientnet_lite0"} <= {card["name"] for card in cards}
    assert {card["weights"] for card in cards} <= {"package", "cached"}


def test_list_warns_of_unknown_disabled_names(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, SOUND_STRATEGY)
    monkeypatch.setenv("TL_DISABLE_PLUGINS", "suond,tl_sound")

    listed = tl("plugins", "list")

    assert "TL_DISABLE_PLUGINS names plugins that are not installed: suond" in " ".join(listed.stderr.split())
    assert "disabled by TL_DISABLE_PLUGINS" in listed.stdout


def test_no_plugins_disables_third_party_plugins(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, SOUND_STRATEGY)
    monkeypatch.setenv("TL_DISABLE_PLUGINS", "")

    rows = json.loads(tl("--no-plugins", "plugins", "list", "--json").stdout)

    assert {row["distribution"] for row in rows if not row["disabled"]} == {"automl-tl"}


def test_check_passes_a_sound_plugin_in_a_folder_with_tests(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(site, SOUND_STRATEGY)
    (tmp_path / "conftest.py").write_text("raise AssertionError")
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option")
    monkeypatch.setenv("PYTEST_ADDOPTS", "--color=yes")
    monkeypatch.chdir(tmp_path)

    process = tl("plugins", "check", "tl-sound")

    assert process.exit_code == 0
    assert "sound (tl-sound 1.0)\n" in process.stdout
    assert "  ok      check_recipe\n" in process.stdout
    assert process.stdout.endswith("11 passed\n")


def test_check_fails_a_broken_plugin_with_exit_code_5(site: Path) -> None:
    install(site, Package("tl-sad", strategy_source("sad", recipe="raise KeyError('layers')"), {"strategies.sad": "Made"}))

    process = tl("plugins", "check", "sad", "--json")

    (report,) = json.loads(process.stdout)
    reasons = {check["check"]: check["reason"] for check in report["checks"] if check["outcome"] == "failed"}
    assert process.exit_code == 5
    assert not report["passed"]
    assert "KeyError: 'layers'" in reasons["check_recipe"]


def test_check_skips_further_checks_of_a_plugin_that_does_not_load(site: Path) -> None:
    install(site, Package("tl-sad", "raise RuntimeError('no license key')", {"strategies.sad": "Made"}))

    process = tl("plugins", "check", "sad")

    assert process.exit_code == 5
    assert "  FAILED  check_loads: tl_sad:Made: RuntimeError: no license key\n" in process.stdout
    assert "  skipped check_recipe: see check_loads\n" in process.stdout
    assert process.stdout.endswith("1 failed, 10 skipped\n")


def test_check_runs_on_every_plugin_of_a_distribution(site: Path) -> None:
    broken = {"strategies.one": "Made", "strategies.two": "Made"}
    install(site, Package("tl-pair", "raise RuntimeError('no license key')", broken))

    process = tl("plugins", "check", "tl-pair", "--json")

    assert [report["plugin"] for report in json.loads(process.stdout)] == ["one (tl-pair 1.0)", "two (tl-pair 1.0)"]


def test_check_suggests_a_similar_name(site: Path) -> None:
    install(site, SOUND_STRATEGY)

    with pytest.raises(PluginError, match=r"'tl-sounds'\. Did you mean 'tl-sound'\?"):
        CliRunner().invoke(app, ["plugins", "check", "tl-sounds"], catch_exceptions=False)


def test_new_writes_a_package_and_lists_its_files(site: Path, tmp_path: Path) -> None:
    done = tl("plugins", "new", "strategy", "brave", "--into", tmp_path, "--json")

    output = json.loads(done.stdout)
    assert output["folder"] == str(tmp_path / "automl-tl-brave")
    assert all((tmp_path / "automl-tl-brave" / file).is_file() for file in output["files"])
    assert "src/automl_tl_brave/__init__.py" in output["files"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Brave-One", "lower-case letters"),
        ("class", "keyword of Python or a name of the contract"),
        ("strategy", "keyword of Python or a name of the contract"),
        ("linear_probe", "automl-tl is installed and has this name"),
        ("lite", "automl-tl is installed and has this name"),
        ("x" * 31, "longer than 30 characters"),
    ],
)
def test_new_rejects_invalid_names(site: Path, tmp_path: Path, name: str, reason: str) -> None:
    arguments = ["plugins", "new", "strategy", name, "--into", str(tmp_path / "new")]

    with pytest.raises(PluginError, match=reason):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert not (tmp_path / "new").exists()


def test_new_never_overwrites(site: Path, tmp_path: Path) -> None:
    tl("plugins", "new", "backbone", "brave", "--into", tmp_path)

    with pytest.raises(PluginError, match="already exists"):
        CliRunner().invoke(app, ["plugins", "new", "strategy", "brave", "--into", str(tmp_path)], catch_exceptions=False)
