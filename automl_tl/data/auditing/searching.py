"""Nearest rows by inner product: exact for tens of thousands, in cells around pivots beyond that."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["nearest"]

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

EXACT_UP_TO: Final = 20_000  # rows; 20,000 squared is below a second on two cores
BLOCK: Final = 256
CELLS_PER_ROW: Final = 2
CELLS_PER_QUERY: Final = 6


def nearest(rows: Floats, queries: Floats, num: int, *, exact_up_to: int = EXACT_UP_TO) -> tuple[Integers, Floats]:
    """The ``num`` most similar ``rows (N, D)`` of each of ``queries (M, D)``, best first: indices and products ``(M, num)``.

    Where there are fewer than ``num`` the rest is index -1 and product -2. Beyond ``exact_up_to`` rows only the rows in
    the cells nearest to a query are compared: the work grows as N to the power of 1.5, and few neighbours are missed.
    """
    if len(rows) <= exact_up_to:
        return _best_of(rows, queries, np.arange(len(rows)), num)
    pivots = rows[:: int(len(rows) ** 0.5)]
    row_cells, _ = _best_of(pivots, rows, np.arange(len(pivots)), CELLS_PER_ROW)
    query_cells, _ = _best_of(pivots, queries, np.arange(len(pivots)), CELLS_PER_QUERY)
    indices = np.full((len(queries), CELLS_PER_QUERY, num), -1, dtype=np.int32)
    products = np.full(indices.shape, -2, dtype=np.float32)
    rows_of, queries_of = _members(row_cells, len(pivots)), _members(query_cells, len(pivots))
    for (members, _), (asking, slots) in zip(rows_of, queries_of, strict=True):
        indices[asking, slots], products[asking, slots] = _best_of(rows[members], queries[asking], members, num)
    found, how_similar = np.full((len(queries), num), -1, dtype=np.int64), np.full((len(queries), num), -2, dtype=np.float32)
    for start in range(0, len(queries), BLOCK):
        some = slice(start, start + BLOCK)
        lines = len(indices[some])
        found[some], how_similar[some] = _merged(indices[some].reshape(lines, -1), products[some].reshape(lines, -1), num)
    return found, how_similar


def _best_of(rows: Floats, queries: Floats, names: Integers, num: int) -> tuple[Integers, Floats]:
    indices = np.full((len(queries), num), -1, dtype=np.int64)
    products = np.full((len(queries), num), -2, dtype=np.float32)
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
    who, slot = np.divmod(np.arange(cells.size), cells.shape[1])
    order = np.argsort(cells.ravel(), kind="stable")
    bounds = np.searchsorted(cells.ravel()[order], np.arange(num_cells + 1))
    return [(who[order[a:b]], slot[order[a:b]]) for a, b in pairwise(bounds)]


def _merged(indices: NDArray[np.int32], products: Floats, num: int) -> tuple[Integers, Floats]:
    """Best ``num`` per line without repetitions."""
    order = np.lexsort((indices, -products))
    indices, products = np.take_along_axis(indices, order, axis=1), np.take_along_axis(products, order, axis=1)
    repeated = np.zeros(indices.shape, dtype=bool)
    for column in range(1, indices.shape[1]):
        repeated[:, column] = (indices[:, :column] == indices[:, [column]]).any(axis=1)
    products = np.where(repeated | (indices < 0), np.float32(-2), products)
    known = np.where(products == -2, -1, indices).astype(np.int64)
    order = np.argsort(-products, axis=1, kind="stable")[:, :num]
    return np.take_along_axis(known, order, axis=1), np.take_along_axis(products, order, axis=1)
