"""What comes with automl-tl keeps the same contract as anybody's. (`tl plugins check automl-tl` runs the training, too.)"""

from __future__ import annotations

import pytest

from automl_tl.plugin_host import InstalledEntry, discover, timeout
from automl_tl.testing import backbone_checks, checks_of_entry
from automl_tl.testing.learning import LEARNING_CHECKS

OURS = [entry for entry in discover(only_host=True).entries if entry.plugin.is_ours]
NO_TRAINING = {check.__name__: "tests/training carries these recipes out" for check in LEARNING_CHECKS}


@pytest.mark.parametrize(
    "entry", [entry for entry in OURS if entry.plugin.kind == "strategy"], ids=lambda entry: entry.plugin.name
)
def test_a_strategy_of_ours_answers_as_promised(entry: InstalledEntry) -> None:
    checks_of_entry(entry, waivers=NO_TRAINING).report().require()


def test_a_slow_machine_does_not_make_ours_disappear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeout, "ANSWER_LIMIT_S", 0.0)

    catalog = discover(only_host=True)

    assert catalog.problems == ()
    assert {name.partition("/")[0] for name in catalog.backbones} == {"lite", "timm", "torchvision"}


@pytest.mark.slow
def test_the_packaged_network_keeps_every_promise() -> None:
    backbone_checks("lite").report().require()
