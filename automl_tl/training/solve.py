"""Heads that are solved, not trained: ridge, logistic regression, LDA and their average, on frozen features.

Features ``(N, D)`` are scaled to unit length, centerd and divided by one global scale. One eigendecomposition then gives
coordinates ``P`` ``(N, R)``, ``R <= min(N, D)``, in which every L2-regularized linear model is the same and cheaper.
Each solver gives scores out of fold for every image, from which come the expected accuracy, the temperature, and the
suspected wrong labels.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from automl_tl.evaluation import fit_temperature, log_losses, softmax
from automl_tl.runtime.threads import num_cores, one_blas_thread

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

__all__ = ["Solution", "Solver", "solve"]

Floats = NDArray[np.float64]
Rows = NDArray[np.floating]  # one per image: float32 where there are many
Integers = NDArray[np.int64]
Solver = Literal["logistic", "ridge", "lda", "average"]
Folds = Sequence[tuple[Integers, Integers]]  # training rows, held-out rows

RIDGE_STRENGTHS = np.logspace(-1, 6, 22)
LOGISTIC_STRENGTHS = np.logspace(-3, 1, 9)  # scikit-learn's C, strongest regularization first
NUM_FOLDS = 5
MAX_ITERATIONS = 300
LDA_UP_TO_IMAGES_PER_CLASS = 20  # above it LDA drags the average down: ../DECISIONS 5
CHUNK = 4096  # rows at once, of work that would fill the memory if it were done on all
SHARPEN = 10.0  # ridge scores lie in 0 to 1; as logits they need about this factor before a temperature is fitted
LEAST_VARIANCE = 1e-6  # within classes, where features are 1 on average: equal images of a class have none
ABSENT_SCORE = -20.0  # of a class that a fold's training images don't have


@dataclass(frozen=True)
class Apart:
    """What images of one group are never on both sides of: folds, and the groups ``(N,)`` that are left out exactly."""

    folds: Folds
    groups: Integers


@dataclass(frozen=True)
class Member:
    """One linear map on coordinates: ``weight (R, C)``, ``bias (C,)``, scores out of fold ``(N, C)``."""

    name: str
    weight: Floats
    bias: Floats
    out_of_fold: Floats
    note: str


@dataclass(frozen=True)
class Solution:
    """A solved head: arrays for ``ClosedFormHead`` and log-probabilities ``(N, C)`` out of fold."""

    mean: Floats  # (D,)
    scale: float
    weight: Floats  # (K, C, D)
    bias: Floats  # (K, C)
    temperatures: Floats  # (K,)
    out_of_fold: Floats
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Span:
    """Normalized features in the basis of their own span: ``features = coordinates @ basis.T``."""

    coordinates: Rows  # (N, R), orthogonal columns
    basis: Floats  # (D, R), orthonormal columns
    energies: Floats  # (R,), squared lengths of the columns
    mean: Floats
    scale: float

    @property
    def is_of_many(self) -> bool:
        """Whether there are more images than features, so that copies fill the memory."""
        return len(self.coordinates) > len(self.basis)


def solve(
    features: NDArray[np.float32], labels: Integers, groups: Integers, *, solver: Solver, num_classes: int, seed: int
) -> Solution:
    """Solved head for ``features`` ``(N, D)`` with ``labels`` ``(N,)``; images of one group stay in one fold.

    Where there are more images than features, ``features`` is overwritten: a copy of many would fill the memory.
    """
    apart = Apart(tuple(_folds(labels, groups, seed)), groups)
    with one_blas_thread():  # the folds run side by side
        span = _span(features)
        members = [_MEMBERS[name](span, labels, apart, num_classes) for name in _members_of(solver, len(labels) / num_classes)]
    temperatures = np.array([fit_temperature(member.out_of_fold, labels, min_images=2) for member in members])
    probabilities = np.mean([softmax(member.out_of_fold, t) for member, t in zip(members, temperatures, strict=True)], axis=0)
    return Solution(
        mean=span.mean,
        scale=span.scale,
        weight=np.stack([(span.basis @ member.weight).T for member in members]),
        bias=np.stack([member.bias for member in members]),
        temperatures=temperatures,
        out_of_fold=np.log(np.maximum(probabilities, 1e-12)),
        notes=tuple(member.note for member in members),
    )


def _members_of(solver: Solver, images_per_class: float) -> Sequence[str]:
    if solver != "average":
        return (solver,)
    return ("ridge", "logistic", "lda") if images_per_class <= LDA_UP_TO_IMAGES_PER_CLASS else ("ridge", "logistic")


def _span(features: NDArray[np.float32]) -> Span:
    """Few images in float64; more than there are dimensions in float32 and in place."""
    is_few = len(features) <= features.shape[1]
    rows: Rows = features.astype(np.float64) if is_few else np.asarray(features, dtype=np.float32)
    rows /= np.maximum(np.sqrt(np.einsum("nd,nd->n", rows, rows)), 1e-12)[:, None]
    mean = rows.mean(axis=0, dtype=np.float64)
    rows -= mean
    scale = float(np.sqrt(np.vdot(rows, rows) / rows.size)) or 1.0
    rows /= scale
    if is_few:
        energies, left = np.linalg.eigh(rows @ rows.T)
        kept = energies > energies[-1] * 1e-10
        energies, coordinates = energies[kept], left[:, kept] * np.sqrt(energies[kept])
        basis = rows.T @ (left[:, kept] / np.sqrt(energies))
    else:
        energies, basis = np.linalg.eigh((rows.T @ rows).astype(np.float64))
        kept = energies > energies[-1] * 1e-6
        energies, basis = energies[kept], basis[:, kept]
        coordinates = _in_place(rows, basis.astype(np.float32))
    return Span(coordinates=coordinates, basis=basis, energies=energies, mean=mean, scale=scale)


def _in_place(rows: Rows, basis: Rows) -> Rows:
    """``rows @ basis``, ``(N, R)``, in the memory of ``rows`` ``(N, D)``: as R <= D, no row is written before it was read."""
    result = rows.reshape(-1)[: len(rows) * basis.shape[1]].reshape(len(rows), -1)
    for few in _chunks(len(rows)):
        result[few] = rows[few] @ basis
    return result


def _chunks(num_rows: int) -> Iterator[slice]:
    return (slice(start, start + CHUNK) for start in range(0, num_rows, CHUNK))


def _folds(labels: Integers, groups: Integers, seed: int) -> Iterator[tuple[Integers, Integers]]:
    """Stratified folds (training rows, held-out rows) that keep groups whole, as even as greedy dealing makes them."""
    rng = np.random.default_rng(seed)
    fold_of = np.empty(len(labels), dtype=np.int64)
    sizes = np.zeros((NUM_FOLDS, labels.max() + 1), dtype=np.int64)
    _, group_of = np.unique(groups, return_inverse=True)
    for group in rng.permutation(group_of.max() + 1):
        rows = np.flatnonzero(group_of == group)
        counts = np.bincount(labels[rows], minlength=sizes.shape[1])
        fold = min(range(NUM_FOLDS), key=lambda k: (sizes[k] @ counts, sizes[k].sum()))
        fold_of[rows] = fold
        sizes[fold] += counts
    for fold in range(NUM_FOLDS):
        held_out = np.flatnonzero(fold_of == fold)
        if len(held_out):
            yield np.flatnonzero(fold_of != fold), held_out


def _ridge(span: Span, labels: Integers, apart: Apart, num_classes: int) -> Member:
    """Ridge on one-hot targets, strength by the exact squared error of images left out, each alone or with its group.

    Source: Golub, Heath and Wahba 1979; with ``h`` the diagonal of the hat matrix, the error of an image left out is
    ``(fitted - y) / (1 - h)``. Of a group with the block ``H`` it is ``(1 - H)^-1 (fitted - y)``.
    """
    targets, shrinking = np.eye(num_classes), 1 / (span.energies[:, None] + RIDGE_STRENGTHS)
    prior = np.bincount(labels, minlength=num_classes) / len(labels)
    projected = np.zeros((len(span.energies), num_classes))
    for few in _chunks(len(labels)):
        projected += span.coordinates[few].T @ (targets[labels[few]] - prior)

    def errors(rows: Integers, together: bool, of: slice = slice(None)) -> Iterator[Floats]:
        """Of the images left out, ``(B, C)``, for each of the strengths; ``together`` or each alone."""
        points, wanted = span.coordinates[rows].astype(np.float64), targets[labels[rows]] - prior
        leverages = None if together else np.minimum(np.square(points) @ shrinking[:, of] + 1 / len(labels), 1 - 1e-9)
        for number, shrunk in enumerate(shrinking[:, of].T):
            residuals = points @ (projected * shrunk[:, None]) - wanted
            if leverages is None:
                yield _left_out_together(residuals, points * np.sqrt(shrunk), len(labels))
            else:
                yield residuals / (1 - leverages[:, number])[:, None]

    parts = list(_left_out_parts(apart.groups))
    squares = sum(np.array([np.vdot(each, each) for each in errors(rows, together)]) for rows, together in parts)
    best = int(np.argmin(squares))
    left_out = targets[labels]
    for rows, together in parts:
        left_out[rows] += next(errors(rows, together, slice(best, best + 1)))
    how = "leave-one-group-out" if any(together for _, together in parts) else "leave-one-out"
    note = f"ridge: strength {RIDGE_STRENGTHS[best]:.3g} by exact {how}"
    return Member("ridge", SHARPEN * projected * shrinking[:, best, None], SHARPEN * prior, SHARPEN * left_out, note)


def _left_out_parts(groups: Integers) -> Iterator[tuple[Integers, bool]]:
    """Rows to be left out: many that are each a group of its own, some at a time, and every other group together."""
    _, group_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    alone = np.flatnonzero(sizes[group_of] == 1)
    for few in _chunks(len(alone)):
        yield alone[few], False
    in_order = np.argsort(group_of, kind="stable")
    for rows in np.split(in_order, np.cumsum(sizes)[:-1]):
        if len(rows) > 1:
            yield rows, True


def _left_out_together(residuals: Floats, shrunk: Floats, num_images: int) -> Floats:
    """``(1 - H)^-1 residuals`` for ``H = shrunk @ shrunk.T + 1 / num_images``, by the smaller of both sides (Woodbury)."""
    side = np.full((len(shrunk), 1), num_images**-0.5)
    factor: Floats = np.hstack([shrunk, side]) * (1 - 1e-9)  # less than 1: a group may be all there is
    if len(factor) <= factor.shape[1]:
        return np.asarray(np.linalg.solve(np.eye(len(factor)) - factor @ factor.T, residuals))
    inner = np.linalg.solve(np.eye(factor.shape[1]) - factor.T @ factor, factor.T @ residuals)
    return np.asarray(residuals + factor @ inner)


def _logistic(span: Span, labels: Integers, apart: Apart, num_classes: int) -> Member:
    """L2-regularized multinomial logistic regression, strength by the cross-validated log-loss."""
    with warnings.catch_warnings():  # not fully converged is good enough on the path: the log-loss out of fold decides
        warnings.simplefilter("ignore")
        strength, scores = _best_strength(span, labels, apart.folds, num_classes)
        weight, bias = _fit_logistic(_logistic_model(), span.coordinates, labels, num_classes, strength)
    return Member(
        "logistic", weight, bias, scores, f"logistic regression: C {strength:.3g} by {len(apart.folds)}-fold log-loss"
    )


def _best_strength(span: Span, labels: Integers, folds: Folds, num_classes: int) -> tuple[float, Floats]:
    """The strength with the least log-loss out of fold, and the scores ``(N, C)`` there.

    The path goes from strong to weak regularization, each fit starting at the last one, and ends when the log-loss has
    risen twice.
    """
    best: tuple[float, float, Floats] | None = None
    rises = 0
    models = [_logistic_model() for _ in folds]
    points = span.coordinates.astype(np.float32, copy=False)  # twice as fast, and the strengths are a factor of three apart

    def held_out_scores(strength: float, model: LogisticRegression, fold: tuple[Integers, Integers]) -> Floats:
        rows, held_out = fold
        if span.is_of_many:  # no copy for each fold, for a quarter more work
            counts = np.zeros(len(points), dtype=np.bool_)
            counts[rows] = True
            weight, bias = _fit_logistic(model, points, labels, num_classes, strength, counts)
        else:
            weight, bias = _fit_logistic(model, points[rows], labels[rows], num_classes, strength)
        return points[held_out] @ weight.astype(points.dtype) + bias

    with ThreadPoolExecutor(max_workers=num_cores()) as pool:
        for strength in LOGISTIC_STRENGTHS:
            scores = np.zeros((len(labels), num_classes))
            found = pool.map(partial(held_out_scores, strength), models, folds)
            for (_, held_out), rows in zip(folds, found, strict=True):
                scores[held_out] = rows
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
    model: LogisticRegression,
    coordinates: Rows,
    labels: Integers,
    num_classes: int,
    strength: float,
    counts: NDArray[np.bool_] | None = None,
) -> tuple[Floats, Floats]:
    """``weight (R, C)`` and ``bias (C,)``; with ``counts`` ``(N,)`` only the images count for which it says so."""
    weight, bias = np.zeros((coordinates.shape[1], num_classes)), np.full(num_classes, ABSENT_SCORE)
    if len(np.unique(labels)) < 2:  # of a fold: there is nothing to tell apart
        bias[labels] = 0.0
        return weight, bias
    model.set_params(C=strength).fit(coordinates, labels, counts)
    if len(model.classes_) == 2:  # scikit-learn keeps one vector for two classes
        weight[:, model.classes_] = model.coef_.T * np.array([-0.5, 0.5])
        bias[model.classes_] = model.intercept_ * np.array([-0.5, 0.5])
    else:
        weight[:, model.classes_], bias[model.classes_] = model.coef_.T, model.intercept_
    return weight, bias


def _lda(span: Span, labels: Integers, apart: Apart, num_classes: int) -> Member:
    """Linear discriminant analysis, the shared covariance shrunk as Ledoit and Wolf (2004) say."""
    scores = np.zeros((len(labels), num_classes))
    for rows, held_out in apart.folds:
        weight, bias = _fit_lda(span.coordinates[rows], labels[rows], num_classes)
        scores[held_out] = span.coordinates[held_out] @ weight + bias
    weight, bias = _fit_lda(span.coordinates, labels, num_classes)
    return Member("lda", weight, bias, scores, "LDA: Ledoit-Wolf covariance")


def _fit_lda(coordinates: Rows, labels: Integers, num_classes: int) -> tuple[Floats, Floats]:
    from sklearn.covariance import ledoit_wolf

    weight, bias = np.zeros((coordinates.shape[1], num_classes)), np.full(num_classes, ABSENT_SCORE)
    present, index = np.unique(labels, return_inverse=True)
    if len(present) < 2:
        bias[present] = 0.0
        return weight, bias
    targets = np.eye(len(present))[index]
    counts = targets.sum(axis=0)
    means = (targets.T @ coordinates) / counts[:, None]
    covariance, _ = ledoit_wolf(coordinates - means[index], assume_centered=True)
    covariance[np.diag_indices_from(covariance)] += LEAST_VARIANCE
    weight[:, present] = np.linalg.solve(covariance, means.T)
    bias[present] = np.log(counts / counts.sum()) - 0.5 * np.sum(means.T * weight[:, present], axis=0)
    return weight, bias


_MEMBERS: dict[str, Callable[[Span, Integers, Apart, int], Member]] = {
    "ridge": _ridge,
    "logistic": _logistic,
    "lda": _lda,
}
