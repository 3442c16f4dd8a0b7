"""Broken plugins: the host continues and names plugin and cause, and the contract check for the fault fails."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import SkipTest

import pytest
from typer.testing import CliRunner

from automl_tl.cli.app import app
from automl_tl.contracts import Situation
from automl_tl.errors import PluginFailedError
from automl_tl.plugin_host import discover
from automl_tl.testing import checks_of, find_plugins
from tests.plugin_host.broken import BROKEN, Broken
from tests.plugin_host.distributions import SOUND_STRATEGY, install

SITUATION = Situation(num_images=100, num_classes=5, min_images_per_class=20, num_blocks=5, feature_dim=64, image_side_px=32)
SLOW_CHECKS = (
    "check_import_is_light",
    "check_answers_are_deterministic",
    "check_learns_toy_task",
    "check_trained_blocks_change",
)

every_broken = pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)


@pytest.fixture
def all_installed(site: Path) -> Path:
    """All broken plugins at once, and a sound one."""
    install(site, SOUND_STRATEGY)
    for broken in BROKEN:
        install(site, broken.package)
    return site


@every_broken
def test_checks_find_the_fault(site: Path, broken: Broken) -> None:
    install(site, broken.package)

    failures = {}
    for check in (check for plugin in find_plugins(broken.package.name) for check in checks_of(plugin)):
        try:
            if check.name not in SLOW_CHECKS or check.name in broken.failures:
                check()
        except SkipTest:
            continue
        except Exception as error:
            failures[check.name] = str(error)

    assert {check: words for check, words in broken.failures.items() if words not in failures.get(check, "")} == {}
    assert broken.has_other_failures or set(failures) == set(broken.failures)


@every_broken
def test_discover_states_the_problem(site: Path, broken: Broken) -> None:
    install(site, broken.package)

    plugin = next(plugin for plugin in discover().plugins if plugin.distribution == broken.package.name)

    assert (broken.problem or "") in (plugin.problem or "")
    assert (plugin.problem is None) == (broken.problem is None)
    assert (broken.note or "") in "; ".join(plugin.notes)


@pytest.mark.parametrize("broken", [broken for broken in BROKEN if broken.refusal], ids=lambda broken: broken.name)
def test_expect_reports_a_failure_as_unsuitable(site: Path, broken: Broken) -> None:
    install(site, broken.package)

    expected = discover().strategy(broken.name).expect(SITUATION)

    assert not expected.suits
    assert f"The plugin {broken.name!r} (distribution {broken.package.name} 1.0" in expected.why
    assert str(broken.refusal) in expected.why


def test_catalog_lists_sound_plugins_beside_broken_ones(all_installed: Path) -> None:
    catalog = discover()

    suited = {name for name, strategy in catalog.strategies.items() if strategy.expect(SITUATION).suits}

    assert {"sound", "linear_probe"} <= suited
    assert "lite/efficientnet_lite0" in catalog.backbones


def test_plugins_list_shows_broken_plugins(all_installed: Path) -> None:
    listed = CliRunner().invoke(app, ["plugins", "list", "--json"])

    rows = json.loads(listed.stdout)
    assert {row["distribution"] for row in rows if row["problem"]} == {b.package.name for b in BROKEN if b.problem}


def test_recipe_error_names_the_plugin(site: Path) -> None:
    broken = next(broken for broken in BROKEN if broken.name == "raises_at_recipe")
    install(site, broken.package)

    with pytest.raises(PluginFailedError, match=r"'raises_at_recipe' .* failed while writing its recipe: KeyError: 'layers'"):
        discover().strategy("raises_at_recipe").recipe(SITUATION)


def test_cut_error_names_the_plugin(site: Path) -> None:
    broken = next(broken for broken in BROKEN if broken.name == "no_modules")
    install(site, broken.package)
    backbone = discover().backbone("no_modules/net")

    with pytest.raises(PluginFailedError, match="cutting no_modules/net into blocks: TypeError"):
        backbone.cut(backbone.build(pretrained=False))
