from __future__ import annotations

from pathlib import Path

import pytest

from automl_tl_registry import GatePolicy, Metrics, Registry, VersionView
from automl_tl_registry.errors import GateFailedError, UsageError
from automl_tl_registry.gates import read_policy
from tests.registry.registry_fakes import facts, predictions, publish, publish_said, weights

TRUTH = [number % 3 for number in range(300)]
WRONG = [(label + 1) % 3 for label in TRUTH]


def said(num_wrong: int, first: int = 0) -> list[int]:
    """Right everywhere but on ``num_wrong`` images from ``first`` on."""
    return TRUTH[:first] + WRONG[first : first + num_wrong] + TRUTH[first + num_wrong :]


def test_gates_skip_the_comparison_at_the_first_promotion(registry: Registry, work: Path) -> None:
    publish_said(registry, work, said(3), TRUTH)

    change = registry.promote("insects@1", "production")

    verdicts = {each.gate: each.verdict for each in change.gates}
    assert (verdicts["integrity"], verdicts["comparison"], verdicts["class-floor"]) == ("passed", "skipped", "passed")


def test_gates_reject_a_regression_with_figures(registry: Registry, work: Path) -> None:
    publish_said(registry, work, said(6), TRUTH)
    publish_said(registry, work, said(60), TRUTH)
    registry.promote("insects@1", "production")

    with pytest.raises(GateFailedError, match=r"98\.0% before, 80\.0% after on 300 shared test images") as caught:
        registry.promote("insects@2", "production")

    assert caught.value.exit_code == 8
    assert registry.resolve("insects@production").version == 1
    assert registry.events()[-1].version == 1


def test_gates_accept_an_equally_good_version(registry: Registry, work: Path) -> None:
    publish_said(registry, work, said(6), TRUTH)
    publish_said(registry, work, said(6, first=3), TRUTH)
    registry.promote("insects@1", "production")

    assert registry.promote("insects@2", "production").version == 2


def test_force_is_recorded_with_reason_and_gate_results(registry: Registry, work: Path) -> None:
    publish_said(registry, work, said(6), TRUTH)
    publish_said(registry, work, said(60), TRUTH)
    registry.promote("insects@1", "production")

    change = registry.promote("insects@2", "production", force=True, reason="the old one breaks the law")

    detail = registry.events()[-1].detail
    assert change.forced
    assert (detail["forced"], detail["reason"]) == (True, "the old one breaks the law")
    assert registry.history(alias="production")[-1].forced


def test_gates_ignore_other_aliases_by_default(registry: Registry, work: Path) -> None:
    publish_said(registry, work, said(6), TRUTH)
    publish_said(registry, work, said(60), TRUTH)
    registry.promote("insects@1", "staging")

    assert registry.promote("insects@2", "staging").version == 2


def test_gates_match_classes_by_name(registry: Registry, work: Path) -> None:
    publish_said(registry, work, said(6), TRUTH)
    turned = [2 - label for label in TRUTH]
    publish_said(registry, work, turned, turned, classes=["wasp", "bee", "ant"])
    registry.promote("insects@1", "production")

    registry.promote("insects@2", "production")
    found = registry.diff("insects@1", "insects@2").comparison

    assert found is not None
    assert (found.gained, found.lost, found.num_relabeled) == (6, 0, 0)


@pytest.mark.parametrize(
    ("when_unsure", "num_wrong", "passes"), [("observed", 2, True), ("reject", 2, False), ("observed", 3, False)]
)
def test_gates_decide_too_few_images_as_configured(
    registry: Registry, work: Path, when_unsure: str, num_wrong: int, passes: bool
) -> None:
    truth = TRUTH[:40]
    publish_said(registry, work, said(2)[:40], truth)
    publish_said(registry, work, said(num_wrong, first=20)[:40], truth)
    policy = GatePolicy.model_validate({"when_unsure": when_unsure})
    registry.promote("insects@1", "production")

    if passes:
        assert registry.promote("insects@2", "production", gates=policy).version == 2
    else:
        with pytest.raises(GateFailedError, match="too few images"):
            registry.promote("insects@2", "production", gates=policy)


def test_gates_reject_a_class_with_zero_recall(registry: Registry, work: Path) -> None:
    blind = [0 if label == 2 else label for label in TRUTH]
    publish_said(registry, work, blind, TRUTH)

    with pytest.raises(GateFailedError, match=r"class-floor: .*below: wasp 0\.0% of 100"):
        registry.promote("insects@1", "production")


def test_gates_name_a_class_that_is_never_found_with_too_few_images(registry: Registry, work: Path) -> None:
    publish_said(registry, work, [0] * 50, [0] * 40 + [2] * 10)

    change = registry.promote("insects@1", "production")

    (floor,) = [each.text for each in change.gates if each.gate == "class-floor"]
    assert floor.endswith("too few images to judge, but never found: wasp 0 of 10")


def test_gates_read_limits_from_the_file_per_model(registry: Registry, work: Path) -> None:
    publish(registry, work)
    publish(registry, work, "birds")
    (registry.root / "gates.toml").write_text("[default]\nmax_latency_ms = 10.0\n[models.birds]\nmax_latency_ms = 20.0\n")

    with pytest.raises(GateFailedError, match=r"latency: 12\.5 ms; the limit is 10 ms"):
        registry.promote("insects@1", "production")
    assert registry.promote("birds@1", "production").version == 1


def test_gates_list_every_failure(registry: Registry, work: Path) -> None:
    publish(registry, work, latency_ms=None)
    policy = GatePolicy(
        min_accuracy=0.95,
        max_latency_ms=5,
        max_size_mib=0.001,
        max_calibration_error=0.01,
        require_reference_predictions=True,
        skip=("class-floor",),
    )

    with pytest.raises(GateFailedError) as caught:
        registry.promote("insects@1", "production", gates=policy)

    assert [line.split(":")[0] for line in caught.value.failures] == [
        "accuracy",
        "latency",
        "size",
        "calibration",
        "reference-predictions",
    ]


def test_gates_use_recorded_accuracies_without_shared_images(registry: Registry, work: Path) -> None:
    for first, accuracy in enumerate([0.9, 0.5]):
        measured = Metrics(accuracy=accuracy, interval=(accuracy - 0.05, accuracy + 0.05), num_images=3)
        blobs = {"head": weights(work / "head"), "predictions": predictions(work / "p", [0], [0], first=first)}
        registry.publish("insects", blobs, facts(metrics=measured))
    registry.promote("insects@1", "production")

    with pytest.raises(GateFailedError, match="no test image in common"):
        registry.promote("insects@2", "production")


def test_gates_reject_different_reference_predictions(registry: Registry, work: Path) -> None:
    publish(registry, work)

    def disagree(view: VersionView) -> None:
        raise ArithmeticError(f"{view.name} predicts something else")

    with pytest.raises(GateFailedError, match=r"reference-predictions: .*insects predicts something else"):
        Registry(registry.root, check_predictions=disagree).promote("insects@1", "production")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[default\n", "line 1"),
        ("[defaults]\n", "defaults"),
        ("[default]\nmax_latency = 3\n", "max_latency"),
        ("[default]\nconfidence = 2\n", "confidence"),
        ("default = 3\n", "default"),
        ("[models]\ninsects = 3\n", "models"),
    ],
)
def test_policy_rejects_an_invalid_file(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "gates.toml").write_text(text)

    with pytest.raises(UsageError, match=expected):
        read_policy(tmp_path, "insects")


@pytest.mark.parametrize("metric", ["balanced_accuracy", "macro_f1"])
def test_gates_compare_by_the_metric_of_the_new_version(registry: Registry, work: Path, metric: str) -> None:
    """All images of a rare class are lost and as many of a frequent one gained: equal accuracy, another metric."""
    truth = [0] * 280 + [1] * 20
    before = [1] * 20 + [0] * 260 + [1] * 20
    publish_said(registry, work, before, truth)
    publish_said(registry, work, [0] * 280 + [0] * 20, truth)
    registry.promote("insects@1", "production")
    (registry.root / "gates.toml").write_text(f'[default]\nmetric = "{metric}"\nskip = ["class-floor"]\n')

    with pytest.raises(GateFailedError, match=f"(?i){metric.replace('_', ' ')} .* before"):
        registry.promote("insects@2", "production")


@pytest.mark.parametrize(("metric", "passes"), [("accuracy", True), ("log_loss", False)])
def test_gates_by_log_loss_compare_probabilities(registry: Registry, work: Path, metric: str, passes: bool) -> None:
    """The same labels, of which the new version is almost certain, the wrong ones included."""
    truth, said = [0] * 280 + [1] * 20, [0] * 300
    publish_said(registry, work, said, truth)
    publish_said(registry, work, said, truth, sure=0.999999)
    (registry.root / "gates.toml").write_text(f'[default]\nmetric = "{metric}"\nskip = ["class-floor"]\n')
    registry.promote("insects@1", "production")

    if passes:
        assert registry.promote("insects@2", "production").changed
    else:
        with pytest.raises(GateFailedError, match=r"(?i)log loss .* before"):
            registry.promote("insects@2", "production")
