"""Registration: the scale and shift under which two thumbnails agree best, and how well they then agree.

Many pairs at once, in numpy: Gauss-Newton (inverse compositional, Baker and Matthews 2004) over scale and shift per axis,
which are what cropping and resizing change. The warp is separable, so it is two small matrix products per pair.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

MAX_CHANGE: Final = 0.4  # of scale and of shift, as a fraction of the half side
MIN_OVERLAP: Final = 0.5  # of the area; agreement on less than that says little
NEGLIGIBLE: Final = 1e-12  # weight of a far pixel; weights that underflow make a product of matrices ten times slower
STEP: Final = 0.1  # largest change of any parameter in one iteration


def smoothed(images: Floats, sigma_px: float) -> Floats:
    """Blur images by a Gaussian whose weights are renormalized at the border.

    Args:
        images: ``(N, S, S)``.
        sigma_px: standard deviation, in pixels.

    Returns:
        The blurred images.
    """
    at = np.arange(images.shape[-1], dtype=np.float32)
    kernel = np.exp(-0.5 * ((at[:, None] - at) / sigma_px) ** 2)
    kernel[kernel < NEGLIGIBLE] = 0
    kernel /= kernel.sum(axis=1, keepdims=True)
    return np.asarray(kernel @ images @ kernel.T, dtype=np.float32)


def band_passed(images: Floats, fine_px: float, coarse_px: float) -> Floats:
    """Keep the detail of images between two sizes; of raw ones of one kind, all would agree.

    Args:
        images: ``(N, S, S)``.
        fine_px: finer detail is removed, in pixels.
        coarse_px: what varies slower is removed, in pixels.

    Returns:
        The filtered images.
    """
    return smoothed(images, fine_px) - smoothed(images, coarse_px)


def unit_rows(images: Floats) -> Floats:
    """``(N, S * S)``: each image as a row of mean 0 and length 1, so that products are correlations."""
    rows = images.reshape(len(images), images.shape[1] * images.shape[2])
    rows = rows - rows.mean(axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6), dtype=np.float32)


def register(fixed: Floats, moving: Floats, start: Floats, *, iterations: int) -> tuple[Floats, Floats]:
    """Best correlation found per pair ``(N,)``, -1 to 1, and the placement ``(N, 4)`` that gives it.

    Args:
        fixed: images ``(N, S, S)``.
        moving: images ``(N, S, S)``, which are stretched and shifted.
        start: placements ``(N, 4)`` from which the search starts: scale and shift of rows, scale and shift of columns, in
            coordinates from -1 to 1. A scale below 1 lays a part of ``moving`` over the whole of ``fixed``.
        iterations: of Gauss-Newton.
    """
    template = unit_rows(fixed)
    slopes = _slopes(template.reshape(fixed.shape))
    normal = np.linalg.inv(slopes @ slopes.transpose(0, 2, 1) + 1e-4 * np.eye(4, dtype=np.float32))
    place, best_place = start.copy(), start.copy()
    best = np.full(len(fixed), -1, dtype=np.float32)
    for left in range(iterations, -1, -1):
        warped, seen = _warp(moving, place)
        target = _centered(template * seen, seen)
        length = np.linalg.norm(target, axis=1, keepdims=True)
        correlation = (target * warped).sum(1) / np.maximum(length[:, 0], 1e-6)
        better = (correlation > best) & (seen.mean(1) >= MIN_OVERLAP)
        best[better], best_place[better] = correlation[better], place[better]
        if left:
            step = (normal @ (slopes @ (warped * length - target)[:, :, None]))[:, :, 0]
            place = _moved(place, np.clip(step, -STEP, STEP))
    return best, best_place


def _centered(rows: Floats, seen: Floats) -> Floats:
    return np.asarray(rows - seen * (rows.sum(1, keepdims=True) / np.maximum(seen.sum(1, keepdims=True), 1)), dtype=np.float32)


def _slopes(images: Floats) -> Floats:
    """Change of each pixel with scale and shift of rows and of columns: ``(N, 4, S * S)``; coordinates run from -1 to 1."""
    size = images.shape[-1]
    grid = np.linspace(-1, 1, size, dtype=np.float32)
    down, across = np.gradient(images, 2 / (size - 1), axis=(1, 2))
    slopes = np.stack([down * grid[:, None], down, across * grid, across], axis=1)
    return np.asarray(slopes.reshape(len(images), 4, size * size), dtype=np.float32)


def _warp(moving: Floats, place: Floats) -> tuple[Floats, Floats]:
    """``moving`` at ``place``, as rows of mean 0 and length 1 where it is seen and 0 elsewhere, and where it is seen."""
    rows, row_seen = _weights(place[:, 0], place[:, 1], moving.shape[-1])
    columns, column_seen = _weights(place[:, 2], place[:, 3], moving.shape[-1])
    shape = len(moving), moving.shape[1] * moving.shape[2]
    seen = (row_seen[:, :, None] * column_seen[:, None, :]).reshape(shape)
    warped = _centered((rows @ moving @ columns.transpose(0, 2, 1)).reshape(shape) * seen, seen)
    return warped / np.maximum(np.linalg.norm(warped, axis=1, keepdims=True), 1e-6), seen


def _weights(scale: Floats, shift: Floats, size: int) -> tuple[Floats, Floats]:
    """Linear interpolation along one axis as matrices ``(N, S, S)``, and which of the ``(N, S)`` places lie inside."""
    grid = np.linspace(-1, 1, size, dtype=np.float32)
    at = (scale[:, None] * grid + shift[:, None] + 1) * ((size - 1) / 2)
    pixels = np.arange(size, dtype=np.float32)
    weights = np.maximum(0, 1 - np.abs(at[:, :, None] - pixels))
    return weights, ((at > -0.01) & (at < size - 0.99)).astype(np.float32)


def _moved(place: Floats, step: Floats) -> Floats:
    """``place`` after the inverse of ``step``, kept within ``MAX_CHANGE``."""
    scale, shift = place[:, [0, 2]], place[:, [1, 3]]
    factor = 1 + step[:, [0, 2]]
    scale, shift = scale / factor, shift - scale * step[:, [1, 3]] / factor
    scale = np.clip(scale, 1 - MAX_CHANGE, 1 / (1 - MAX_CHANGE))
    shift = np.clip(shift, -MAX_CHANGE, MAX_CHANGE)
    return np.stack([scale[:, 0], shift[:, 0], scale[:, 1], shift[:, 1]], axis=1)
