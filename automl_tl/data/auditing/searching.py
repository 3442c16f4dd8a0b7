"""Nearest rows by inner product: exact for tens of thousands, in cells around pivots beyond that."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["nearest"]

Floats = NDArray[np.float32]
Integers = NDArray[np.int32]

EXACT_UP_TO: Final = 20_000  # rows; 20,000 squared is below a second on two cores
BLOCK: Final = 256  # queries
AT_ONCE: Final = 32_768  # queries, each with the neighbors in all its cells: 40 MB; more would cost memory, fewer time
CELLS_PER_ROW: Final = 2
CELLS_PER_QUERY: Final = 6


def nearest(rows: Floats, queries: Floats, num: int, *, exact_up_to: int = EXACT_UP_TO) -> tuple[Integers, Floats]:
    """Find the ``num`` most similar ``rows (N, D)`` of each of ``queries (M, D)``.

    Beyond ``exact_up_to`` rows only the rows in the cells nearest to a query are compared: the work grows as N to the power
    of 1.5, and few neighbors are missed.

    Args:
        rows: to search.
        queries: whose neighbors are wanted.
        num: of neighbors.
        exact_up_to: number of rows.

    Returns:
        Indices ``(M, num)`` and inner products ``(M, num)``, best first; -1 and -2 where there are fewer.
    """
    if len(rows) <= exact_up_to:
        return _best_of(rows, queries, np.arange(len(rows), dtype=np.int32), num)
    pivots = rows[:: int(len(rows) ** 0.5)].copy()
    members = [row for row, _ in _members(_cells_of(rows, pivots, CELLS_PER_ROW), len(pivots))]
    indices, products = _nothing(len(queries), num)
    for start in range(0, len(queries), AT_ONCE):
        some = slice(start, start + AT_ONCE)
        indices[some], products[some] = _best_in_cells(rows, queries[some], pivots, members, num)
    return indices, products


def _best_in_cells(rows: Floats, queries: Floats, pivots: Floats, members: list[Integers], num: int) -> tuple[Integers, Floats]:
    """As ``_best_of``, among the rows in the cells nearest to each query."""
    indices, products = _nothing(len(queries), CELLS_PER_QUERY, num)
    for inside, (who, slot) in zip(members, _members(_cells_of(queries, pivots, CELLS_PER_QUERY), len(pivots)), strict=True):
        if len(who):
            indices[who, slot], products[who, slot] = _best_of(rows[inside], queries[who], inside, num)
    return _merged(indices.reshape(len(queries), -1), products.reshape(len(queries), -1), num)


def _cells_of(rows: Floats, pivots: Floats, num: int) -> Integers:
    """The ``num`` cells nearest to each row."""
    return _best_of(pivots, rows, np.arange(len(pivots), dtype=np.int32), num)[0]


def _nothing(*shape: int) -> tuple[Integers, Floats]:
    return np.full(shape, -1, dtype=np.int32), np.full(shape, -2, dtype=np.float32)


def _best_of(rows: Floats, queries: Floats, names: Integers, num: int) -> tuple[Integers, Floats]:
    indices, products = _nothing(len(queries), num)
    kept = min(num, len(rows))
    for start in range(0, len(queries) if kept else 0, BLOCK):
        block = queries[start : start + BLOCK] @ rows.T
        order = np.argpartition(-block, kept - 1, axis=1)[:, :kept]
        values = np.take_along_axis(block, order, axis=1)
        # Equal products are ordered by index, so that the answer doesn't depend on how the work was cut.
        order = np.take_along_axis(order, ranked := np.lexsort((order, -values)), axis=1)
        indices[start : start + BLOCK, :kept] = names[order]
        products[start : start + BLOCK, :kept] = np.take_along_axis(values, ranked, axis=1)
    return indices, products


def _members(cells: Integers, num_cells: int) -> list[tuple[Integers, Integers]]:
    """For each cell, who is in it and as whose how-manieth cell."""
    who, slot = np.divmod(np.arange(cells.size, dtype=np.int32), np.int32(cells.shape[1]))
    order = np.argsort(cells.ravel(), kind="stable")
    bounds = np.searchsorted(cells.ravel()[order], np.arange(num_cells + 1))
    return [(who[order[a:b]], slot[order[a:b]]) for a, b in pairwise(bounds)]


def _merged(indices: Integers, products: Floats, num: int) -> tuple[Integers, Floats]:
    """Best ``num`` per line without repetitions."""
    order = np.lexsort((indices, -products))
    indices, products = np.take_along_axis(indices, order, axis=1), np.take_along_axis(products, order, axis=1)
    repeated = np.zeros(indices.shape, dtype=bool)
    for column in range(1, indices.shape[1]):
        repeated[:, column] = (indices[:, :column] == indices[:, [column]]).any(axis=1)
    products = np.where(repeated | (indices < 0), np.float32(-2), products)
    known = np.where(products == -2, np.int32(-1), indices)
    order = np.argsort(-products, axis=1, kind="stable")[:, :num]
    return np.take_along_axis(known, order, axis=1), np.take_along_axis(products, order, axis=1)
