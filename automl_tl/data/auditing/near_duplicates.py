"""Near-duplicate images: resized, recompressed, a little cropped, brightened, or the next frame of a burst.

Candidates come from a coarse search; each is then registered (``registering``) and judged twice: the two must agree almost
perfectly, and far better than either agrees with the other images that look like it. The second rule keeps sets quiet in
which everything of a class looks alike: trousers on black, digits, brain scans. No chains: every pair stands for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from automl_tl.data.auditing.registering import band_passed, register, smoothed, unit_rows
from automl_tl.data.auditing.searching import nearest
from automl_tl.runtime.threads import num_cores

__all__ = ["near_duplicates"]

Floats = NDArray[np.float32]
Pairs = NDArray[np.int64]
Integers = NDArray[np.int32]

SIDE: Final = 32  # px

# All chosen on planted copies in 14 sets: decision 17, benchmarks/data_near_duplicates.py.
MIN_AGREEMENT: Final = 0.95
MAX_SHARE_OF_SPREAD: Final = 0.06
MIN_SPREAD: Final = 0.1  # so that among a dozen copies of one image the copies don't pass for the usual look
MIN_COARSE: Final = 0.9  # after registration of blurred thumbnails
MIN_SIMILAR: Final = 0.8  # of 8 x 8 thumbnails, unregistered; planted copies had 0.85 or more
MIN_PROMISING: Final = 0.75  # after two steps of registration
MIN_STARTED: Final = 0.5  # of blurred thumbnails, from the first start; below, other starts don't help either
# Times the disagreement that is allowed at last: pairs beyond it are given up early. They save half the time and no copy.
COARSE_SLACK, FINE_SLACK, TURNED_SLACK = 2.0, 4.0, 2.0
NUM_NEIGHBORS: Final = 24
NUM_CANDIDATES: Final = 6
SPREAD_RANKS: Final = slice(16, 24)  # a burst of up to 16 frames doesn't count as the usual look
STARTS: Final = (1.0, 0.85, 1.18)
MIN_STRUCTURE: Final = 2.0  # gray levels; below, an image is a blank area and noise
BATCH: Final = 1024  # images
PAIR_BATCH: Final = 256  # every thread holds some 100 KB per pair
SMALL_BATCH: Final = 128  # images, each beside its 25 neighbors


def near_duplicates(thumbnails: Iterable[bytes]) -> list[tuple[int, int, float]]:
    """Pairs ``(i, j, agreement)`` with i < j, sorted, of ``thumbnails``, each 32 x 32 levels. Deterministic.

    The agreement is the correlation of the registered, band-passed thumbnails, 0.95 to 1.
    """
    levels = np.frombuffer(b"".join(thumbnails), dtype=np.uint8).reshape(-1, SIDE, SIDE)
    contrast = _in_batches(levels, lambda images: band_passed(images, 0.6, 4.0).std(axis=(1, 2)))
    places = np.flatnonzero(contrast >= MIN_STRUCTURE)
    images = levels[places] if len(places) < len(levels) else levels  # spares a copy of all
    pairs, spread = _candidates(images)
    allowed = np.minimum(MAX_SHARE_OF_SPREAD * np.maximum(spread[pairs].min(axis=1), MIN_SPREAD), 1 - MIN_AGREEMENT)
    batches = [slice(start, start + PAIR_BATCH) for start in range(0, len(pairs), PAIR_BATCH)]
    with ThreadPoolExecutor(max_workers=num_cores()) as pool:  # numpy releases the interpreter lock
        agreements = list(pool.map(lambda batch: _agreement(images, pairs[batch], allowed[batch]), batches))
    agreement = np.concatenate([*agreements, np.zeros(0)])
    good = 1 - agreement <= allowed
    rows = zip(places[pairs[good]].tolist(), agreement[good].tolist(), strict=True)
    return sorted((i, j, round(value, 4)) for (i, j), value in rows)


def _in_batches(images: NDArray[np.uint8], describe: Callable[[Floats], NDArray[Any]]) -> NDArray[Any]:
    """``describe`` of all images, a batch at a time."""
    starts = range(0, max(len(images), 1), BATCH)  # one empty batch for no images
    return np.concatenate([describe(images[start : start + BATCH].astype(np.float32)) for start in starts])


def _candidates(images: NDArray[np.uint8]) -> tuple[Pairs, Floats]:
    """Pairs ``(M, 2)`` worth registering, each once, sorted; and how far from each image ``(N,)`` its usual neighbors are.

    The distance is 1 minus correlation.
    """
    rows = _in_batches(images, lambda some: unit_rows(_eight(smoothed(some, 1.0))))
    center = _in_batches(images, lambda some: unit_rows(_eight(_zoomed(some))))
    similar, products = nearest(rows, rows, NUM_NEIGHBORS + 1)
    inside, inside_products = nearest(rows, center, NUM_CANDIDATES)
    others = np.concatenate([similar[:, : NUM_CANDIDATES + 1], inside], axis=1)
    products = np.concatenate([products[:, : NUM_CANDIDATES + 1], inside_products], axis=1)
    itself = others == np.arange(len(images))[:, None]
    line, at = np.nonzero((products >= MIN_SIMILAR) & ~itself & (others >= 0))
    pair = np.sort(np.stack([line, others[line, at].astype(np.int64)]), axis=0)
    keys = np.unique(pair[0] * len(images) + pair[1])
    fine = _in_batches(images, lambda some: _fine_rows(some).astype(np.int8))
    return np.stack(np.divmod(keys, max(len(images), 1)), axis=1), _spread(fine, similar)


def _spread(fine: NDArray[np.int8], similar: Integers) -> Floats:
    """How far from each image its usual neighbors are."""
    spread = np.ones(len(fine), dtype=np.float32)
    for start in range(0, len(fine), SMALL_BATCH):
        block, own = similar[start : start + SMALL_BATCH], fine[start : start + SMALL_BATCH]
        others = fine[np.maximum(block, 0)]
        products = np.einsum("nkd,nd->nk", others.astype(np.float32), own.astype(np.float32) / _lengths(own)[:, None])
        products /= _lengths(others)
        products[(block < 0) | (block == np.arange(start, start + len(block))[:, None])] = -2
        ranked = -np.sort(-products, axis=1)[:, SPREAD_RANKS]
        known = ranked > -2
        distance = 1 - np.where(known, ranked, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        spread[start : start + SMALL_BATCH] = np.where(known.any(axis=1), distance, 1)
    return spread


def _fine_rows(images: Floats) -> Floats:
    """Band-passed images as rows of whole numbers, -127 to 127: correlations are right to 0.001, in a quarter of the room."""
    rows = unit_rows(band_passed(images, 0.6, 4.0))
    return np.asarray(np.rint(rows * (127 / np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-6))))


def _lengths(rows: NDArray[np.int8]) -> Floats:
    return np.asarray(np.maximum(np.linalg.norm(rows.astype(np.float32), axis=-1), 1))


def _agreement(thumbnails: NDArray[np.uint8], pairs: Pairs, allowed: Floats) -> Floats:
    """Best agreement of each pair, whichever of the two is laid over the other; 0 or too low where an early look says no.

    ``allowed`` ``(N,)`` is how much each pair may disagree at last.
    """
    images = thumbnails[pairs.ravel()].astype(np.float32)
    shape = images.shape[1:]
    coarse, place = _placed(_half(band_passed(images, 1.5, 6.0)).reshape(len(pairs), 2, 16, 16))
    promising = np.flatnonzero((coarse >= MIN_COARSE) & (1 - coarse <= COARSE_SLACK * allowed))
    images = band_passed(images.reshape(len(pairs), -1)[promising].reshape(-1, *shape), 0.6, 4.0)
    fine, place, allowed = images.reshape(len(promising), 2, *shape), place[promising], allowed[promising]
    agreement, placed = register(fine[:, 0], fine[:, 1], place, iterations=2)
    near = np.flatnonzero((agreement >= MIN_PROMISING) & (1 - agreement <= FINE_SLACK * allowed))
    further, _ = register(fine[near, 0], fine[near, 1], placed[near], iterations=6)
    agreement[near] = np.maximum(agreement[near], further)
    doubtful = np.flatnonzero((1 - agreement > allowed) & (1 - agreement <= TURNED_SLACK * allowed))
    turned, _ = register(fine[doubtful, 1], fine[doubtful, 0], _inverse(place[doubtful]), iterations=8)
    agreement[doubtful] = np.maximum(agreement[doubtful], turned)
    found = np.zeros(len(pairs), dtype=np.float32)
    found[promising] = agreement
    return found


def _placed(coarse: Floats) -> tuple[Floats, Floats]:
    """Where blurred pairs ``(N, 2, S, S)`` agree best, from several starts as long as they are needed."""
    best = np.full(len(coarse), -1, dtype=np.float32)
    best_place = np.ones((len(coarse), 4), dtype=np.float32)
    for scale in STARTS:
        least = -1 if scale == STARTS[0] else MIN_STARTED
        left = np.flatnonzero((best >= least) & (best < MIN_COARSE))
        start = np.tile(np.array([scale, 0, scale, 0], dtype=np.float32), (len(left), 1))
        found, place = register(coarse[left, 0], coarse[left, 1], start, iterations=4)
        better = found > best[left]
        best[left[better]], best_place[left[better]] = found[better], place[better]
    return best, best_place


def _inverse(place: Floats) -> Floats:
    scale, shift = place[:, [0, 2]], place[:, [1, 3]]
    return np.stack([1 / scale[:, 0], -shift[:, 0] / scale[:, 0], 1 / scale[:, 1], -shift[:, 1] / scale[:, 1]], axis=1)


def _half(images: Floats) -> Floats:
    side = images.shape[-1] // 2
    return np.asarray(images.reshape(len(images), side, 2, side, 2).mean(axis=(2, 4)), dtype=np.float32)


def _eight(images: Floats) -> Floats:
    side = images.shape[-1] // 8
    return np.asarray(images.reshape(len(images), 8, side, 8, side).mean(axis=(2, 4)), dtype=np.float32)


def _zoomed(images: Floats) -> Floats:
    """The central 28 of 32 pixels, spread over the whole side: what a crop of the image would look like."""
    size = images.shape[-1]
    at = np.linspace(size / 16, size - 1 - size / 16, size, dtype=np.float32)
    weights = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(size, dtype=np.float32)))
    return smoothed(np.asarray(weights @ images @ weights.T, dtype=np.float32), 1.0)
