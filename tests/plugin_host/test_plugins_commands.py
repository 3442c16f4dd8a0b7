"""``tl plugins``: what is written to stdout, what the exit codes are."""

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
from automl_tl.errors import PluginError
from automl_tl.testing.answers import ANSWER_CHECKS
from automl_tl.testing.learning import LEARNING_CHECKS
from tests.plugin_host.distributions import SOUND_STRATEGY, Package, install, strategy_source

QUICK = [f"--waive={check.__name__}=not looked at in this test" for check in (*LEARNING_CHECKS, *ANSWER_CHECKS[-5:])]


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
LOOK = """
import sys
from automl_tl.cli import main
sys.argv = ["tl", "plugins", *sys.argv[1:]]
try:
    main()
finally:
    print("torch" in sys.modules)
"""


def tl(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_list_shows_strangers_and_ours(site: Path) -> None:
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
def test_the_lists_import_no_torch(site: Path, listing: str, shown: str) -> None:
    install(site, SOUND_STRATEGY)
    done = subprocess.run(
        [sys.executable, "-c", LOOK, listing],
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.splitlines()[-1] == "False", done.stderr
    assert shown in done.stdout


def test_backbones_are_listed_by_their_cards_and_never_built(site: Path) -> None:
    install(site, UNBUILDABLE)

    listed = tl("plugins", "backbones", "far/")
    cards = json.loads(tl("plugins", "backbones", "far/", "--json").stdout)

    assert re.split(r" {2,}", listed.stdout.splitlines()[1]) == ["far/net", "MIT", "1.2 M", "70.5%", "to download, 5 MiB"]
    assert [(card["name"], card["license"], card["imagenet_top1"]) for card in cards] == [("far/net", "MIT", 0.705)]
    assert cards[0]["distribution"] == "tl-far"


def test_backbones_whose_weights_are_here_are_listed_on_request(site: Path) -> None:
    install(site, UNBUILDABLE)

    cards = json.loads(tl("plugins", "backbones", "--local", "--json").stdout)

    assert {"lite/efficientnet_lite0"} <= {card["name"] for card in cards}
    assert {card["weights"] for card in cards} <= {"package", "cached"}


def test_the_list_remarks_on_a_misspelt_name_in_the_variable(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, SOUND_STRATEGY)
    monkeypatch.setenv("TL_DISABLE_PLUGINS", "suond,tl_sound")

    listed = tl("plugins", "list")

    assert "TL_DISABLE_PLUGINS names plugins that are not installed: suond" in " ".join(listed.stderr.split())
    assert "disabled by TL_DISABLE_PLUGINS" in listed.stdout


def test_no_plugins_leaves_all_strangers_out(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, SOUND_STRATEGY)
    monkeypatch.setenv("TL_DISABLE_PLUGINS", "")

    rows = json.loads(tl("--no-plugins", "plugins", "list", "--json").stdout)

    assert {row["distribution"] for row in rows if not row["switched_off"]} == {"automl-tl"}


def test_a_sound_plugin_passes_with_exit_code_0(site: Path) -> None:
    install(site, SOUND_STRATEGY)

    done = tl("plugins", "check", "tl-sound", *QUICK)

    assert done.exit_code == 0
    assert "  ok      recipe_is_valid_for_every_depth\n" in done.stdout
    assert "sound (tl-sound 1.0): ran 16 of 28; 12 waived: " in done.stdout
    assert "because not looked at in this test" in done.stdout


def test_a_broken_plugin_fails_with_exit_code_5_and_its_cause_as_json(site: Path) -> None:
    install(site, Package("tl-sad", strategy_source("sad", recipe="raise KeyError('layers')"), {"strategies.sad": "Made"}))

    done = tl("plugins", "check", "sad", "--json", *QUICK)

    (report,) = json.loads(done.stdout)
    failed = {outcome["check"]: outcome["why"] for outcome in report["outcomes"] if outcome["state"] == "failed"}
    assert done.exit_code == 5
    assert not report["is_good"]
    assert "KeyError: 'layers'" in failed["recipe_is_valid_for_every_depth"]


def test_all_that_a_distribution_offers_is_checked(site: Path) -> None:
    source = strategy_source("one") + strategy_source("two").replace("class Made", "class Other")
    install(site, Package("tl-pair", source, {"strategies.one": "Made", "strategies.two": "Other"}))

    done = tl("plugins", "check", "tl-pair", "--json", *QUICK)

    assert [report["subject"] for report in json.loads(done.stdout)] == ["one (tl-pair 1.0)", "two (tl-pair 1.0)"]


def test_what_is_not_installed_is_an_error_with_a_near_name(site: Path) -> None:
    install(site, SOUND_STRATEGY)

    with pytest.raises(PluginError, match=r"'tl-sounds'\. Did you mean 'tl-sound'\?"):
        CliRunner().invoke(app, ["plugins", "check", "tl-sounds"], catch_exceptions=False)


@pytest.mark.parametrize("waiver", ["loads", "loads=", "no_such_check=because it is not there"])
def test_a_waiver_without_check_or_reason_is_wrong_usage(site: Path, waiver: str) -> None:
    install(site, SOUND_STRATEGY)

    assert tl("plugins", "check", "sound", "--waive", waiver).exit_code == 2


def test_new_writes_a_package_and_says_what(site: Path, tmp_path: Path) -> None:
    done = tl("plugins", "new", "strategy", "brave", "--into", tmp_path, "--json")

    said = json.loads(done.stdout)
    assert said["folder"] == str(tmp_path / "automl-tl-brave")
    assert all((tmp_path / "automl-tl-brave" / file).is_file() for file in said["files"])
    assert "src/automl_tl_brave/__init__.py" in said["files"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Brave-One", "lower-case letters"),
        ("class", "Python or the contract uses this word"),
        ("strategy", "Python or the contract uses this word"),
        ("linear_probe", "automl-tl is installed and has this name"),
        ("lite", "automl-tl is installed and has this name"),
        ("x" * 31, "longer than 30 characters"),
    ],
)
def test_new_refuses_a_name_that_can_not_be_one(site: Path, tmp_path: Path, name: str, reason: str) -> None:
    arguments = ["plugins", "new", "strategy", name, "--into", str(tmp_path / "new")]

    with pytest.raises(PluginError, match=reason):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert not (tmp_path / "new").exists()


def test_new_never_overwrites(site: Path, tmp_path: Path) -> None:
    tl("plugins", "new", "backbone", "brave", "--into", tmp_path)

    with pytest.raises(PluginError, match="is there already"):
        CliRunner().invoke(app, ["plugins", "new", "strategy", "brave", "--into", str(tmp_path)], catch_exceptions=False)
