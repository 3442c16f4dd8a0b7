"""Built-in plugins keep the same contract as third-party ones. (`tl plugins check automl-tl` checks the training, too.)"""

from __future__ import annotations

import pytest

from automl_tl.plugin_host import discover
from automl_tl.testing import Check, checks_of, find_plugins, parametrize_with_checks

STRATEGIES = [plugin.name for plugin in discover(only_host=True).installed if plugin.kind == "strategy"]
TRAINING = ("check_learns_toy_task", "check_trained_blocks_change")  # tests/training covers these recipes


@pytest.mark.parametrize("name", STRATEGIES)
def test_strategy_keeps_contract(name: str) -> None:
    for check in (check for plugin in find_plugins(name) for check in checks_of(plugin)):
        if check.name not in TRAINING:
            check()


@parametrize_with_checks("lite", "tail")
def test_plugin_keeps_contract(check: Check) -> None:
    check()


def test_discover_loads_every_built_in_plugin() -> None:
    catalog = discover(only_host=True)

    assert catalog.problems == ()
    # keras/ needs its extra
    assert {name.partition("/")[0] for name in catalog.backbones} - {"keras"} == {"lite", "timm", "torchvision"}
