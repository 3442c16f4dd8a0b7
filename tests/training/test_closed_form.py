"""Closed-form heads against references."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge

from automl_tl.errors import PlanError
from automl_tl.training import class_weights as module_of_weights
from automl_tl.training import closed_form as module
from automl_tl.training.closed_form import Solver, solve
from automl_tl.values import Constraints, Metric

SOLVERS: tuple[Solver, ...] = ("ridge", "logistic", "lda", "average")


def clouds(
    num_images: int, width: int, num_classes: int, *, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Features around one center per class, labels, and a group for each image."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_images) % num_classes
    centers = np.random.default_rng(7).normal(size=(num_classes, width))
    features = (centers[labels] + rng.normal(size=(num_images, width))).astype(np.float32)
    return features, labels.astype(np.int64), np.arange(num_images)


def predicted(solution: module.Solution, features: NDArray[np.float32]) -> NDArray[np.float64]:
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    scores = ((unit - solution.mean) / solution.scale) @ solution.weight[0].T + solution.bias[0]
    return np.asarray(scores)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("num_images", "width"), [(40, 60), (200, 20)], ids=["wide", "tall"])
def test_solve_separates_gaussian_clouds(solver: Solver, num_images: int, width: int) -> None:
    features, labels, groups = clouds(num_images, width, 4)

    solution = solve(features.copy(), labels, groups, solver=solver, num_classes=4, seed=0)

    assert (solution.out_of_fold.argmax(axis=1) == labels).mean() > 0.85
    assert np.allclose(np.exp(solution.out_of_fold).sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(("num_images", "width", "atol"), [(30, 50, 1e-8), (120, 15, 1e-6)], ids=["wide", "tall, in float32"])
def test_ridge_matches_scikit_learn_and_exact_leave_one_out(
    num_images: int, width: int, atol: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RIDGE_STRENGTHS", np.array([3.0]))
    features, labels, _groups = clouds(num_images, width, 3)
    targets = np.eye(3)[labels]

    span = module._span(features)
    member = module._ridge(span, labels, np.arange(num_images), 3)

    normalized = span.coordinates @ span.basis.T
    reference = Ridge(alpha=3.0).fit(normalized, targets)
    assert np.allclose((span.basis @ member.weight).T / module.RIDGE_LOGIT_SCALE, reference.coef_, atol=atol)
    centered = normalized[1:] - normalized.mean(axis=0)
    left_out = Ridge(alpha=3.0, fit_intercept=False).fit(centered, (targets - targets.mean(axis=0))[1:])
    first = left_out.predict(normalized[:1] - normalized.mean(axis=0)) + targets.mean(axis=0)
    assert np.allclose(member.out_of_fold[0] / module.RIDGE_LOGIT_SCALE, first, atol=0.02)


def test_logistic_in_the_span_matches_scikit_learn_on_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOGISTIC_STRENGTHS", np.array([0.05]))
    features, labels, groups = clouds(60, 90, 3)

    solution = solve(features.copy(), labels, groups, solver="logistic", num_classes=3, seed=0)

    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    normalized = (unit - solution.mean) / solution.scale
    reference = LogisticRegression(C=0.05, max_iter=2000, tol=1e-8).fit(normalized, labels)
    expected = reference.decision_function(normalized)
    ours = predicted(solution, features)
    difference = (ours - ours.mean(axis=1, keepdims=True)) - (expected - expected.mean(axis=1, keepdims=True))
    assert np.abs(difference).max() < 2e-2


def test_folds_keep_groups_together() -> None:
    labels = np.arange(60) % 3
    groups = np.arange(60) // 4

    for rows, held_out in module._folds(labels, groups, seed=1):
        assert not set(groups[rows]) & set(groups[held_out])


def test_folds_equal_those_of_comparing_every_image_with_every_group() -> None:
    """The first implementation, whose time grew with the square of the number of groups; folds must not change."""
    rng = np.random.default_rng(3)
    labels, groups = rng.integers(0, 7, 400), rng.integers(0, 150, 400)
    fold_of, sizes = np.empty(400, dtype=np.int64), np.zeros((module.NUM_FOLDS, 7), dtype=np.int64)
    _, group_of = np.unique(groups, return_inverse=True)
    for group in np.random.default_rng(5).permutation(group_of.max() + 1):
        rows = np.flatnonzero(group_of == group)
        counts = np.bincount(labels[rows], minlength=7)
        fold = min(range(module.NUM_FOLDS), key=lambda k: (sizes[k] @ counts, sizes[k].sum()))
        fold_of[rows] = fold
        sizes[fold] += counts

    folds = list(module._folds(labels, groups, seed=5))

    assert [held_out.tolist() for _, held_out in folds] == [np.flatnonzero(fold_of == k).tolist() for k in range(len(folds))]


@pytest.mark.parametrize(("num_images", "width", "size"), [(30, 50, 3), (120, 15, 4), (120, 15, 40)])
def test_ridge_leave_one_group_out_matches_refitting(
    num_images: int, width: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RIDGE_STRENGTHS", np.array([3.0]))
    features, labels, groups = clouds(num_images, width, 3)
    groups[-size:] = groups[-1]
    span = module._span(features)

    member = module._ridge(span, labels, groups, 3)

    targets = np.eye(3)[labels]
    others = Ridge(alpha=3.0).fit(span.coordinates[:-size], targets[:-size])
    alone = Ridge(alpha=3.0).fit(span.coordinates[1:], targets[1:])
    assert np.allclose(
        member.out_of_fold[-size:] / module.RIDGE_LOGIT_SCALE, others.predict(span.coordinates[-size:]), atol=1e-4
    )
    assert np.allclose(member.out_of_fold[:1] / module.RIDGE_LOGIT_SCALE, alone.predict(span.coordinates[:1]), atol=1e-4)
    assert member.note.endswith("by exact leave-one-group-out")


@pytest.mark.parametrize("solver", SOLVERS)
def test_solve_does_not_leak_labels_of_duplicates_in_a_group(solver: Solver) -> None:
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(40, 200)).repeat(5, axis=0)
    features = (centers + 0.01 * rng.normal(size=centers.shape)).astype(np.float32)
    labels = rng.integers(0, 2, 40).repeat(5)

    solution = solve(features, labels, np.arange(200) // 5, solver=solver, num_classes=2, seed=0)

    assert (solution.out_of_fold.argmax(axis=1) == labels).mean() < 0.7


def test_solve_scores_a_class_absent_from_a_fold_low() -> None:
    features, labels, _ = clouds(40, 30, 2)
    labels[:4] = 2
    groups = np.arange(40)
    groups[:4] = 0

    solution = solve(features.copy(), labels, groups, solver="logistic", num_classes=3, seed=0)

    assert np.isfinite(solution.out_of_fold).all()


def imbalanced(num_rare: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features of 60 images of one class and ``num_rare`` of another, which are hard to tell apart."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], [60, num_rare])
    return (rng.normal(size=(len(labels), 40)) + labels[:, None] * 0.8).astype(np.float32), labels.astype(np.int64)


@pytest.mark.parametrize(("num_rare", "is_adjusted"), [(60, False), (6, False), (5, True)])
def test_solve_adjusts_logits_of_strongly_imbalanced_classes_only(num_rare: int, is_adjusted: bool) -> None:
    features, labels = imbalanced(num_rare)

    solution = solve(features, labels, np.arange(len(labels)), solver="average", num_classes=2, seed=0)

    assert (solution.adjustment > 0) == is_adjusted
    assert any("logit adjustment" in note for note in solution.notes) == is_adjusted


@pytest.mark.parametrize("class_weights", ["balanced", "sqrt"])
def test_solve_finds_more_of_a_class_of_more_weight(class_weights: Literal["balanced", "sqrt"]) -> None:
    features, labels, groups = clouds(200, 20, 2)
    kept = np.flatnonzero((labels == 0) | (np.arange(200) < 16))
    features, labels, groups = features[kept] + 3, labels[kept], groups[kept]
    fresh, truth, _ = clouds(400, 20, 2, seed=1)
    weights = module_of_weights.class_weights(Constraints(class_weights=class_weights), ("a", "b"), labels)
    assert weights is not None
    assert weights[labels].mean() == pytest.approx(1)

    def recall(class_weights: NDArray[np.float64] | None) -> float:
        solution = solve(features.copy(), labels, groups, solver="ridge", num_classes=2, seed=0, class_weights=class_weights)
        return float((predicted(solution, fresh + 3).argmax(axis=1) == 1)[truth == 1].mean())

    assert recall(weights) > recall(np.ones(2))


def test_class_weights_follow_from_the_metric_and_name_unknown_classes() -> None:
    labels = np.repeat([0, 1], [30, 10])

    by_metric = {
        metric: module_of_weights.class_weights(Constraints(metric=metric), ("cat", "dog"), labels)
        for metric in get_args(Metric)
    }

    assert by_metric["accuracy"] is None
    assert by_metric["log_loss"] is None
    assert by_metric["balanced_accuracy"] == pytest.approx([40 / 60, 2])
    assert by_metric["macro_f1"] is not None
    assert by_metric["macro_f1"][1] / by_metric["macro_f1"][0] == pytest.approx(3**0.5)
    requested = module_of_weights.class_weights(Constraints(class_weights={"dog": 5}), ("cat", "dog"), labels)
    assert requested is not None
    assert requested[1] / requested[0] == pytest.approx(5)
    with pytest.raises(PlanError, match="Did you mean 'dog'"):
        module_of_weights.class_weights(Constraints(class_weights={"dogg": 5}), ("cat", "dog"), labels)


def test_solve_finds_more_of_a_rare_class_by_adjusting(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = imbalanced(5)
    fresh = imbalanced(60, seed=1)[0][60:]

    def num_found() -> int:
        solution = solve(features.copy(), labels, np.arange(len(labels)), solver="ridge", num_classes=2, seed=0)
        return int((predicted(solution, fresh).argmax(axis=1) == 1).sum())

    adjusted = num_found()
    monkeypatch.setattr(module, "adjustment_direction", lambda *_: None)
    assert adjusted > num_found()


def test_solve_is_deterministic() -> None:
    features, labels, groups = clouds(50, 30, 3)

    first, second = (solve(features.copy(), labels, groups, solver="average", num_classes=3, seed=4) for _ in range(2))

    assert np.array_equal(first.weight, second.weight)


@pytest.mark.parametrize("solver", ["logistic", "ridge", "lda", "average"])
def test_solve_accepts_a_class_of_identical_images(solver: Solver) -> None:
    labels = np.repeat(np.arange(2), 10)
    features = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)[labels]

    solution = solve(features.copy(), labels, np.arange(20), solver=solver, num_classes=2, seed=0)

    assert (solution.out_of_fold.argmax(axis=1) == labels).all()


def test_solve_weighs_levels_by_what_they_tell() -> None:
    features, labels, groups = clouds(120, 12, 4)
    noise = np.random.default_rng(1).normal(size=(120, 12)).astype(np.float32)

    informative = solve(np.hstack([features, noise]), labels, groups, solver="ridge", num_classes=4, seed=0, parts=((12, 12),))
    useless = solve(np.hstack([noise, features]), labels, groups, solver="ridge", num_classes=4, seed=0, parts=((12, 12),))

    assert informative.notes[0].startswith("levels: weight 4 ")
    assert useless.notes[0].startswith("levels: weight 0 ")
    assert np.all(useless.weight[..., :12] == 0)
    for solution, columns in ((informative, [features, noise]), (useless, [noise, features])):
        assert (predicted(solution, np.hstack(columns)).argmax(axis=1) == labels).mean() > 0.9


def test_solve_many_wide_features_in_the_span_of_some_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_RANK", 50)
    monkeypatch.setattr(module, "WIDE", 100)
    features, labels, groups = clouds(200, 120, 4)

    solution = solve(features.copy(), labels, groups, solver="ridge", num_classes=4, seed=0)

    assert solution.weight.shape == (1, 4, 120)
    assert (predicted(solution, features).argmax(axis=1) == labels).mean() > 0.95
    assert (solution.out_of_fold.argmax(axis=1) == labels).mean() > 0.85
