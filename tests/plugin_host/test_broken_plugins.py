"""Whatever a plugin does wrong, the host goes on and says who and why; the kit fails it, for that reason and no other."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from automl_tl.cli.app import app
from automl_tl.contracts import Situation
from automl_tl.errors import PluginFailedError
from automl_tl.plugin_host import discover, timeout
from automl_tl.testing import Report, backbone_checks, strategy_checks
from automl_tl.testing.learning import LEARNING_CHECKS
from tests.plugin_host.broken import BROKEN, Broken
from tests.plugin_host.distributions import SOUND_STRATEGY, Package, install

SITUATION = Situation(num_images=100, num_classes=5, min_images_per_class=20, num_blocks=5, feature_dim=64, image_side_px=32)
NO_TRAINING = {check.__name__: "nothing of interest is trained in this test" for check in LEARNING_CHECKS}

every_broken = pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)


@pytest.fixture(autouse=True)
def little_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeout, "ANSWER_LIMIT_S", 0.3)


@pytest.fixture
def crowd(site: Path) -> Path:
    """All of them at once, and one that is sound."""
    install(site, SOUND_STRATEGY)
    for broken in BROKEN:
        install(site, broken.package)
    return site


def report_on(broken: Broken) -> Report:
    if broken.kind == "backbones":
        return backbone_checks(broken.name).report()
    return strategy_checks(broken.name, waivers={} if broken.wants_training else NO_TRAINING).report()


@every_broken
def test_the_kit_fails_it_for_the_right_reason(site: Path, broken: Broken) -> None:
    install(site, broken.package)

    report = report_on(broken)

    failed = {outcome.check: outcome.why for outcome in report.only("failed")}
    assert set(failed) == set(broken.fails)
    assert [check for check, words in broken.fails.items() if words not in failed[check]] == []
    assert bool(report.only("not_run")) == broken.unreachable
    assert not report.is_good


@every_broken
def test_the_list_names_it_with_its_cause(site: Path, broken: Broken) -> None:
    install(site, broken.package)

    plugin = next(plugin for plugin in discover().plugins if plugin.distribution == broken.package.name)

    assert (broken.problem or "") in (plugin.problem or "")
    assert (plugin.problem is None) == (broken.problem is None)
    assert (broken.note or "") in "; ".join(plugin.notes)


@pytest.mark.parametrize("broken", [each for each in BROKEN if each.refusal], ids=lambda broken: broken.name)
def test_the_planner_hears_that_it_does_not_suit(site: Path, broken: Broken) -> None:
    install(site, broken.package)

    expected = discover().strategy(broken.name).expect(SITUATION)

    assert not expected.suits
    assert f"The plugin {broken.name!r} (distribution {broken.package.name} 1.0" in expected.why
    assert str(broken.refusal) in expected.why


def test_with_all_of_them_installed_the_sound_ones_work(crowd: Path) -> None:
    catalog = discover()

    suited = {name for name, strategy in catalog.strategies.items() if strategy.expect(SITUATION).suits}

    assert {"sound", "linear_probe"} <= suited
    assert "lite/efficientnet_lite0" in catalog.backbones


def test_with_all_of_them_installed_the_list_is_shown(crowd: Path) -> None:
    listed = CliRunner().invoke(app, ["plugins", "list", "--json"])

    rows = json.loads(listed.stdout)
    assert {row["distribution"] for row in rows if row["problem"]} == {b.package.name for b in BROKEN if b.problem}


def test_one_that_hangs_is_waited_for_once(site: Path) -> None:
    broken = next(each for each in BROKEN if each.name == "sleeps")
    install(site, broken.package)
    strategy = discover().strategy("sleeps")
    strategy.expect(SITUATION)

    started_s = time.perf_counter()
    again = strategy.expect(SITUATION)

    assert time.perf_counter() - started_s < 0.1
    assert "it is not asked again" in again.why


def test_an_import_that_hangs_is_given_up(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("automl_tl.plugin_host.catalog.IMPORT_LIMIT_S", 0.3)
    install(site, Package("tl-hangs", "import time; time.sleep(3600)", {"strategies.hangs": "Made"}))

    problems = discover().problems

    assert any("tl-hangs" in problem and "no answer within 0.3 s" in problem for problem in problems)


def test_a_pinned_strategy_that_fails_is_an_error_with_its_name(site: Path) -> None:
    broken = next(each for each in BROKEN if each.name == "raises_at_recipe")
    install(site, broken.package)

    with pytest.raises(PluginFailedError, match=r"'raises_at_recipe' .* failed while writing its recipe: KeyError: 'layers'"):
        discover().strategy("raises_at_recipe").recipe(SITUATION)


def test_a_backbone_that_fails_to_build_is_an_error_with_its_name(site: Path) -> None:
    broken = next(each for each in BROKEN if each.name == "no_modules")
    install(site, broken.package)
    backbone = discover().backbone("no_modules/net")

    with pytest.raises(PluginFailedError, match="cutting no_modules/net into blocks: TypeError"):
        backbone.cut(backbone.build(pretrained=False))
