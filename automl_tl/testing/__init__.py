"""The conformance kit: what every strategy and every backbone must keep, as named checks that authors run in their tests.

    import pytest
    from automl_tl.testing import BoundCheck, strategy_checks

    CHECKS = strategy_checks("my_strategy")

    @pytest.mark.parametrize("check", CHECKS, ids=str)
    def test_the_contract_is_kept(check: BoundCheck) -> None:
        check()

    def test_no_check_was_left_out() -> None:
        CHECKS.report().require()

``tl plugins check my-package`` runs the same. Importing this module loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from automl_tl.errors import PluginError
from automl_tl.plugin_host import InstalledEntry, discover
from automl_tl.testing.answers import ANSWER_CHECKS
from automl_tl.testing.battery import Battery, BoundCheck, Outcome, Report, bind, promise_of
from automl_tl.testing.cards import CARD_CHECKS
from automl_tl.testing.learning import LEARNING_CHECKS
from automl_tl.testing.networks import NETWORK_CHECKS
from automl_tl.testing.packages import PACKAGE_CHECKS
from automl_tl.testing.subjects import BackboneSubject, StrategySubject, find_entries
from automl_tl.testing.toy import ToyBackbone, toy_situation
from automl_tl.testing.verdicts import CheckFailed

__all__ = [
    "BACKBONE_CHECKS",
    "NUM_BACKBONE_CHECKS",
    "NUM_STRATEGY_CHECKS",
    "STRATEGY_CHECKS",
    "Battery",
    "BoundCheck",
    "CheckFailed",
    "Outcome",
    "Report",
    "ToyBackbone",
    "backbone_checks",
    "checks_of_entry",
    "find_entries",
    "promise_of",
    "strategy_checks",
    "toy_situation",
]

STRATEGY_CHECKS: Final = (*PACKAGE_CHECKS, *ANSWER_CHECKS, *LEARNING_CHECKS)
BACKBONE_CHECKS: Final = (*PACKAGE_CHECKS, *CARD_CHECKS, *NETWORK_CHECKS)

# Written down, not counted: a check that gets lost on the way makes every report bad.
NUM_STRATEGY_CHECKS: Final = 28
NUM_BACKBONE_CHECKS: Final = 30

NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


def strategy_checks(
    name: str,
    *,
    distribution: str | None = None,
    waivers: Mapping[str, str] = NOTHING,
    option_values: Mapping[str, Sequence[object]] = NOTHING,
) -> Battery:
    """Every check on the installed strategy called ``name``. Nothing runs before a check is called.

    Args:
        name: of its entry point.
        distribution: which of two plugins of the same name; default: the third-party one.
        waivers: check -> the reason why this strategy need not keep it.
        option_values: option -> values to try, where the kit can't invent one.

    Raises:
        PluginError: nothing of that name is installed.
        ValueError: a waiver names no check, or gives no reason.
    """
    catalog = discover()
    entry = _one(find_entries(name, "strategy", catalog), distribution)
    values = {option: tuple(given) for option, given in option_values.items()}
    subject = StrategySubject(entry, catalog, values)
    return Battery(_title(entry), bind(STRATEGY_CHECKS, subject, waivers), num_declared=NUM_STRATEGY_CHECKS)


def backbone_checks(name: str, *, distribution: str | None = None, waivers: Mapping[str, str] = NOTHING) -> Battery:
    """Every check on an installed backbone. Nothing runs before a check is called.

    Args:
        name: ``provider/model``, or ``provider`` for its cheapest backbone whose weights are on this machine.
        distribution: which of two plugins of the same name; default: the third-party one.
        waivers: check -> the reason why this backbone need not keep it.

    Raises:
        PluginError: nothing of that name is installed.
        ValueError: a waiver names no check, or gives no reason.
    """
    catalog = discover()
    entry = _one(find_entries(name, "backbones", catalog), distribution)
    subject = BackboneSubject(entry, catalog, name if "/" in name else None)
    return Battery(_title(entry), bind(BACKBONE_CHECKS, subject, waivers), num_declared=NUM_BACKBONE_CHECKS)


def checks_of_entry(entry: InstalledEntry, *, model: str | None = None, waivers: Mapping[str, str] = NOTHING) -> Battery:
    """The checks for whatever kind ``entry`` is of; of ``waivers`` those that are for this kind."""
    checks = STRATEGY_CHECKS if entry.plugin.kind == "strategy" else BACKBONE_CHECKS
    fitting = {check.__name__: waivers[check.__name__] for check in checks if check.__name__ in waivers}
    make = strategy_checks if entry.plugin.kind == "strategy" else backbone_checks
    return make(model or entry.plugin.name, distribution=entry.plugin.distribution, waivers=fitting)


def _one(entries: Sequence[InstalledEntry], distribution: str | None) -> InstalledEntry:
    wanted = [entry for entry in entries if distribution in (None, entry.plugin.distribution)]
    if not wanted:
        raise PluginError(f"{distribution} offers no {entries[0].plugin.name!r}.")
    return next((entry for entry in wanted if not entry.plugin.is_ours), wanted[0])


def _title(entry: InstalledEntry) -> str:
    return f"{entry.plugin.name} ({entry.plugin.distribution} {entry.plugin.version})"
