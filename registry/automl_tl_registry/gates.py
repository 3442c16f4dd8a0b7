"""Gates: checks that a version must pass before an alias may point to it; ``policy`` holds the rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, get_args

from automl_tl_registry.comparison import compare, paired_interval, recall_by_class
from automl_tl_registry.errors import IntegrityError
from automl_tl_registry.evidence import Predictions, read_predictions
from automl_tl_registry.policy import GatePolicy
from automl_tl_registry.store import Probe
from automl_tl_registry.values import GateName, GateResult, ModelVersion, VersionView

__all__ = ["judge"]

MIB: Final = 2**20


def judge(
    policy: GatePolicy,
    candidate: tuple[ModelVersion, VersionView],
    live: VersionView | None,
    *,
    gated: bool,
    probe: Probe | None,
) -> list[GateResult]:
    """What each gate says of the candidate, whose files were found sound; ``live`` is what the alias points to now."""
    version, view = candidate
    results = [GateResult(gate="integrity", verdict="passed", text=f"the digests of {len(view.paths)} files match")]
    if gated:
        results += [_compared(policy, view, live), _accuracy(policy, view), _class_floor(policy, view)]
        results += list(_ceilings(policy, version))
    results.append(_probed(policy, view, probe, gated=gated))
    chosen = [each for each in results if each.gate not in policy.skip]
    return chosen + [
        GateResult(gate=gate, verdict="skipped", text="by gates.toml") for gate in get_args(GateName) if gate in policy.skip
    ]


def _result(gate: GateName, passed: bool, text: str) -> GateResult:
    return GateResult(gate=gate, verdict="passed" if passed else "refused", text=text)


def _skipped(gate: GateName, why: str) -> GateResult:
    return GateResult(gate=gate, verdict="skipped", text=why)


def _predictions(view: VersionView) -> Predictions | None:
    path = view.paths.get("predictions")
    return None if path is None else read_predictions(path, view.facts.classes)


def _compared(policy: GatePolicy, view: VersionView, live: VersionView | None) -> GateResult:
    limit = policy.max_accuracy_loss
    if limit is None or live is None:
        return _skipped("comparison", "no limit is set" if limit is None else "no version is live yet")
    before, after = _predictions(live), _predictions(view)
    found = compare(before, after) if before is not None and after is not None else None
    if found is None or not found.num_images:
        return _compared_by_figures(policy, view, live, limit)
    # A one-sided limit with this confidence is the lower end of a two-sided interval with 2c - 1.
    low = paired_interval(found.gained, found.lost, found.num_images, confidence=2 * policy.confidence - 1)[0]
    figures = (
        f"{found.accuracy_before:.1%} before, {found.accuracy_after:.1%} after on {found.num_images} shared test images "
        f"(+{found.gained} -{found.lost}, McNemar p {found.p_value:.2g}); loss at most {max(0.0, -low):.1%} "
        f"with {policy.confidence:.0%} confidence; the limit is {limit:.1%}"
    )
    if low >= -limit:
        return _result("comparison", True, figures)
    if found.difference < -limit:
        return _result("comparison", False, figures)
    return _unsure(policy, found.difference >= 0, figures)


def _unsure(policy: GatePolicy, not_worse: bool, figures: str) -> GateResult:
    passed = policy.when_unsure == "allow" or (policy.when_unsure == "observed" and not_worse)
    observed = "not worse as observed" if not_worse else "worse as observed"
    return _result(
        "comparison", passed, f"{figures}: too few images to be sure, {observed} (when_unsure = {policy.when_unsure})"
    )


def _compared_by_figures(policy: GatePolicy, view: VersionView, live: VersionView, limit: float) -> GateResult:
    before, after = live.facts.metrics, view.facts.metrics
    figures = (
        f"no test image in common; {before.accuracy:.1%} [{before.interval[0]:.1%}, {before.interval[1]:.1%}] before, "
        f"{after.accuracy:.1%} [{after.interval[0]:.1%}, {after.interval[1]:.1%}] after; the loss limit is {limit:.1%}"
    )
    if after.accuracy < before.accuracy - limit:
        return _result("comparison", False, figures)
    return _unsure(policy, after.accuracy >= before.accuracy, figures)


def _accuracy(policy: GatePolicy, view: VersionView) -> GateResult:
    if policy.min_accuracy is None:
        return _skipped("accuracy", "no floor is set")
    found = view.facts.metrics.accuracy
    return _result("accuracy", found >= policy.min_accuracy, f"{found:.1%}; the minimum is {policy.min_accuracy:.1%}")


def _class_floor(policy: GatePolicy, view: VersionView) -> GateResult:
    floor, predictions = policy.min_class_recall, _predictions(view)
    if floor is None or predictions is None:
        return _skipped("class-floor", "no floor is set" if floor is None else "the version has no predictions")
    judged = {name: each for name, each in recall_by_class(predictions).items() if each[1] >= policy.min_class_images}
    below = [f"{name} {recall:.1%} of {num}" for name, (recall, num) in judged.items() if recall < floor]
    text = f"{len(judged)} classes with {policy.min_class_images} or more test images; the minimum recall is {floor:.1%}"
    return _result("class-floor", not below, f"{text}; below: {', '.join(below)}" if below else text)


def _ceilings(policy: GatePolicy, version: ModelVersion) -> Iterator[GateResult]:
    facts = version.facts
    yield _below("latency", facts.latency_ms, policy.max_latency_ms, "ms")
    yield _below("size", version.size_bytes / MIB, policy.max_size_mib, "MiB")
    yield _below("calibration", facts.metrics.figure("calibration_error"), policy.max_calibration_error, "calibration error")


def _below(gate: GateName, found: float | None, ceiling: float | None, unit: str) -> GateResult:
    if ceiling is None:
        return _skipped(gate, "no ceiling is set")
    if found is None:
        return _result(gate, False, f"not measured; the limit is {ceiling:g} {unit}")
    return _result(gate, found <= ceiling, f"{found:.4g} {unit}; the limit is {ceiling:g} {unit}")


def _probed(policy: GatePolicy, view: VersionView, probe: Probe | None, *, gated: bool) -> GateResult:
    if probe is None:
        required = policy.require_probe and gated
        why = "reference predictions cannot be computed here"
        return _result("probe", False, f"{why}, and it is required") if required else _skipped("probe", why)
    try:
        probe(view)
    except IntegrityError:
        raise
    except Exception as error:  # whatever a probe raises is a refusal; it is quoted
        return _result("probe", False, f"the saved files do not reproduce the reference predictions: {error}")
    return _result("probe", True, "the saved files reproduce the reference predictions")
