"""Nearest rows by inner product: exact for tens of thousands, in cells around pivots beyond that."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from automl_tl.data.on_disk import DiskArray

__all__ = ["nearest"]

Floats = NDArray[np.float32]
Integers = NDArray[np.int32]

EXACT_UP_TO: Final = 20_000  # rows; 20,000 squared is below a second on two cores
BLOCK: Final = 256  # queries
SLAB: Final = 32_768  # rows that a block of queries is compared with at a time: 100 MB
AT_ONCE: Final = 32_768  # queries, each with the neighbors in all its cells: 40 MB; more would cost memory, fewer time
SORTED: Final = 2**20  # members of cells that are in memory while they are put in order
CELLS_PER_ROW: Final = 2
CELLS_PER_QUERY: Final = 6


def nearest(rows: DiskArray, queries: DiskArray, num: int, *, exact_up_to: int = EXACT_UP_TO) -> DiskArray:
    """The ``num`` most similar ``rows (N, D)`` of each of ``queries (M, D)``, best first: ``index`` and ``product``.

    Each row of the answer holds ``num`` of both; where there are fewer the rest is index -1 and product -2. Beyond
    ``exact_up_to`` rows only the rows in the cells nearest to a query are compared: the work grows as N to the power of 1.5,
    and few neighbors are missed. Memory is that of a slab, whatever N and M.
    """
    answer = np.dtype([("index", np.int32, num), ("product", np.float32, num)])
    if len(rows) <= exact_up_to:
        everything, names = rows[:], np.arange(len(rows), dtype=np.int32)
        found = (_best_of(everything, some, names, num) for some in queries.blocks(AT_ONCE))
    else:
        cells = _Cells(rows)
        found = (cells.best_of(some, num) for some in queries.blocks(AT_ONCE))
    return DiskArray(answer, (_beside(answer, indices, products) for indices, products in found))


def _beside(kind: np.dtype[Any], indices: Integers, products: Floats) -> NDArray[Any]:
    both = np.empty(len(indices), dtype=kind)
    both["index"], both["product"] = indices, products
    return both


@final
class _Cells:
    """Rows by the pivots that they are nearest to, every row in two cells; which are in which lies on disk."""

    def __init__(self, rows: DiskArray) -> None:
        self._rows = rows
        self._pivots = rows.take(np.arange(0, len(rows), int(len(rows) ** 0.5)))
        self._of_pivots = np.arange(len(self._pivots), dtype=np.int32)
        cells = DiskArray((np.int32, CELLS_PER_ROW), (self._of(some, CELLS_PER_ROW) for some in rows.blocks(AT_ONCE)))
        sizes = sum(np.bincount(some.ravel(), minlength=len(self._pivots)) for some in cells.blocks(AT_ONCE))
        self._bounds = np.concatenate([[0], np.cumsum(sizes)])
        self._members = DiskArray(np.int32, self._in_order(cells))

    def best_of(self, queries: Floats, num: int) -> tuple[Integers, Floats]:
        """As ``_best_of``, among the rows in the cells nearest to each query."""
        indices, products = _nothing(len(queries), CELLS_PER_QUERY, num)
        for cell, (asking, slots) in enumerate(_members(self._of(queries, CELLS_PER_QUERY), len(self._pivots))):
            if len(asking):
                indices[asking, slots], products[asking, slots] = self._best_in(cell, queries[asking], num)
        found, how_similar = _nothing(len(queries), num)
        for start in range(0, len(queries), BLOCK):
            some = slice(start, start + BLOCK)
            lines = len(indices[some])
            found[some], how_similar[some] = _merged(indices[some].reshape(lines, -1), products[some].reshape(lines, -1), num)
        return found, how_similar

    def _best_in(self, cell: int, queries: Floats, num: int) -> tuple[Integers, Floats]:
        first, end = self._bounds[cell : cell + 2].tolist()
        best = _nothing(len(queries), num)
        for start in range(first, end, SLAB):
            inside = self._members[start : min(start + SLAB, end)]
            found = _best_of(self._rows.take(inside), queries, inside, num)
            best = found if start == first else _best_of_both(best, found, num)
        return best

    def _of(self, queries: Floats, num: int) -> Integers:
        return _best_of(self._pivots, queries, self._of_pivots, num)[0]

    def _in_order(self, cells: DiskArray) -> Iterator[Integers]:
        """Numbers of the rows in the first cell, in the second ...; as many cells at a time as have ``SORTED`` members."""
        first = 0
        while first < len(self._pivots):
            last = max(int(np.searchsorted(self._bounds, self._bounds[first] + SORTED, side="right")) - 1, first + 1)
            keys = [np.zeros(0, dtype=np.int64)]
            for start, block in zip(range(0, len(cells), AT_ONCE), cells.blocks(AT_ONCE), strict=True):
                who, slot = np.nonzero((block >= first) & (block < last))
                keys.append(block[who, slot].astype(np.int64) * len(cells) + who + start)
            yield (np.sort(np.concatenate(keys)) % len(cells)).astype(np.int32)
            first = last


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


def _best_of_both(some: tuple[Integers, Floats], others: tuple[Integers, Floats], num: int) -> tuple[Integers, Floats]:
    indices, products = (np.concatenate(both, axis=1) for both in zip(some, others, strict=True))
    return _merged(indices, products, num)


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
