"""Whether the order of the files predicts which images resemble each other, and the blocks of neighbors that stay together.

Frames of a film, slices of a patient and squares of a map follow each other by file name or time. A random split puts one of
two neighbors in train and the other in test, and what is measured is too good (decision 59).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from automl_tl.data.audit.groups import name_groups
from automl_tl.values import Finding, ImageRecord, SplitName

Floats = NDArray[np.float64]
Groups = tuple[tuple[str, ...], ...]

ORDER: Final = "order"  # code of the finding; its fact `block_images` is the length of a block
NUM_SHUFFLES: Final = 999
MAX_P_VALUE: Final = 0.001  # the error rate of the test: no shuffle reaches the resemblance of the neighbors
MIN_EXCESS: Final = 0.05  # of the correlation; 14 sets: at most 0.04 without structure, at least 0.19 with (decision 59)
MAX_CLASSES, MAX_IMAGES = 50, 200  # compared: successive images of a class
MIN_IMAGES: Final = 10  # of a class, to take part
MIN_BLOCKS: Final = 5  # of a class, one for each fold
DEFAULT_BLOCK: Final = 20  # images, where a person asks for blocks and the test sees no structure
SIDE_PX: Final = 8  # of the compared thumbnails
THUMBNAIL_PX: Final = 32


class OrderTest(NamedTuple):
    """Result of the permutation test."""

    excess: float  # mean correlation of neighbors minus that of random pairs of a class
    p_value: float
    block_images: int  # distance from which images are as similar as random pairs

    @property
    def is_structured(self) -> bool:
        """Whether neighbors resemble each other more than random pairs do, beyond chance and by a relevant amount."""
        return self.p_value <= MAX_P_VALUE and self.excess >= MIN_EXCESS


def natural_key(text: str) -> list[tuple[bool, int, str]]:
    """Sort key in which image9 comes before image10."""
    return [(False, int(part), "") if part.isdecimal() else (True, 0, part) for part in re.split(r"(\d+)", text) if part]


def in_order(images: Sequence[ImageRecord]) -> dict[str, list[ImageRecord]]:
    """Images of each class that a split may move, by EXIF time if all images have one, else by natural name order."""
    movable = [image for image in images if image.split in (None, "train")]
    by_time = all(image.captured_at for image in movable)
    keyed = sorted(movable, key=lambda image: (str(image.captured_at) if by_time else "", natural_key(image.path), image.path))
    classes: dict[str, list[ImageRecord]] = defaultdict(list)
    for image in keyed:
        classes[image.label].append(image)
    return dict(sorted(classes.items()))


def measure_order(images: Sequence[ImageRecord], groups: Groups, thumbnails: Mapping[str, bytes]) -> OrderTest | None:
    """Test whether neighbors of a class resemble each other more than random pairs do: a permutation test within classes.

    The statistic is the mean correlation of 8 x 8 thumbnails, from which the mean of the class is subtracted, over all pairs of
    neighbors; pairs that are in one group already do not count. Source: Good, Permutation Tests, 2000.

    Args:
        images: in use.
        groups: paths that stay together anyway.
        thumbnails: 32 x 32 levels by digest.

    Returns:
        ``None`` if no class has ten images.
    """
    group_of = {path: number for number, paths in enumerate(groups) for path in paths}
    runs = [
        run for listed in in_order(images).values() if len(run := [i for i in listed if i.digest in thumbnails]) >= MIN_IMAGES
    ]
    runs = [_middle(run) for run in runs[:: max(1, -(-len(runs) // MAX_CLASSES))]]
    if not runs:
        return None
    # 1) Correlations (N, N) of each class; NaN in one group.
    generator = np.random.default_rng(0)
    correlations = [_correlations(run, group_of, thumbnails) for run in runs]
    max_lag = max(1, min(max(map(len, runs)) // MIN_BLOCKS, MAX_IMAGES // MIN_BLOCKS))
    observed = [_mean(np.concatenate([matrix.diagonal(lag) for matrix in correlations])) for lag in range(1, max_lag + 1)]
    # 2) The same mean after each shuffle of every class.
    sums, counts = np.zeros((2, NUM_SHUFFLES))
    for matrix in correlations:
        order = generator.random((NUM_SHUFFLES, len(matrix))).argsort(axis=1)
        pairs = matrix[order[:, :-1], order[:, 1:]]
        sums += np.nansum(pairs, axis=1)
        counts += np.isfinite(pairs).sum(axis=1)
    shuffled = sums / np.maximum(counts, 1)
    p_value = float(1 + (shuffled >= observed[0]).sum()) / (1 + NUM_SHUFFLES)
    # 3) The first distance at which images are no more similar than random pairs.
    usual = float(shuffled.mean())
    block = next((lag for lag, value in enumerate(observed, start=1) if value <= usual), max_lag)
    return OrderTest(observed[0] - usual, p_value, max(block, 2))


def order_findings(test: OrderTest | None, *, requested: bool) -> Iterator[Finding]:
    """Yield the finding about the order of the files, if it predicts similarity.

    Args:
        test: of ``measure_order``.
        requested: whether the user asks for blocks, whatever the test says.
    """
    if not requested and not (test and test.is_structured):
        return
    block = test.block_images if test and test.is_structured else DEFAULT_BLOCK
    facts = {"excess": round(test.excess, 3), "p_value": round(test.p_value, 4)} if test else {}
    predicts = (
        f"Neighbors correlate by {test.excess:+.2f} over random pairs of a class (p = {test.p_value:.3f}). " if test else ""
    )
    yield Finding(
        code=ORDER,
        severity="info" if requested else "warning",
        title=f"{'As requested' if requested else 'File order predicts similarity'}: split by blocks of {block}",
        why=f"{predicts}A random split puts neighbors on both sides, and what is measured is too good.",
        advice="Nothing to do. A better grouping, such as one by person or place: --group-by COLUMN or REGEX. Without: "
        "--group-by none.",
        facts={"block_images": block, **facts},
    )


def find_blocks(images: Sequence[ImageRecord], block_images: int, placed: Mapping[str, SplitName] | None = None) -> Groups:
    """Cut the images of each class into blocks of neighbors; a class has at least five blocks, if it has five images.

    Images whose names say that they are one sequence are not cut apart. Near a saved split, a block ends where the split of
    its images does, so that a new image goes where its neighbors are.

    Args:
        images: in use.
        block_images: images of a block, at least.
        placed: split of each image that has one, by digest.
    """
    placed, blocks = placed or {}, list[tuple[str, ...]]()
    sequence_of = {path: number for number, paths in enumerate(name_groups(images)) for path in paths}
    for listed in in_order(images).values():
        length, block, split = max(1, min(block_images, len(listed) // MIN_BLOCKS)), list[str](), None
        for before, image in zip([None, *listed], listed, strict=False):
            own = placed.get(image.digest)
            continues = before is not None and sequence_of.get(before.path, -1) == sequence_of.get(image.path, -2)
            if (own and split and own != split) or (len(block) >= length and not continues and (own or not placed)):
                blocks.append(tuple(block))
                block, split = [], None
            block.append(image.path)
            split = own or split
        if 2 * len(block) < length and not placed and blocks and listed[0].path != block[0]:
            block = [*blocks.pop(), *block]  # a short rest joins the block before it
        blocks.append(tuple(block))
    return tuple(block for block in blocks if len(block) > 1)


def block_length(findings: Sequence[Finding]) -> int | None:
    """The length of a block that the data report says, if it says so."""
    return next((int(finding.facts["block_images"]) for finding in findings if finding.code == ORDER), None)


def grouping_of(findings: Sequence[Finding]) -> str | None:
    """How images are grouped, beyond near-duplicates and bursts, in words."""
    return next((finding.title for finding in findings if finding.code in (ORDER, "grouped")), None)


def _middle(run: list[ImageRecord]) -> list[ImageRecord]:
    start = max(0, (len(run) - MAX_IMAGES) // 2)
    return run[start : start + MAX_IMAGES]


def _correlations(run: Sequence[ImageRecord], group_of: Mapping[str, int], thumbnails: Mapping[str, bytes]) -> Floats:
    levels = np.array([np.frombuffer(thumbnails[image.digest], dtype=np.uint8) for image in run], dtype=np.float64)
    factor = THUMBNAIL_PX // SIDE_PX
    rows = levels.reshape(len(run), SIDE_PX, factor, SIDE_PX, factor).mean(axis=(2, 4)).reshape(len(run), -1)
    rows -= rows.mean(axis=0)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    groups = np.array([group_of.get(image.path, -1 - place) for place, image in enumerate(run)])
    return np.where(groups[:, None] == groups, np.nan, rows @ rows.T)


def _mean(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else 0.0
