"""Pictures that are one picture: resized, recompressed, a little cropped, brightened, or the next frame of a burst.

Candidates come from a coarse search; each is then registered (``registering``) and judged twice: the two must agree almost
perfectly, and far better than either agrees with the other pictures that look like it. The second rule keeps sets quiet in
which everything of a class looks alike: trousers on black, digits, brain scans. No chains: every pair stands for itself.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
from numpy.typing import NDArray

from automl_tl.data.auditing.registering import band_passed, register, smoothed, unit_rows
from automl_tl.data.auditing.searching import nearest

__all__ = ["near_duplicates"]

Floats = NDArray[np.float32]
Pairs = NDArray[np.int64]

# All chosen on planted copies in 14 sets: DECISIONS "near-duplicates", benchmarks/data_near_duplicates.py.
MIN_AGREEMENT: Final = 0.95
MAX_SHARE_OF_SPREAD: Final = 0.06
MIN_SPREAD: Final = 0.1  # so that among a dozen copies of one picture the copies don't pass for the usual look
MIN_COARSE: Final = 0.9  # after registration of blurred thumbnails
MIN_DOUBTFUL: Final = 0.85  # laid the other way round, such a pair may still agree
MIN_SIMILAR: Final = 0.5  # of 8 x 8 thumbnails, unregistered
NUM_NEIGHBOURS: Final = 24
NUM_CANDIDATES: Final = 6
SPREAD_RANKS: Final = slice(16, 24)  # a burst of up to 16 frames doesn't count as the usual look
STARTS: Final = (1.0, 0.85, 1.18)
MIN_STRUCTURE: Final = 2.0  # grey levels; below, a picture is a blank area and noise
BATCH: Final = 1024


def near_duplicates(thumbnails: NDArray[np.uint8]) -> list[tuple[int, int, float]]:
    """Pairs ``(i, j, agreement)`` with i < j, sorted, of ``thumbnails (N, 32, 32)``. Deterministic.

    The agreement is the correlation of the registered, band-passed thumbnails, 0.95 to 1.
    """
    pictures = thumbnails.astype(np.float32)
    structured = np.flatnonzero(band_passed(pictures, 0.6, 4.0).std(axis=(1, 2)) >= MIN_STRUCTURE)
    if len(structured) < 2:
        return []
    pictures = pictures[structured]
    pairs, spread = _candidates(pictures)
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:  # numpy lets go of the interpreter lock
        batches = [pairs[at : at + BATCH] for at in range(0, len(pairs), BATCH)]
        agreements = np.concatenate([*pool.map(lambda batch: _agreement(pictures, batch), batches), np.zeros(0)])
    usual = np.maximum(np.minimum(spread[pairs[:, 0]], spread[pairs[:, 1]]), MIN_SPREAD)
    good = (agreements >= MIN_AGREEMENT) & (1 - agreements <= MAX_SHARE_OF_SPREAD * usual)
    found = zip(np.sort(structured[pairs[good]], axis=1), agreements[good], strict=True)
    return sorted((int(i), int(j), round(float(agreement), 4)) for (i, j), agreement in found)


def _candidates(pictures: Floats) -> tuple[Pairs, Floats]:
    """Pairs worth registering, and for each picture how far its usual neighbours are from it (1 minus correlation)."""
    rows = unit_rows(_eight(smoothed(pictures, 1.0)))
    centre = unit_rows(_eight(_zoomed(pictures)))
    similar, products = nearest(rows, rows, NUM_NEIGHBOURS + 1)
    inside, inside_products = nearest(rows, centre, NUM_CANDIDATES)
    spread = _spread(pictures, similar)
    me = np.arange(len(pictures))
    first = slice(0, NUM_CANDIDATES + 1)
    others = np.concatenate([similar[:, first], inside], axis=1)
    wanted = np.concatenate([products[:, first], inside_products], axis=1) >= MIN_SIMILAR
    wanted &= others != me[:, None]
    pairs = np.stack([np.broadcast_to(me[:, None], others.shape)[wanted], others[wanted]], axis=1)
    return np.unique(np.sort(pairs, axis=1), axis=0), spread


def _spread(pictures: Floats, similar: Pairs) -> Floats:
    fine = unit_rows(band_passed(pictures, 0.6, 4.0))
    spread = np.ones(len(pictures), dtype=np.float32)
    for start in range(0, len(pictures), BATCH):
        block = similar[start : start + BATCH]
        products = np.einsum("nkd,nd->nk", fine[block], fine[start : start + BATCH])
        products[(block < 0) | (block == np.arange(start, start + len(block))[:, None])] = -2
        ranked = -np.sort(-products, axis=1)[:, SPREAD_RANKS]
        known = ranked > -2
        distance = 1 - np.where(known, ranked, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        spread[start : start + BATCH] = np.where(known.any(axis=1), distance, 1)
    return spread


def _agreement(pictures: Floats, pairs: Pairs) -> Floats:
    """Best agreement of each pair, whichever of the two is laid over the other; 0 where a coarse look already says no."""
    coarse, place = _placed(_half(band_passed(pictures[pairs.ravel()], 1.5, 6.0)).reshape(len(pairs), 2, 16, 16))
    promising = np.flatnonzero(coarse >= MIN_COARSE)
    fine = band_passed(pictures[pairs[promising].ravel()], 0.6, 4.0).reshape(len(promising), 2, *pictures.shape[1:])
    found = np.zeros(len(pairs), dtype=np.float32)
    found[promising], _ = register(fine[:, 0], fine[:, 1], place[promising], iterations=8)
    doubtful = np.flatnonzero((found[promising] >= MIN_DOUBTFUL) & (found[promising] < MIN_AGREEMENT))
    turned = _inverse(place[promising[doubtful]])
    again, _ = register(fine[doubtful, 1], fine[doubtful, 0], turned, iterations=8)
    found[promising[doubtful]] = np.maximum(found[promising[doubtful]], again)
    return found


def _placed(coarse: Floats) -> tuple[Floats, Floats]:
    """Where blurred pairs ``(N, 2, S, S)`` agree best, from several starts as long as they are needed."""
    best = np.full(len(coarse), -1, dtype=np.float32)
    best_place = np.ones((len(coarse), 4), dtype=np.float32)
    for scale in STARTS:
        left = np.flatnonzero(best < MIN_COARSE)
        start = np.tile(np.array([scale, 0, scale, 0], dtype=np.float32), (len(left), 1))
        found, place = register(coarse[left, 0], coarse[left, 1], start, iterations=4)
        better = found > best[left]
        best[left[better]], best_place[left[better]] = found[better], place[better]
    return best, best_place


def _inverse(place: Floats) -> Floats:
    scale, shift = place[:, [0, 2]], place[:, [1, 3]]
    return np.stack([1 / scale[:, 0], -shift[:, 0] / scale[:, 0], 1 / scale[:, 1], -shift[:, 1] / scale[:, 1]], axis=1)


def _half(pictures: Floats) -> Floats:
    side = pictures.shape[-1] // 2
    return np.asarray(pictures.reshape(len(pictures), side, 2, side, 2).mean(axis=(2, 4)), dtype=np.float32)


def _eight(pictures: Floats) -> Floats:
    side = pictures.shape[-1] // 8
    return np.asarray(pictures.reshape(len(pictures), 8, side, 8, side).mean(axis=(2, 4)), dtype=np.float32)


def _zoomed(pictures: Floats) -> Floats:
    """The central 28 of 32 pixels, spread over the whole side: what a crop of the picture would look like."""
    size = pictures.shape[-1]
    at = np.linspace(size / 16, size - 1 - size / 16, size, dtype=np.float32)
    weights = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(size, dtype=np.float32)))
    return smoothed(np.asarray(weights @ pictures @ weights.T, dtype=np.float32), 1.0)
