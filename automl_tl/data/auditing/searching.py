"""Nearest rows by inner product: exact for tens of thousands, in cells around pivots beyond that."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["nearest"]

Floats = NDArray[np.float32]
Integers = NDArray[np.int32]

EXACT_UP_TO: Final = 20_000  # rows; 20,000 squared is below a second on two cores
BLOCK: Final = 256
AT_ONCE: Final = 32_768  # queries, each with the neighbours in all its cells: 40 MB; more would cost memory, fewer time
CELLS_PER_ROW: Final = 2
CELLS_PER_QUERY: Final = 6


def nearest(rows: Floats, queries: Floats, num: int, *, exact_up_to: int = EXACT_UP_TO) -> tuple[Integers, Floats]:
    """The ``num`` most similar ``rows (N, D)`` of each of ``queries (M, D)``, best first: indices and products ``(M, num)``.

    Where there are fewer than ``num`` the rest is index -1 and product -2. Beyond ``exact_up_to`` rows only the rows in
    the cells nearest to a query are compared: the work grows as N to the power of 1.5, and few neighbours are missed.
    """
    if len(rows) <= exact_up_to:
        return _best_of(rows, queries, np.arange(len(rows), dtype=np.int32), num)
    pivots = rows[:: int(len(rows) ** 0.5)]
    of_pivots = np.arange(len(pivots), dtype=np.int32)
    members = [who for who, _ in _members(_best_of(pivots, rows, of_pivots, CELLS_PER_ROW)[0], len(pivots))]
    indices, products = _nothing(len(queries), num)
    for start in range(0, len(queries), AT_ONCE):
        some = queries[start : start + AT_ONCE]
        cells, _ = _best_of(pivots, some, of_pivots, CELLS_PER_QUERY)
        indices[start : start + AT_ONCE], products[start : start + AT_ONCE] = _best_in_cells(rows, some, members, cells, num)
    return indices, products


def _best_in_cells(
    rows: Floats, queries: Floats, members: Sequence[Integers], cells: Integers, num: int
) -> tuple[Integers, Floats]:
    indices, products = _nothing(len(queries), CELLS_PER_QUERY, num)
    for inside, (asking, slots) in zip(members, _members(cells, len(members)), strict=True):
        indices[asking, slots], products[asking, slots] = _best_of(rows[inside], queries[asking], inside, num)
    found, how_similar = _nothing(len(queries), num)
    for start in range(0, len(queries), BLOCK):
        some = slice(start, start + BLOCK)
        lines = len(indices[some])
        found[some], how_similar[some] = _merged(indices[some].reshape(lines, -1), products[some].reshape(lines, -1), num)
    return found, how_similar


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
