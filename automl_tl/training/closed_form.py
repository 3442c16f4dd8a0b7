"""Closed-form heads on frozen features: ridge, logistic regression, LDA and their average.

Features ``(N, D)`` are scaled to unit length, centered and divided by one global scale. One eigendecomposition then gives
coordinates ``P`` ``(N, R)``, ``R <= min(N, D)``, in which every L2-regularized linear model is equivalent and cheaper.
Each solver returns out-of-fold scores of every image; expected accuracy, temperature and label issues follow from them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import sqrt
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from automl_tl.evaluation import (
    fit_logit_adjustment,
    fit_temperature,
    log_losses,
    softmax,
    unit_length,
)
from automl_tl.models.heads import ClosedFormHead, HeadShape
from automl_tl.plugin_host.levels import Parts
from automl_tl.runtime.threads import num_cores, one_blas_thread
from automl_tl.training.class_weights import adjustment_direction

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

Floats = NDArray[np.float64]
Rows = NDArray[np.floating]  # one per image: float32 where there are many
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]
Solver = Literal["logistic", "ridge", "lda", "average"]
Folds = Sequence[tuple[Integers, Integers]]  # training rows, held-out rows

DEFAULT_SOLVER: Solver = "average"
RIDGE_STRENGTHS = np.logspace(-1, 6, 22)
LOGISTIC_STRENGTHS = np.logspace(-3, 1, 9)  # scikit-learn's C, strongest regularization first
NUM_FOLDS = 5
MAX_ITERATIONS = 300
LDA_UP_TO_IMAGES_PER_CLASS = 20  # above it LDA lowers the average's accuracy (decision 5)
CHUNK = 4096  # rows at a time, where all at once would fill the memory
RIDGE_LOGIT_SCALE = 10.0  # ridge scores lie in 0 to 1; a temperature fit needs logits of about this scale
MIN_VARIANCE = 1e-6  # within classes, where features are 1 on average; identical images have none
MAX_RANK = 2048  # of the span of wide features: an eigendecomposition of 5,000 rows takes a minute on two cores
WIDE = 4096  # features; narrower ones keep their full span
LEVEL_WEIGHTS = (4.0, 1.0, 0.25, 0.0)  # of all intermediate levels together, relative to the last (decision 61)
NUM_WEIGHED = 512  # images that choose it
ABSENT_SCORE = -20.0  # of a class without training images in a fold
NUM_HALVINGS = 30  # of the bisection in ``calibrated``
SOLVING_S = 0.2  # to fit the averaged head with its folds on two slow cores (decisions 40 and 74)
SOLVING_S_PER_IMAGE = 3.3e-5  # times sqrt(rank * classes): with more classes the solver needs fewer steps
WEIGHING_S = 1.0  # to choose the weight of intermediate levels
WIDE_COST = 2.0  # times as long per image: the span of wide features, and more steps in it


@dataclass(frozen=True)
class LinearModel:
    """One linear map on coordinates: ``weight (R, C)``, ``bias (C,)``, out-of-fold scores ``(N, C)``."""

    weight: Floats
    bias: Floats
    out_of_fold: Floats
    note: str
    adjustment: float = 0.0  # strength


@dataclass(frozen=True)
class Solution:
    """A closed-form head: the average of ``K`` linear models, and its out-of-fold log-probabilities ``(N, C)``."""

    mean: Floats  # (D,)
    scale: float
    weight: Floats  # (K, C, D)
    bias: Floats  # (K, C)
    temperatures: Floats  # (K,)
    out_of_fold: Floats
    notes: tuple[str, ...]
    adjustment: float = 0.0  # mean strength of the logit adjustment for imbalanced classes


@dataclass(frozen=True)
class Span:
    """Normalized features in the basis of their own span: ``features = coordinates @ basis.T``."""

    coordinates: Rows  # (N, R), orthogonal columns
    basis: Floats  # (D, R), orthonormal columns
    energies: Floats  # (R,), squared lengths of the columns
    mean: Floats
    scale: float


def solving_s(num_images: int, feature_dim: int, num_classes: int) -> float:
    """Return the expected seconds to fit a closed-form head on extracted features.

    Args:
        num_images: ``N``, rows of the features.
        feature_dim: ``D``, columns of the features.
        num_classes: ``C``.
    """
    rank = min(num_images, feature_dim)
    if feature_dim <= WIDE:
        return SOLVING_S + SOLVING_S_PER_IMAGE * num_images * sqrt(rank * num_classes)
    rank = min(rank, MAX_RANK)
    return SOLVING_S + WEIGHING_S + WIDE_COST * SOLVING_S_PER_IMAGE * num_images * sqrt(rank * num_classes)


def solve(  # noqa: PLR0913 - the data, and how to solve
    features: NDArray[np.float32],
    labels: Integers,
    groups: Integers,
    *,
    solver: Solver,
    num_classes: int,
    seed: int,
    parts: Parts = (),
    class_weights: Floats | None = None,
) -> Solution:
    """Return a fitted closed-form head.

    Args:
        features: ``(N, D)``; overwritten if ``N > D``, since a copy would fill the memory.
        labels: ``(N,)`` class indices.
        groups: ``(N,)``; images of one group stay in one fold.
        solver: ``average`` takes all models that suit the number of images per class.
        num_classes: ``C``, width of the scores.
        seed: of the folds.
        parts: of multi-level features, whose weights are chosen by cross-validation; empty: all features count alike.
        class_weights: ``(C,)``, how much an image of each class counts; ``None``: all alike.
    """
    # 1) Folds, and coordinates in the span of the features.
    folds = list(_folds(labels, groups, seed))
    with one_blas_thread():  # the folds run in parallel
        factors, level_notes = _level_factors(features, labels, groups, parts, num_classes, seed) if parts else (None, ())
        span = _span(features, factors, seed=seed)
        # 2) Fit each linear model, its regularization chosen by cross-validation.
        with_lda = len(labels) / num_classes <= LDA_UP_TO_IMAGES_PER_CLASS
        averaged = ("ridge", "logistic", "lda") if with_lda else ("ridge", "logistic")
        names = averaged if solver == "average" else (solver,)
        fit_model = {
            "ridge": lambda: _ridge(span, labels, groups, num_classes),
            "logistic": lambda: _logistic(span, labels, folds, num_classes),
            "lda": lambda: _lda(span, labels, folds, num_classes),
        }
        models = [fit_model[name]() for name in names]
    # 3) Calibrate each model by its out-of-fold scores, then average the probabilities. Class weights enter here.
    weights = None if class_weights is None else class_weights[labels]
    if (log_prior := adjustment_direction(class_weights, labels, num_classes)) is not None:
        models = [_adjusted(model, labels, log_prior, weights) for model in models]
    temperatures = np.array([fit_temperature(model.out_of_fold, labels, weights, min_images=2) for model in models])
    probabilities = np.mean([softmax(model.out_of_fold, t) for model, t in zip(models, temperatures, strict=True)], axis=0)
    # 4) Map the weights back from coordinates to features.
    return Solution(
        mean=span.mean,
        scale=span.scale,
        weight=np.stack([_times((span.basis @ model.weight).T, factors) for model in models]),
        bias=np.stack([model.bias for model in models]),
        temperatures=temperatures,
        out_of_fold=np.log(np.maximum(probabilities, 1e-12)),
        notes=(*level_notes, *(model.note for model in models)),
        adjustment=float(np.mean([model.adjustment for model in models])),
    )


def _adjusted(model: LinearModel, labels: Integers, log_prior: Floats, weights: Floats | None) -> LinearModel:
    """``model`` with a bias that makes up for what regularization takes from rare classes (decision 50)."""
    strength, shift = fit_logit_adjustment(model.out_of_fold, labels, log_prior, weights)
    note = f"{model.note}, logit adjustment {strength:.2f}"
    return LinearModel(model.weight, model.bias - shift, model.out_of_fold - shift, note, strength)


def _level_factors(
    features: NDArray[np.float32], labels: Integers, groups: Integers, parts: Parts, num_classes: int, seed: int
) -> tuple[Floats, tuple[str, ...]]:
    """Return the factor ``(D,)`` on each feature, and a note: all parts of equal variance, times the weight of their level.

    The weight of the intermediate levels is the one with the least leave-one-group-out error of a ridge regression.
    """
    # 1) Parts of equal variance around their means.
    rows = np.sort(np.random.default_rng(seed).permutation(len(labels))[:NUM_WEIGHED])
    sample = features[rows]
    centered = unit_length(sample) - unit_length(sample).mean(axis=0)
    sizes = [size for member in parts for size in member]
    energies = np.add.reduceat(np.square(centered, dtype=np.float64).sum(axis=0), np.cumsum([0, *sizes[:-1]])) / len(rows)
    scales = 1 / np.sqrt(np.maximum(energies, 1e-12))
    # 2) The weight of the intermediate parts together.
    targets = np.eye(num_classes)[labels[rows]]
    best: tuple[float, float, Floats] | None = None
    for weight in LEVEL_WEIGHTS:
        weights = [share for member in parts for share in (*[sqrt(weight / (len(member) - 1))] * (len(member) - 1), 1.0)]
        factors = np.repeat(scales * weights, sizes)
        model = _ridge(_span(sample.copy(), factors, seed=seed), labels[rows], groups[rows], num_classes)
        error = float(np.square(model.out_of_fold / RIDGE_LOGIT_SCALE - targets).mean())
        if best is None or error < best[0]:
            best = error, weight, factors
    assert best is not None
    return best[2], (f"levels: weight {best[1]:.3g} of the intermediate levels by exact leave-one-out",)


def _times(weight: Floats, factors: Floats | None) -> Floats:
    return weight if factors is None else weight * factors


def _span(features: NDArray[np.float32], factors: Floats | None = None, *, seed: int = 0) -> Span:
    """Normalize ``features`` ``(N, D)`` and rotate them into their span; in float32 and in place if ``N > D``.

    Args:
        features: to normalize.
        factors: ``(D,)`` on the centered features; ``None``: 1.
        seed: chooses the images whose span stands for that of many wide features.
    """
    # 1) Unit length, zero mean, unit global scale.
    is_few = len(features) <= features.shape[1]
    is_large = features.shape[1] > WIDE and len(features) > MAX_RANK
    rows: Rows = features.astype(np.float64) if is_few and not is_large else np.asarray(features, dtype=np.float32)
    rows /= np.maximum(np.sqrt(np.einsum("nd,nd->n", rows, rows)), 1e-12)[:, None]
    mean = rows.mean(axis=0, dtype=np.float64)
    rows -= mean
    if factors is not None:
        rows *= factors
    scale = float(np.sqrt(np.vdot(rows, rows) / rows.size)) or 1.0
    rows /= scale
    # 2) Many wide features: their coordinates in the span of some images (Nystroem) take their place.
    outer: Floats | None = None
    if is_large:
        landmarks = rows[np.random.default_rng(seed).permutation(len(rows))[:MAX_RANK]].astype(np.float64)
        outer = _few_rotated(landmarks)[2]
        rows = np.concatenate([rows[chunk] @ outer.astype(np.float32) for chunk in _chunks(len(rows))])
    # 3) Eigenvectors of the smaller Gram matrix, without null directions.
    if is_few and outer is None:
        coordinates, energies, basis = _few_rotated(rows)
    else:
        energies, basis = np.linalg.eigh((rows.T @ rows).astype(np.float64))
        is_used = energies > energies[-1] * 1e-6
        energies, basis = energies[is_used], basis[:, is_used]
        coordinates = _in_place(rows, basis.astype(np.float32))
    basis = basis if outer is None else outer @ basis
    return Span(coordinates=coordinates, basis=basis, energies=energies, mean=mean, scale=scale)


def _few_rotated(rows: Rows) -> tuple[Rows, Floats, Floats]:
    """Return coordinates ``(N, R)``, energies ``(R,)`` and basis ``(D, R)`` of the span of ``rows`` ``(N, D)``, ``N <= D``."""
    energies, left = np.linalg.eigh(rows @ rows.T)
    is_used = energies > energies[-1] * 1e-10
    energies, left = energies[is_used], left[:, is_used]
    return left * np.sqrt(energies), energies, rows.T @ (left / np.sqrt(energies))


def _in_place(rows: Rows, basis: Rows) -> Rows:
    """``rows @ basis``, ``(N, R)``, in the memory of ``rows`` ``(N, D)``: as R <= D, no row is written before it was read."""
    result = rows.reshape(-1)[: len(rows) * basis.shape[1]].reshape(len(rows), -1)
    for chunk in _chunks(len(rows)):
        result[chunk] = rows[chunk] @ basis
    return result


def _chunks(num_rows: int) -> Iterator[slice]:
    return (slice(start, start + CHUNK) for start in range(0, num_rows, CHUNK))


def _folds(labels: Integers, groups: Integers, seed: int) -> Iterator[tuple[Integers, Integers]]:
    """Stratified folds (training rows, held-out rows) that keep groups whole, balanced by greedy assignment."""
    _, group_of, group_sizes = np.unique(groups, return_inverse=True, return_counts=True)
    labels_by_group = labels[np.argsort(group_of, kind="stable")].tolist()
    starts = [0, *np.cumsum(group_sizes).tolist()]
    # Plain lists: half a million groups of one or two images would be as many calls of numpy.
    sizes, totals = [[0] * (max(labels_by_group) + 1) for _ in range(NUM_FOLDS)], [0] * NUM_FOLDS
    fold_of_group = np.empty(len(group_sizes), dtype=np.int64)
    for group in np.random.default_rng(seed).permutation(len(group_sizes)).tolist():
        members = labels_by_group[starts[group] : starts[group + 1]]
        fold = min(range(NUM_FOLDS), key=lambda k: (sum(sizes[k][label] for label in members), totals[k]))
        fold_of_group[group] = fold
        totals[fold] += len(members)
        for label in members:
            sizes[fold][label] += 1
    fold_of = fold_of_group[group_of]
    for fold in range(NUM_FOLDS):
        held_out = np.flatnonzero(fold_of == fold)
        if len(held_out):
            yield np.flatnonzero(fold_of != fold), held_out


def _ridge(span: Span, labels: Integers, groups: Integers, num_classes: int) -> LinearModel:
    """Ridge regression on one-hot targets, its strength chosen by the exact leave-one-group-out squared error.

    Source: Golub, Heath and Wahba 1979. With ``h`` the diagonal of the hat matrix, the error of a left-out image is
    ``(fitted - y) / (1 - h)``; for a left-out group with block ``H`` of the hat matrix it is ``(I - H)^-1 (fitted - y)``.
    """
    # 1) In coordinates P with P'P = diag(energies), ridge of strength s fits P diag(1 / (energies + s)) P'y.
    targets, shrinking = np.eye(num_classes), 1 / (span.energies[:, None] + RIDGE_STRENGTHS)
    prior = np.bincount(labels, minlength=num_classes) / len(labels)
    projected = np.zeros((len(span.energies), num_classes))
    for chunk in _chunks(len(labels)):
        projected += span.coordinates[chunk].T @ (targets[labels[chunk]] - prior)

    def errors(rows: Integers, is_group: bool, strengths: slice = slice(None)) -> Iterator[Floats]:
        """Errors ``(B, C)`` of the left-out images, for each strength; left out as one group or one by one."""
        # 2) Leverages: the diagonal of the hat matrix P diag(1 / (energies + s)) P' + 1/N; 1/N is the intercept's.
        points, wanted = span.coordinates[rows].astype(np.float64), targets[labels[rows]] - prior
        leverages = None if is_group else np.minimum(np.square(points) @ shrinking[:, strengths] + 1 / len(labels), 1 - 1e-9)
        for number, shrunk in enumerate(shrinking[:, strengths].T):
            residuals = points @ (projected * shrunk[:, None]) - wanted
            if leverages is None:
                yield _group_left_out(residuals, points * np.sqrt(shrunk), len(labels))
            else:
                yield residuals / (1 - leverages[:, number])[:, None]

    # 3) Choose the strength with the least squared error over all left-out images.
    left_out_sets = list(_left_out_sets(groups))
    squares = sum(np.array([np.vdot(e, e) for e in errors(rows, is_group)]) for rows, is_group in left_out_sets)
    best = int(np.argmin(squares))
    # 4) Left-out prediction = target + error.
    left_out = targets[labels]
    for rows, is_group in left_out_sets:
        left_out[rows] += next(errors(rows, is_group, slice(best, best + 1)))
    how = "leave-one-group-out" if any(is_group for _, is_group in left_out_sets) else "leave-one-out"
    note = f"ridge: strength {RIDGE_STRENGTHS[best]:.3g} by exact {how}"
    scale = RIDGE_LOGIT_SCALE
    return LinearModel(scale * projected * shrinking[:, best, None], scale * prior, scale * left_out, note)


def _left_out_sets(groups: Integers) -> Iterator[tuple[Integers, bool]]:
    """Rows to leave out: groups of one, in chunks (``False``), then every larger group (``True``)."""
    _, group_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    alone = np.flatnonzero(sizes[group_of] == 1)
    for chunk in _chunks(len(alone)):
        yield alone[chunk], False
    in_order = np.argsort(group_of, kind="stable")
    for rows in np.split(in_order, np.cumsum(sizes)[:-1]):
        if len(rows) > 1:
            yield rows, True


def _group_left_out(residuals: Floats, shrunk: Floats, num_images: int) -> Floats:
    """``(1 - H)^-1 residuals`` for ``H = shrunk @ shrunk.T + 1 / num_images``, solved on the smaller side (Woodbury)."""
    side = np.full((len(shrunk), 1), num_images**-0.5)
    factor: Floats = np.hstack([shrunk, side]) * (1 - 1e-9)  # keeps I - H regular if the group holds all images
    if len(factor) <= factor.shape[1]:
        return np.asarray(np.linalg.solve(np.eye(len(factor)) - factor @ factor.T, residuals))
    inner = np.linalg.solve(np.eye(factor.shape[1]) - factor.T @ factor, factor.T @ residuals)
    return np.asarray(residuals + factor @ inner)


def _logistic(span: Span, labels: Integers, folds: Folds, num_classes: int) -> LinearModel:
    """L2-regularized multinomial logistic regression, its strength chosen by the cross-validated log-loss."""
    with warnings.catch_warnings():  # no full convergence needed: the out-of-fold log-loss decides
        warnings.simplefilter("ignore")
        strength, scores = _best_strength(span, labels, folds, num_classes)
        weight, bias = _fit_logistic(_logistic_model(), span.coordinates, labels, num_classes, strength)
    note = f"logistic regression: C {strength:.3g} by {len(folds)}-fold log-loss"
    return LinearModel(weight, bias, scores, note)


def _best_strength(span: Span, labels: Integers, folds: Folds, num_classes: int) -> tuple[float, Floats]:
    """Return the strength with the lowest out-of-fold log-loss, from strong to weak until two rises, and its scores."""
    best: tuple[float, float, Floats] | None = None
    rises = 0
    models = [_logistic_model() for _ in folds]
    points = span.coordinates.astype(np.float32, copy=False)  # twice as fast, and accurate enough to compare strengths

    def held_out_scores(strength: float, model: LogisticRegression, fold: tuple[Integers, Integers]) -> Floats:
        rows, held_out = fold
        if len(points) > len(span.basis):  # many images: zero weights instead of a copy per fold, which would fill the memory
            mask = np.zeros(len(points), dtype=np.bool_)
            mask[rows] = True
            weight, bias = _fit_logistic(model, points, labels, num_classes, strength, mask)
        else:
            weight, bias = _fit_logistic(model, points[rows], labels[rows], num_classes, strength)
        return points[held_out] @ weight.astype(points.dtype) + bias

    with ThreadPoolExecutor(max_workers=num_cores()) as pool:
        for strength in LOGISTIC_STRENGTHS:
            # 1) Fit all folds in parallel, each warm-started at the previous strength.
            scores = np.zeros((len(labels), num_classes))
            fold_scores = pool.map(partial(held_out_scores, strength), models, folds)
            for (_, held_out), rows in zip(folds, fold_scores, strict=True):
                scores[held_out] = rows
            # 2) Keep the strength with the lowest log-loss; stop after two rises in a row.
            loss = float(log_losses(scores, labels).mean())
            rises = 0 if best is None or loss < best[0] else rises + 1
            if rises == 0:
                best = (loss, float(strength), scores)
            if rises == 2:
                break
    assert best is not None
    return best[1:]


def _logistic_model() -> LogisticRegression:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(warm_start=True, max_iter=MAX_ITERATIONS)


def _fit_logistic(
    model: LogisticRegression, coordinates: Rows, labels: Integers, num_classes: int, strength: float, mask: Mask | None = None
) -> tuple[Floats, Floats]:
    """``weight (R, C)`` and ``bias (C,)``; ``mask`` ``(N,)`` selects the images to learn from, ``None``: all."""
    weight, bias = np.zeros((coordinates.shape[1], num_classes)), np.full(num_classes, ABSENT_SCORE)
    if len(np.unique(labels)) < 2:  # only one class in this fold
        bias[labels] = 0.0
        return weight, bias
    model.set_params(C=strength).fit(coordinates, labels, mask)
    if len(model.classes_) == 2:  # scikit-learn keeps one vector for two classes
        weight[:, model.classes_] = model.coef_.T * np.array([-0.5, 0.5])
        bias[model.classes_] = model.intercept_ * np.array([-0.5, 0.5])
    else:
        weight[:, model.classes_], bias[model.classes_] = model.coef_.T, model.intercept_
    return weight, bias


def _lda(span: Span, labels: Integers, folds: Folds, num_classes: int) -> LinearModel:
    """Linear discriminant analysis with a Ledoit-Wolf (2004) shrunk covariance."""
    scores = np.zeros((len(labels), num_classes))
    for rows, held_out in folds:
        weight, bias = _fit_lda(span.coordinates[rows], labels[rows], num_classes)
        scores[held_out] = span.coordinates[held_out] @ weight + bias
    weight, bias = _fit_lda(span.coordinates, labels, num_classes)
    return LinearModel(weight, bias, scores, "LDA: Ledoit-Wolf covariance")


def _fit_lda(coordinates: Rows, labels: Integers, num_classes: int) -> tuple[Floats, Floats]:
    from sklearn.covariance import ledoit_wolf

    weight, bias = np.zeros((coordinates.shape[1], num_classes)), np.full(num_classes, ABSENT_SCORE)
    present, index = np.unique(labels, return_inverse=True)
    if len(present) < 2:
        bias[present] = 0.0
        return weight, bias
    # 1) Class means.
    targets = np.eye(len(present))[index]
    counts = targets.sum(axis=0)
    means = (targets.T @ coordinates) / counts[:, None]
    # 2) Shared covariance within classes, shrunk towards a multiple of the identity.
    covariance, _ = ledoit_wolf(coordinates - means[index], assume_centered=True)
    covariance[np.diag_indices_from(covariance)] += MIN_VARIANCE
    # 3) Discriminants: w = S^-1 m, b = log prior - m'w / 2.
    weight[:, present] = np.linalg.solve(covariance, means.T)
    bias[present] = np.log(counts / counts.sum()) - 0.5 * np.sum(means.T * weight[:, present], axis=0)
    return weight, bias


def head_of(solution: Solution) -> ClosedFormHead:
    """The torch module that computes ``solution``."""
    num_models, num_classes, width = solution.weight.shape
    shape = HeadShape(kind="solved", feature_dim=width, num_classes=num_classes, num_members=num_models)
    head = ClosedFormHead(shape)
    state = {name: np.asarray(getattr(solution, name), dtype=np.float32) for name in head.state_dict()}
    head.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    return head.eval()


@torch.no_grad()
def calibrated(solution: Solution, features: NDArray[np.float32], labels: Integers) -> ClosedFormHead:
    """Return the head of ``solution``, scaled so that its training loss equals the out-of-fold one.

    A converged head leaves no gradient to learn from and is overconfident; scaling keeps its direction and restores the
    gradient's energy (Ren et al., arXiv 2302.05779). Of an average only the first model is taken.

    Args:
        solution: to scale.
        features: ``(N, D)`` that it was fitted on.
        labels: ``(N,)`` class indices.
    """
    head = head_of(solution)
    rows = np.arange(len(labels))
    out_of_fold_loss = float(-solution.out_of_fold[rows, labels].mean())
    scores = ((unit_length(features) - solution.mean) / solution.scale) @ solution.weight[0].T + solution.bias[0]
    # Bisection: the training loss falls as the scale grows towards the best temperature.
    low, high = 0.0, 1.0
    for _ in range(NUM_HALVINGS):
        middle = (low + high) / 2
        loss = -float(np.log(softmax(scores * middle)[rows, labels] + 1e-12).mean())
        low, high = (middle, high) if loss > out_of_fold_loss else (low, middle)
    head.weight.mul_(high)
    head.bias.mul_(high)
    head.temperatures.fill_(1.0)
    return head
