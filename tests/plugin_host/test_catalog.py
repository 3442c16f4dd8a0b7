"""Discovery from package metadata, lookup by name, name collisions, and disabled plugins."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from automl_tl.errors import PluginError, UnknownStrategyError
from automl_tl.plugin_host import discover
from automl_tl.plugin_host.discovery import disable
from tests.plugin_host.distributions import SOUND_STRATEGY, Package, install, strategy_source

LOUD_STRATEGY = strategy_source("loud", before="print('hello')")


def problem_of(name: str) -> str:
    return next(plugin.problem for plugin in discover().plugins if plugin.name == name) or ""


def test_strategies_include_a_third_party_one(site: Path) -> None:
    install(site, SOUND_STRATEGY)

    plugin = discover().strategies["sound"].plugin

    assert (plugin.distribution, plugin.version, plugin.entry_point) == ("tl-sound", "1.0", "tl_sound:Made")
    assert plugin.is_sound


def test_installed_imports_no_plugin(site: Path) -> None:
    install(site, SOUND_STRATEGY)

    names = [plugin.name for plugin in discover().installed]

    assert "sound" in names
    assert "tl_sound" not in sys.modules


def test_strategy_imports_its_plugin_alone(site: Path) -> None:
    install(site, SOUND_STRATEGY)
    install(site, Package("tl-other", strategy_source("other"), {"strategies.other": "Made"}))

    discover().strategy("sound")

    assert "tl_sound" in sys.modules
    assert "tl_other" not in sys.modules


def test_backbone_imports_its_provider_alone(site: Path) -> None:
    install(site, Package("tl-nets", "def backbones():\n    return []", {"backbones.nets": "backbones"}))

    card = discover().backbone("lite/efficientnet_lite0").card

    assert card.feature_dim == 1280
    assert "tl_nets" not in sys.modules


def test_discover_skips_two_third_party_plugins_with_one_name(site: Path) -> None:
    install(site, SOUND_STRATEGY)
    install(site, Package("tl-rival", strategy_source("sound"), {"strategies.sound": "Made"}))

    problems = {plugin.distribution: plugin.problem for plugin in discover().plugins if plugin.name == "sound"}

    assert "also used by tl-rival" in str(problems["tl-sound"])
    assert "also used by tl-sound" in str(problems["tl-rival"])


def test_discover_prefers_the_built_in_plugin_of_a_name(site: Path) -> None:
    install(site, Package("tl-thief", strategy_source("linear_probe"), {"strategies.linear_probe": "Made"}))

    catalog = discover()

    assert catalog.strategies["linear_probe"].plugin.distribution == "automl-tl"
    assert any("tl-thief" in problem and "automl-tl" in problem for problem in catalog.problems)


def test_discover_ignores_a_disabled_plugin_of_the_same_name(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, SOUND_STRATEGY)
    install(site, Package("tl-rival", strategy_source("sound"), {"strategies.sound": "Made"}))
    monkeypatch.setenv("TL_DISABLE_PLUGINS", "tl_rival")

    catalog = discover()

    assert catalog.strategies["sound"].plugin.distribution == "tl-sound"


@pytest.mark.parametrize("named", ["sound", "tl-sound", "TL_Sound", "other, sound", "*"])
def test_plugins_list_a_disabled_plugin_without_importing_it(site: Path, monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    install(site, SOUND_STRATEGY)
    monkeypatch.setenv("TL_DISABLE_PLUGINS", named)

    catalog = discover()

    assert "sound" not in catalog.strategies
    assert [plugin.disabled for plugin in catalog.plugins if plugin.name == "sound"] == [True]
    assert "tl_sound" not in sys.modules
    with pytest.raises(PluginError, match="is disabled by"):
        catalog.strategy("sound")


def test_disable_skips_all_third_party_plugins(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, SOUND_STRATEGY)
    monkeypatch.setenv("TL_DISABLE_PLUGINS", "")
    disable("*")

    assert {strategy.plugin.distribution for strategy in discover().strategies.values()} == {"automl-tl"}


def test_strategy_suggests_a_similar_name(site: Path) -> None:
    install(site, SOUND_STRATEGY)

    with pytest.raises(UnknownStrategyError, match="'sound'"):
        discover().strategy("suond")


def test_strategy_explains_why_a_plugin_is_skipped(site: Path) -> None:
    install(site, Package("tl-sad", "raise RuntimeError('no license key')", {"strategies.sad": "Made"}))

    with pytest.raises(PluginError, match=r"'sad' \(distribution tl-sad 1.0, entry point tl_sad:Made\).*no license key"):
        discover().strategy("sad")


def test_strategy_rejects_an_unknown_option(site: Path) -> None:
    install(site, Package("tl-picky", strategy_source("picky", options="depth: int = 3"), {"strategies.picky": "Made"}))

    with pytest.raises(PluginError, match=r"does not accept these options \(deepth: .*depth=3"):
        discover().strategy("picky", {"deepth": 2})


def test_strategy_replaces_default_options(site: Path) -> None:
    install(site, Package("tl-picky", strategy_source("picky", options="depth: int = 3"), {"strategies.picky": "Made"}))

    assert discover().strategy("picky", {"depth": 2}).options == {"depth": 2}


def test_strategy_redirects_prints_at_import_to_stderr(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(site, Package("tl-loud", LOUD_STRATEGY, {"strategies.loud": "Made"}))

    assert discover().strategy("loud")

    assert capsys.readouterr() == ("", "hello\n")


def test_discover_continues_after_an_unreadable_entry_points_file(site: Path) -> None:
    info = install(site, Package("tl-garbled", "", {"strategies.garbled": "Made"}))
    (info / "entry_points.txt").write_text("[automl_tl.strategies]\nno equals sign here\n")
    install(site, SOUND_STRATEGY)

    catalog = discover()

    assert "sound" in catalog.strategies
    assert "entry_points.txt can't be read" in problem_of("tl-garbled")


def test_discover_continues_after_a_broken_uninstall(site: Path) -> None:
    info = install(site, Package("tl-leftover", strategy_source("leftover"), {"strategies.leftover": "Made"}))
    (info / "METADATA").unlink()
    (install(site, Package("tl-bytes", "")) / "entry_points.txt").write_bytes(b"\xff\xfe automl_tl.strategies")
    install(site, SOUND_STRATEGY)

    assert "sound" in discover().strategies


def test_discover_accepts_a_package_for_several_contracts(site: Path) -> None:
    info = install(site, SOUND_STRATEGY)
    text = (info / "entry_points.txt").read_text()
    (info / "entry_points.txt").write_text(text.replace("version = v1", "version = v1\nalso = v2"))

    assert "sound" in discover().strategies


def test_discover_ignores_a_distribution_hidden_on_the_path(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = tmp_path / "below"
    below.mkdir()
    install(site, SOUND_STRATEGY)
    install(below, SOUND_STRATEGY)
    monkeypatch.setattr(sys, "path", [*sys.path, str(below)])

    assert "sound" in discover().strategies
