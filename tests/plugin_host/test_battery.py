"""A battery says what ran, what did not and why, and can't look green while checks are missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn
from unittest import SkipTest

import pytest

from automl_tl.testing import BACKBONE_CHECKS, NUM_BACKBONE_CHECKS, NUM_STRATEGY_CHECKS, STRATEGY_CHECKS, Battery, CheckFailed
from automl_tl.testing.battery import bind, promise_of
from automl_tl.testing.verdicts import NotApplicable, Unreachable

Check = Callable[[list[str]], None]


def holds(calls: list[str]) -> None:
    """It holds."""
    calls.append("holds")


def breaks(calls: list[str]) -> None:
    """It breaks."""
    raise CheckFailed("found 1, expected 2")


def needs_a_gpu(calls: list[str]) -> None:
    """It needs a GPU."""
    raise NotApplicable("this machine has none")


def follows(calls: list[str]) -> None:
    """It can't start."""
    raise Unreachable("breaks", "it broke")


def skips(calls: list[str]) -> NoReturn:
    """It raises what pytest takes for a skip."""
    pytest.skip("nothing to see here")


def battery(*checks: Check, num_declared: int | None = None, waivers: Mapping[str, str] | None = None) -> Battery:
    bound = bind(checks, [], waivers or {})
    return Battery("a plugin", bound, num_declared=len(checks) if num_declared is None else num_declared)


def test_the_kit_declares_as_many_checks_as_it_has() -> None:
    assert (len(STRATEGY_CHECKS), len(BACKBONE_CHECKS)) == (NUM_STRATEGY_CHECKS, NUM_BACKBONE_CHECKS)


@pytest.mark.parametrize("checks", [STRATEGY_CHECKS, BACKBONE_CHECKS], ids=["strategy", "backbone"])
def test_every_check_has_a_name_of_its_own_and_a_promise(checks: tuple[Callable[..., None], ...]) -> None:
    assert len({check.__name__ for check in checks}) == len(checks)
    assert all(promise_of(check).endswith(".") for check in checks)


def test_all_well() -> None:
    report = battery(holds).report()

    assert report.is_good
    assert report.summary == "a plugin: ran 1 of 1"


def test_a_failure_is_named() -> None:
    report = battery(holds, breaks).report()

    assert not report.is_good
    assert report.summary == "a plugin: ran 2 of 2; 1 failed: breaks"
    with pytest.raises(CheckFailed, match="1 failed: breaks"):
        report.require()


def test_what_is_waived_or_not_applicable_is_told_with_its_reason() -> None:
    report = battery(holds, breaks, needs_a_gpu, waivers={"breaks": "two is one too many for us"}).report()

    assert report.is_good
    assert report.summary == (
        "a plugin: ran 1 of 3; 1 waived: breaks because two is one too many for us; "
        "1 not applicable: needs_a_gpu because this machine has none"
    )


def test_fewer_checks_than_declared_are_never_good() -> None:
    report = battery(holds, num_declared=47).report()

    assert not report.is_good
    assert "ran 1 of 47" in report.summary
    assert "46 declared but missing" in report.summary


def test_a_check_that_could_not_start_is_never_good() -> None:
    report = battery(holds, follows).report()

    assert not report.is_good
    assert "ran 1 of 2; 1 could not run: follows" in report.summary


def test_a_plugin_that_skips_has_not_passed() -> None:
    (outcome,) = battery(skips).report().outcomes

    assert (outcome.state, outcome.why) == ("failed", "Skipped: nothing to see here")


def test_a_check_runs_once_however_often_it_is_called() -> None:
    calls: list[str] = []
    checks = Battery("a plugin", bind([holds], calls, {}), num_declared=1)

    checks[0]()
    checks[0]()
    checks.report()

    assert calls == ["holds"]


def test_called_by_pytest_a_failed_check_fails_with_its_promise() -> None:
    with pytest.raises(CheckFailed, match=r"breaks: found 1, expected 2\nPromised: It breaks\."):
        battery(breaks)[0]()


def test_called_by_pytest_a_waived_check_is_skipped_with_its_reason() -> None:
    with pytest.raises(SkipTest, match="waived: two is one too many"):
        battery(breaks, waivers={"breaks": "two is one too many"})[0]()


def test_its_name_is_the_id_of_a_check() -> None:
    assert str(battery(holds)[0]) == "holds"


@pytest.mark.parametrize(
    ("waivers", "problem"),
    [
        ({"brakes": "two is one too many"}, "no check is called 'brakes', did you mean 'breaks'?"),
        ({"breaks": "todo"}, "the waiver of 'breaks' needs a reason in words, found 'todo'"),
    ],
)
def test_a_waiver_needs_a_check_and_a_reason(waivers: dict[str, str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem.replace("?", r"\?")):
        battery(breaks, waivers=waivers)
