"""Near-duplicate images: resized, recompressed, slightly cropped, brightened, or the next frame of a burst.

A coarse search gives candidates. Each pair is registered and judged twice: the two must agree almost perfectly, and far better
than either agrees with the other images that look like it. The second rule keeps datasets quiet in which everything of a class
looks alike: trousers on black, digits, brain scans. There are no chains: every pair is judged by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from automl_tl.data.audit.registration import band_passed, register, smoothed, unit_rows
from automl_tl.runtime.threads import num_cores

Floats = NDArray[np.float32]
Indices = NDArray[np.int32]
Pairs = NDArray[np.int64]
Levels = Callable[[NDArray[Any]], Floats]  # places of images -> their thumbnails

SIDE_PX: Final = 32

# All chosen on planted copies in 14 datasets: decision 17, benchmarks/data_near_duplicates.py.
MIN_AGREEMENT: Final = 0.95
MAX_SHARE_OF_SPREAD: Final = 0.06
MIN_SPREAD: Final = 0.1  # so that among a dozen copies of one image the copies don't pass for the usual look
MIN_COARSE: Final = 0.9  # after registration of blurred thumbnails
MIN_SIMILAR: Final = 0.8  # of 8 x 8 thumbnails, unregistered; planted copies had 0.85 or more
MIN_PROMISING: Final = 0.75  # after two steps of registration
MIN_STARTED: Final = 0.5  # of blurred thumbnails, from the first start; below, other starts don't help either
# Multiples of the disagreement that is allowed at last: beyond, a pair is given up early. Saves half the time, loses no copy.
COARSE_SLACK, FINE_SLACK, SWAPPED_SLACK = 2.0, 4.0, 2.0
NUM_NEIGHBORS: Final = 24
NUM_CANDIDATES: Final = 6
SPREAD_RANKS: Final = slice(16, 24)  # a burst of up to 16 frames doesn't count as the usual look
STARTS: Final = (1.0, 0.85, 1.18)  # scales
MIN_STRUCTURE: Final = 2.0  # gray levels; below, an image is a blank area and noise
BATCH: Final = 1024  # images
PAIR_BATCH: Final = 256  # every thread holds some 100 KB per pair
SPREAD_BATCH: Final = 128  # images, each with its 24 neighbors


def find_near_duplicates(num_images: int, thumbnail: Callable[[int], bytes]) -> list[tuple[int, int, float]]:
    """Find near-duplicates. Deterministic.

    Args:
        num_images: number of images.
        thumbnail: returns the 32 x 32 levels of an image, from 0 to ``num_images - 1``; called from several threads.

    Returns:
        Pairs ``(i, j, agreement)`` with i < j, sorted. The agreement is the correlation of the registered, band-passed
        thumbnails, 0.95 to 1.
    """
    levels = partial(_levels, thumbnail)
    # 1. Pass over images without structure.
    contrast = _in_batches(num_images, levels, lambda images: band_passed(images, 0.6, 4.0).std(axis=(1, 2)))
    places = np.flatnonzero(contrast >= MIN_STRUCTURE)
    levels = partial(_levels, lambda at: thumbnail(int(places[at])))
    # 2. Find candidate pairs, and how much each pair may disagree.
    rows = _in_batches(len(places), levels, lambda images: unit_rows(_averaged(smoothed(images, 1.0), 8)))
    search = NeighborSearch(rows)
    pairs = _candidates(levels, rows, search)
    with ThreadPoolExecutor(max_workers=num_cores()) as pool:  # numpy releases the interpreter lock
        images = np.unique(pairs)
        batches = [images[start : start + SPREAD_BATCH] for start in range(0, len(images), SPREAD_BATCH)]
        spread = np.ones(len(places), dtype=np.float32)
        spreads = pool.map(lambda batch: _spread(levels, batch, search.nearest(rows[batch], NUM_NEIGHBORS + 1)[0]), batches)
        spread[images] = np.concatenate([*spreads, np.zeros(0, dtype=np.float32)])
        allowed = np.minimum(MAX_SHARE_OF_SPREAD * np.maximum(spread[pairs].min(axis=1), MIN_SPREAD), 1 - MIN_AGREEMENT)
        # 3. Register each pair.
        slices = [slice(start, start + PAIR_BATCH) for start in range(0, len(pairs), PAIR_BATCH)]
        agreements = pool.map(lambda some: _agreement(levels(pairs[some].ravel()), allowed[some]), slices)
        agreement = np.concatenate([*agreements, np.zeros(0)])
    good = 1 - agreement <= allowed
    near_duplicates = zip(places[pairs[good]].tolist(), agreement[good].tolist(), strict=True)
    return sorted((i, j, round(value, 4)) for (i, j), value in near_duplicates)


def _levels(thumbnail: Callable[[int], bytes], places: NDArray[Any]) -> Floats:
    """``(N, 32, 32)``: the thumbnails at ``places``."""
    joined = b"".join([thumbnail(place) for place in places.tolist()])
    return np.frombuffer(joined, dtype=np.uint8).reshape(-1, SIDE_PX, SIDE_PX).astype(np.float32)


def _in_batches(num_images: int, levels: Levels, describe: Callable[[Floats], NDArray[Any]]) -> NDArray[Any]:
    """``describe`` of all thumbnails, a batch at a time."""
    batches = [describe(levels(np.arange(*bounds))) for bounds in _bounds(num_images)]
    return np.concatenate(batches)


def _bounds(num: int) -> Iterator[tuple[int, int]]:
    """First and last + 1 of every batch; one empty batch for no images."""
    return ((start, min(start + BATCH, num)) for start in range(0, max(num, 1), BATCH))


def _candidates(levels: Levels, rows: Floats, search: NeighborSearch) -> Pairs:
    """Pairs ``(M, 2)`` worth registering, each once, sorted."""
    keys: list[Pairs] = []
    for first, last in _bounds(len(rows)):
        similar, products = search.nearest(rows[first:last], NUM_CANDIDATES + 1)
        # What a crop of an image would look like finds the crop.
        center = unit_rows(_averaged(_zoomed(levels(np.arange(first, last))), 8))
        inside, inside_products = search.nearest(center, NUM_CANDIDATES)
        others = np.concatenate([similar, inside], axis=1).astype(np.int64)
        products = np.concatenate([products, inside_products], axis=1)
        own = np.broadcast_to(np.arange(first, last)[:, None], others.shape)
        worth = (products >= MIN_SIMILAR) & (others != own) & (others >= 0)
        keys.append((np.minimum(own, others) * len(rows) + np.maximum(own, others))[worth])
    return np.stack(np.divmod(np.unique(np.concatenate(keys)), max(len(rows), 1)), axis=1)


def _spread(levels: Levels, images: Pairs, similar: Indices) -> Floats:
    """``(N,)``: how far (1 minus correlation) from each of ``images (N,)`` its usual neighbors among ``similar (N, K)`` are."""
    known = (similar >= 0) & (similar != images[:, None])
    places, at = np.unique(np.column_stack([images, np.where(known, similar, images[:, None])]), return_inverse=True)
    fine = _rounded_rows(levels(places))[at.reshape(len(images), -1)]
    lengths = np.maximum(np.linalg.norm(fine, axis=-1), 1)
    products = np.einsum("nkd,nd->nk", fine[:, 1:], fine[:, 0] / lengths[:, :1]) / lengths[:, 1:]
    products[~known] = -2
    ranked = -np.sort(-products, axis=1)[:, SPREAD_RANKS]
    known = ranked > -2
    distance = 1 - np.where(known, ranked, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return np.asarray(np.where(known.any(axis=1), distance, 1), dtype=np.float32)


def _rounded_rows(images: Floats) -> Floats:
    """Band-passed images as rows of whole numbers, -127 to 127."""
    rows = unit_rows(band_passed(images, 0.6, 4.0))
    return np.asarray(np.rint(rows * (127 / np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-6))))


def _agreement(images: Floats, allowed: Floats) -> Floats:
    """``(N,)``: best agreement of pairs, whichever of the two is laid over the other; 0 or too low where given up early.

    Args:
        images: ``(2 * N, S, S)``, the two of a pair in succession.
        allowed: ``(N,)``, how much each pair may disagree at last.
    """
    shape = images.shape[1:]
    # 1. Register blurred halves, and go on with the promising pairs.
    coarse, place = _coarse_placement(_averaged(band_passed(images, 1.5, 6.0), 16).reshape(-1, 2, 16, 16))
    promising = np.flatnonzero((coarse >= MIN_COARSE) & (1 - coarse <= COARSE_SLACK * allowed))
    images = band_passed(images.reshape(len(allowed), -1)[promising].reshape(-1, *shape), 0.6, 4.0)
    fine, place, slack = images.reshape(len(promising), 2, *shape), place[promising], allowed[promising]
    # 2. Register all pixels, first a little, then to the end.
    agreement, placed = register(fine[:, 0], fine[:, 1], place, iterations=2)
    near = np.flatnonzero((agreement >= MIN_PROMISING) & (1 - agreement <= FINE_SLACK * slack))
    further, _ = register(fine[near, 0], fine[near, 1], placed[near], iterations=6)
    agreement[near] = np.maximum(agreement[near], further)
    # 3. Swap the two where that may decide.
    doubtful = np.flatnonzero((1 - agreement > slack) & (1 - agreement <= SWAPPED_SLACK * slack))
    swapped, _ = register(fine[doubtful, 1], fine[doubtful, 0], _inverse(place[doubtful]), iterations=8)
    agreement[doubtful] = np.maximum(agreement[doubtful], swapped)
    best = np.zeros(len(allowed), dtype=np.float32)
    best[promising] = agreement
    return best


def _coarse_placement(coarse: Floats) -> tuple[Floats, Floats]:
    """Agreement ``(N,)`` and placement ``(N, 4)`` of blurred pairs ``(N, 2, S, S)``, from as many starts as needed."""
    best = np.full(len(coarse), -1, dtype=np.float32)
    best_place = np.ones((len(coarse), 4), dtype=np.float32)
    for scale in STARTS:
        least = -1 if scale == STARTS[0] else MIN_STARTED
        left = np.flatnonzero((best >= least) & (best < MIN_COARSE))
        start = np.tile(np.array([scale, 0, scale, 0], dtype=np.float32), (len(left), 1))
        agreement, place = register(coarse[left, 0], coarse[left, 1], start, iterations=4)
        better = agreement > best[left]
        best[left[better]], best_place[left[better]] = agreement[better], place[better]
    return best, best_place


def _inverse(place: Floats) -> Floats:
    scale, shift = place[:, [0, 2]], place[:, [1, 3]]
    return np.stack([1 / scale[:, 0], -shift[:, 0] / scale[:, 0], 1 / scale[:, 1], -shift[:, 1] / scale[:, 1]], axis=1)


def _averaged(images: Floats, side: int) -> Floats:
    """``(N, side, side)``: the means of equal blocks."""
    block = images.shape[-1] // side
    return np.asarray(images.reshape(-1, side, block, side, block).mean(axis=(2, 4)), dtype=np.float32)


def _zoomed(images: Floats) -> Floats:
    """The central 28 of 32 pixels, enlarged to the whole side: what a crop of the image would look like."""
    size = images.shape[-1]
    at = np.linspace(size / 16, size - 1 - size / 16, size, dtype=np.float32)
    weights = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(size, dtype=np.float32)))
    return smoothed(np.asarray(weights @ images @ weights.T, dtype=np.float32), 1.0)


# -------------------------------------------------------------------------------------------------------------- search

EXACT_UP_TO: Final = 20_000  # rows; 20,000 squared takes less than a second on two cores
QUERY_BLOCK: Final = 256
CELLS_PER_QUERY: Final = 12


@final
class NeighborSearch:
    """Search for the most similar of ``rows (N, D)`` by inner product.

    Beyond ``exact_up_to`` rows only the rows in the cells nearest to a query are compared (an inverted file with about the
    square root of N cells): the work grows as N to the power of 1.5, and few neighbors are missed.
    """

    def __init__(self, rows: Floats, *, exact_up_to: int = EXACT_UP_TO) -> None:
        self._rows, self._members = rows, list[Indices]()
        if len(rows) > exact_up_to:  # each row belongs to the cell of the nearest pivot
            self._pivots = rows[:: int(len(rows) ** 0.5)].copy()
            cells = _best_of(self._pivots, rows, 1)[0][:, 0]
            order = np.argsort(cells, kind="stable").astype(np.int32)
            self._members = np.split(order, np.searchsorted(cells[order], np.arange(1, len(self._pivots))))

    def nearest(self, queries: Floats, num: int) -> tuple[Indices, Floats]:
        """Find the rows that are most similar.

        Args:
            queries: ``(M, D)``.
            num: how many for each.

        Returns:
            Indices ``(M, num)`` and inner products ``(M, num)``, best first; -1 and -2 where there are fewer.
        """
        if not self._members:
            return _best_of(self._rows, queries, num)
        near = _best_of(self._pivots, queries, CELLS_PER_QUERY)[0]
        indices, products = _nothing(len(queries), CELLS_PER_QUERY, num)
        for cell, members in enumerate(self._members):
            query, slot = np.nonzero(near == cell)
            if len(query):
                places, products[query, slot] = _best_of(self._rows[members], queries[query], num)
                indices[query, slot] = np.where(places >= 0, members[places], -1)
        indices, products = indices.reshape(len(queries), -1), products.reshape(len(queries), -1)
        best = np.lexsort((indices, -products))[:, :num]
        return np.take_along_axis(indices, best, axis=1), np.take_along_axis(products, best, axis=1)


def _nothing(*shape: int) -> tuple[Indices, Floats]:
    return np.full(shape, -1, dtype=np.int32), np.full(shape, -2, dtype=np.float32)


def _best_of(rows: Floats, queries: Floats, num: int) -> tuple[Indices, Floats]:
    """As ``NeighborSearch.nearest``, by comparing all ``rows``."""
    indices, products = _nothing(len(queries), num)
    num = min(num, len(rows))
    for start in range(0, len(queries) if num else 0, QUERY_BLOCK):
        block = queries[start : start + QUERY_BLOCK] @ rows.T
        order = np.argpartition(-block, num - 1, axis=1)[:, :num]
        values = np.take_along_axis(block, order, axis=1)
        # Equal products are ordered by index, so that the result doesn't depend on the size of blocks.
        order = np.take_along_axis(order, ranked := np.lexsort((order, -values)), axis=1)
        indices[start : start + QUERY_BLOCK, :num] = order
        products[start : start + QUERY_BLOCK, :num] = np.take_along_axis(values, ranked, axis=1)
    return indices, products
