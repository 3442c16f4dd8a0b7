"""Gates: checks that a version must pass before an alias may point to it.

The rules come from ``gates.toml`` in the registry's folder: ``[default]`` for every model, ``[models.NAME]`` for one. See
``GatePolicy`` for the keys and defaults, and docs/registry.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, get_args

from pydantic import Field, ValidationError

from automl_tl_registry.comparison import MetricName, compare, compare_metric, paired_interval, recall_by_class
from automl_tl_registry.contents import Predictions, read_predictions
from automl_tl_registry.errors import IntegrityError, RegistryError, UsageError
from automl_tl_registry.signing import check
from automl_tl_registry.store import PredictionCheck, Store
from automl_tl_registry.values import Fraction, GateName, GateResult, ModelVersion, Value, VersionView

GATES_FILE: Final = "gates.toml"
Ceiling = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class GatePolicy(Value):
    """Gate rules of one model; a limit of None is not checked."""

    aliases: tuple[str, ...] = ("production",)  # for others only integrity and reference predictions are checked
    max_accuracy_loss: Fraction | None = 0.03  # or of ``metric``; against the live version, on the test images both share
    metric: MetricName | None = None  # that versions are compared by; None: the one that the new version was chosen by
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.9  # one-sided, that the loss is not larger
    when_unsure: Literal["observed", "reject", "allow"] = "observed"  # too few images for that confidence
    min_accuracy: Fraction | None = None
    min_class_recall: Fraction | None = 0.1  # for each class with at least ``min_class_images`` test images
    min_class_images: Annotated[int, Field(ge=1)] = 20
    max_latency_ms: Ceiling | None = None
    max_size_mib: Ceiling | None = None
    max_calibration_error: Fraction | None = None
    require_reference_predictions: bool = False
    public_key: str | None = None  # PEM file, relative to the registry's folder; the version must be signed with this key
    skip: tuple[GateName, ...] = ()


def read_policy(root: Path, name: str) -> GatePolicy:
    """Return the rules for a model: the defaults where ``gates.toml`` sets nothing else.

    Args:
        root: folder of the registry.
        name: model name.

    Raises:
        UsageError: the file is invalid; the message lists the problems.
    """
    import tomllib

    path = root / GATES_FILE
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        unknown = [f"unknown table or key {key!r}" for key in content if key not in ("default", "models")]
        if unknown:
            raise _invalid_policy(path, [*unknown, "expected [default] and [models.NAME]"])
        default, models = content.get("default", {}), content.get("models", {})
        own = models.get(name, {}) if isinstance(models, dict) else models
        if not isinstance(default, dict) or not isinstance(own, dict):
            raise _invalid_policy(path, ["expected [default] and [models.NAME] to be tables"])
        return GatePolicy.model_validate(default | own)
    except FileNotFoundError:
        return GatePolicy()
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
        raise _invalid_policy(path, problems) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _invalid_policy(path, [str(error)]) from error


def _invalid_policy(path: Path, problems: list[str]) -> UsageError:
    listed = "; ".join(problems)
    return UsageError(f"The gates in {path} are invalid: {listed}. Correct the file, or remove it to use the defaults.")


MIB: Final = 2**20


def judge(
    policy: GatePolicy,
    candidate: tuple[ModelVersion, VersionView],
    live: VersionView | None,
    *,
    gated: bool,
    store: Store,
) -> list[GateResult]:
    """Run the gates, and return one result each.

    Args:
        policy: the rules.
        candidate: the version and its files, whose digests were checked.
        live: the version the alias points to now, if any.
        gated: whether the alias is gated; otherwise only integrity and reference predictions are checked.
        store: the registry.
    """
    version, view = candidate
    results = [GateResult(gate="integrity", verdict="passed", text=f"the digests of {len(view.paths)} files match")]
    if gated:
        results.append(_signature(policy, version, store))
        results += [_compared(policy, view, live), _accuracy(policy, view), _class_floor(policy, view)]
        error = view.facts.metrics.figure("calibration_error")
        results.append(_below("latency", view.facts.latency_ms, policy.max_latency_ms, "ms"))
        results.append(_below("size", version.size_bytes / MIB, policy.max_size_mib, "MiB"))
        results.append(_below("calibration", error, policy.max_calibration_error, "calibration error"))
    results.append(_reference_predictions(policy, view, store.check_predictions, gated=gated))
    chosen = [result for result in results if result.gate not in policy.skip]
    return chosen + [
        GateResult(gate=gate, verdict="skipped", text="by gates.toml") for gate in get_args(GateName) if gate in policy.skip
    ]


def _result(gate: GateName, passed: bool, text: str) -> GateResult:
    return GateResult(gate=gate, verdict="passed" if passed else "failed", text=text)


def _skipped(gate: GateName, why: str) -> GateResult:
    return GateResult(gate=gate, verdict="skipped", text=why)


def _signature(policy: GatePolicy, version: ModelVersion, store: Store) -> GateResult:
    if policy.public_key is None:
        return _skipped("signature", "no public key is set")
    try:
        check(store, version, store.root / policy.public_key)
    except RegistryError as error:
        return _result("signature", False, str(error))
    return _result("signature", True, f"signed with the key in {policy.public_key}")


def _predictions(view: VersionView) -> Predictions | None:
    path = view.paths.get("predictions")
    return None if path is None else read_predictions(path, view.facts.classes)


def _compared(policy: GatePolicy, view: VersionView, live: VersionView | None) -> GateResult:
    limit = policy.max_accuracy_loss
    if limit is None or live is None:
        return _skipped("comparison", "no limit is set" if limit is None else "no version is live yet")
    before, after = _predictions(live), _predictions(view)
    recorded = view.facts.metrics.texts("metric")
    metric: str = policy.metric or (recorded[0] if recorded and recorded[0] in get_args(MetricName) else "accuracy")
    comparison = compare(before, after) if before is not None and after is not None else None
    if comparison is None or not comparison.num_images or before is None or after is None:
        return _compared_by_figures(policy, view, live, limit, metric)
    if metric != "accuracy":
        return _compared_by_metric(policy, before, after, limit, metric)
    # A one-sided limit with this confidence is the lower end of a two-sided interval with 2c - 1.
    low = paired_interval(comparison.gained, comparison.lost, comparison.num_images, confidence=2 * policy.confidence - 1)[0]
    figures = (
        f"{comparison.accuracy_before:.1%} before, {comparison.accuracy_after:.1%} after "
        f"on {comparison.num_images} shared test images "
        f"(+{comparison.gained} -{comparison.lost}, McNemar p {comparison.p_value:.2g}); loss at most {max(0.0, -low):.1%} "
        f"with {policy.confidence:.0%} confidence; the limit is {limit:.1%}"
    )
    if low >= -limit:
        return _result("comparison", True, figures)
    if comparison.difference < -limit:
        return _result("comparison", False, figures)
    return _unsure(policy, comparison.difference >= 0, figures)


def _compared_by_metric(policy: GatePolicy, before: Predictions, after: Predictions, limit: float, metric: str) -> GateResult:
    """Compare by another metric than accuracy; the limit is its largest loss, in its own unit."""
    change = compare_metric(before, after, metric, confidence=policy.confidence)
    values = [f"{value:.3f}" if metric == "log_loss" else f"{value:.1%}" for value in (change.before, change.after)]
    largest, allowed = (
        f"{loss:.3f}" if metric == "log_loss" else f"{loss:.1%}" for loss in (max(0.0, change.largest_loss), limit)
    )
    figures = (
        f"{_title(metric)} {values[0]} before, {values[1]} after on {change.num_images} shared test images; "
        f"loss at most {largest} with {policy.confidence:.0%} confidence; the limit is {allowed}"
    )
    if change.largest_loss <= limit:
        return _result("comparison", True, figures)
    if change.loss > limit:
        return _result("comparison", False, figures)
    return _unsure(policy, change.loss <= 0, figures)


def _title(metric: str) -> str:
    return metric.replace("_", " ").replace("f1", "F1")


def _unsure(policy: GatePolicy, not_worse: bool, figures: str) -> GateResult:
    passed = policy.when_unsure == "allow" or (policy.when_unsure == "observed" and not_worse)
    observed = "not worse as observed" if not_worse else "worse as observed"
    return _result(
        "comparison", passed, f"{figures}: too few images to be sure, {observed} (when_unsure = {policy.when_unsure})"
    )


def _compared_by_figures(
    policy: GatePolicy, view: VersionView, live: VersionView, limit: float, metric: str = "accuracy"
) -> GateResult:
    before, after = live.facts.metrics, view.facts.metrics
    if metric != "accuracy":
        values = before.figure(metric), after.figure(metric)
        if values[0] is None or values[1] is None:
            return _result("comparison", False, f"{_title(metric)} is not recorded for both versions")
        loss = (values[1] - values[0]) * (1 if metric == "log_loss" else -1)
        figures = f"no test image in common; {_title(metric)} {values[0]:.3f} before, {values[1]:.3f} after"
        figures += f"; the loss limit is {limit:.3f}"
        return _result("comparison", False, figures) if loss > limit else _unsure(policy, loss <= 0, figures)
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
    accuracy = view.facts.metrics.accuracy
    return _result("accuracy", accuracy >= policy.min_accuracy, f"{accuracy:.1%}; the minimum is {policy.min_accuracy:.1%}")


def _class_floor(policy: GatePolicy, view: VersionView) -> GateResult:
    floor, predictions = policy.min_class_recall, _predictions(view)
    if floor is None or predictions is None:
        return _skipped("class-floor", "no floor is set" if floor is None else "the version has no predictions")
    recalls = recall_by_class(predictions)
    checked = {name: recall for name, recall in recalls.items() if recall[1] >= policy.min_class_images}
    below = [f"{name} {recall:.1%} of {num}" for name, (recall, num) in checked.items() if recall < floor]
    missed = [f"{name} 0 of {num}" for name, (recall, num) in recalls.items() if name not in checked and not recall]
    text = f"{len(checked)} classes with {policy.min_class_images} or more test images; the minimum recall is {floor:.1%}"
    if missed:
        text += f"; too few images to judge, but never found: {', '.join(missed)}"
    return _result("class-floor", not below, f"{text}; below: {', '.join(below)}" if below else text)


def _below(gate: GateName, value: float | None, ceiling: float | None, unit: str) -> GateResult:
    if ceiling is None:
        return _skipped(gate, "no ceiling is set")
    if value is None:
        return _result(gate, False, f"not measured; the limit is {ceiling:g} {unit}")
    return _result(gate, value <= ceiling, f"{value:.4g} {unit}; the limit is {ceiling:g} {unit}")


def _reference_predictions(policy: GatePolicy, view: VersionView, check: PredictionCheck | None, *, gated: bool) -> GateResult:
    if check is None:
        why = "reference predictions cannot be computed here"
        if policy.require_reference_predictions and gated:
            return _result("reference-predictions", False, f"{why}, and it is required")
        return _skipped("reference-predictions", why)
    try:
        check(view)
    except IntegrityError:
        raise
    except Exception as error:  # any error of the check fails the gate and is quoted
        return _result("reference-predictions", False, f"the saved files do not reproduce the reference predictions: {error}")
    return _result("reference-predictions", True, "the saved files reproduce the reference predictions")
