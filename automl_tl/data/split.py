"""Split into train, validation and test: stratified, seeded, with groups kept together and old images kept in their split."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

from pydantic import ValidationError

from automl_tl.data.audit.duplicates import leave_out_copies
from automl_tl.data.audit.findings import correction_findings
from automl_tl.data.audit.groups import join_groups
from automl_tl.data.audit.order import block_length, find_blocks
from automl_tl.data.audit.report import leave_out
from automl_tl.data.index import exclude, with_source_labels
from automl_tl.data.remote import is_url
from automl_tl.errors import BrokenSourceError
from automl_tl.runtime.paths import write_whole
from automl_tl.values import DataReport, DatasetIndex, Finding, ImageRecord, LeftOut, SplitAssignment, SplitName

TEST_FRACTION: Final = 0.2
VALIDATION_FRACTION: Final = 0.2  # of what is not test: 16% of all, or 20% where the test split is given
DRAWN_AGAIN: Final = "The split is drawn again"  # start of a note
DRAWN: Final[tuple[SplitName, ...]] = ("test", "validation")  # in this order, unless the source gives them; train is the rest


class _Unit(NamedTuple):
    """Images that stay together, and their place in the seeded order."""

    order: str
    digests: tuple[str, ...]

    @property
    def size(self) -> int:
        return len(self.digests)


def make_split(
    index: DatasetIndex, report: DataReport, *, seed: int = 0, saved: SplitAssignment | None = None
) -> SplitAssignment:
    """Assign a split to every usable image, by digest.

    Given splits stay as they are. The others are drawn from train, per class and to the nearest image: 20% of all for test,
    20% of the rest for validation; a class with three or more groups is in every split.

    Args:
        index: what was scanned.
        report: its groups stay together; what it leaves out gets no split.
        seed: of the draw, which otherwise depends on the digests alone.
        saved: its images keep their split, and are remembered even if they are missing now; new images fill up.
    """
    used = images_in_use(index, report)
    given_splits = {image.digest: image.split for image in used if _is_held_out(image) and image.split}
    drawn = tuple(split for split in DRAWN if split not in given_splits.values())
    placed = {digest: split for digest, split in (saved.splits if saved else {}).items() if split in ("train", *drawn)}
    notes: list[str] = []
    splits = dict(placed)
    for label, units in sorted(_units_by_class(used, report.groups, seed).items()):
        if len(units) <= len(drawn):
            notes.append(f"{label}: too few images that differ to have some in every split")
        free, counts = _keep_places(label, units, placed, splits, notes)
        targets = _targets(sum(unit.size for unit in units), len(units), drawn)
        _draw(free, targets, counts, splits)
    splits |= given_splits
    return SplitAssignment(seed=seed, test_given="test" not in drawn, splits=dict(sorted(splits.items())), notes=tuple(notes))


def images_in_use(index: DatasetIndex, report: DataReport) -> tuple[ImageRecord, ...]:
    """The images of ``index`` that are not left out.

    Args:
        index: of the scan.
        report: of the audit.
    """
    return exclude(index.images, (row.path for row in report.left_out))


def images_to_measure_on(index: DatasetIndex) -> tuple[ImageRecord, ...]:
    """The test split if the source gives one, else all images."""
    return tuple(image for image in index.images if image.split == "test") or index.images


def images_by_split(
    index: DatasetIndex, report: DataReport, assignment: SplitAssignment
) -> dict[SplitName, tuple[ImageRecord, ...]]:
    """The images in use of each split, sorted by path.

    Args:
        index: of the scan.
        report: of the audit.
        assignment: the split of each image, by digest.
    """
    images: dict[SplitName, list[ImageRecord]] = {"train": [], "validation": [], "test": []}
    for image in images_in_use(index, report):
        if split := assignment.splits.get(image.digest):
            images[split].append(image)
    return {split: tuple(records) for split, records in images.items()}


def _is_held_out(image: ImageRecord) -> bool:
    """Whether the source itself gives the image to validation or test."""
    return image.split not in (None, "train")


def _units_by_class(used: Sequence[ImageRecord], groups: Sequence[Sequence[str]], seed: int) -> dict[str, list[_Unit]]:
    """Units to draw from, in seeded order; a unit belongs to the class of most of its images."""
    grouped = {path for group in groups for path in group}
    units: dict[str, list[_Unit]] = defaultdict(list)
    members: dict[str, ImageRecord] = {}
    for image in used:
        if image.path in grouped and not _is_held_out(image):
            members[image.path] = image
        elif not _is_held_out(image):
            units[image.label].append(_unit([image.digest], seed))
    for paths in join_groups(members, groups):
        labels = Counter(members[path].label for path in paths)
        label = min(labels, key=lambda name: (-labels[name], name))
        units[label].append(_unit([members[path].digest for path in paths], seed))
    # A digest occurs in one unit only, so that equal orders mean equal units.
    return {label: sorted({unit.order: unit for unit in listed}.values()) for label, listed in units.items()}


def _unit(digests: Sequence[str], seed: int) -> _Unit:
    order = min(sha256(f"{seed} {digest}".encode()).hexdigest() for digest in digests)
    return _Unit(order, tuple(sorted(digests)))


def _keep_places(
    label: str, units: Sequence[_Unit], placed: Mapping[str, SplitName], splits: dict[str, SplitName], notes: list[str]
) -> tuple[list[_Unit], Counter[SplitName]]:
    """Give units with images in ``placed`` the split of those; return the free units and the number of images per split.

    A unit with images in several splits is left out of all, which is noted.
    """
    counts: Counter[SplitName] = Counter()
    free: list[_Unit] = []
    for unit in units:
        old = Counter(placed[digest] for digest in unit.digests if digest in placed)
        num_new = unit.size - old.total()
        counts.update(old)
        if not old:
            free.append(unit)
        elif len(old) == 1:
            (split,) = old
            counts[split] += num_new
            splits.update(dict.fromkeys(unit.digests, split))
        else:
            notes.append(
                f"{label}: similar images are in two splits of the saved one; {num_new} new ones like them are left out"
            )
    return free, counts


def _targets(num_images: int, num_units: int, drawn: Sequence[SplitName]) -> dict[SplitName, int]:
    """Number of images that each drawn split should have of a class."""
    targets: dict[SplitName, int] = {}
    left = num_images
    for split in drawn:
        fraction = TEST_FRACTION if split == "test" else VALIDATION_FRACTION
        enough = num_units > len(targets) + 1
        targets[split] = max(int(fraction * left + 0.5), 1) if enough else 0
        left -= targets[split]
    return targets


def _draw(
    free: Sequence[_Unit], targets: Mapping[SplitName, int], counts: Counter[SplitName], splits: dict[str, SplitName]
) -> None:
    """Fill one split of a class after the other with ``free`` units, in their order; the rest is for train.

    Every split with a target gets at least one unit while there is one left for each, even if it is too large.
    """
    empty = [split for split, target in targets.items() if target and not counts[split]]
    for split, target in targets.items():
        empty = [other for other in empty if other != split]
        reserved = len(empty) + (not counts["train"])  # units that the later splits and train need
        taken: list[_Unit] = []
        for unit in free:
            if counts[split] + unit.size <= target and len(free) - len(taken) > reserved:
                taken.append(unit)
                counts[split] += unit.size
        # Where all units are large, one more may come nearer to the target.
        if 0 < counts[split] < target and len(free) - len(taken) > reserved:
            orders = {unit.order for unit in taken}
            smallest = min((unit for unit in free if unit.order not in orders), key=lambda unit: (unit.size, unit.order))
            if smallest.size < 2 * (target - counts[split]):
                taken.append(smallest)
                counts[split] += smallest.size
        if target and not counts[split] and len(free) > reserved:
            taken = [min(free, key=lambda unit: (unit.size, unit.order))]
            counts[split] += taken[0].size
        splits.update({digest: split for unit in taken for digest in unit.digests})
        orders = {unit.order for unit in taken}
        free = [unit for unit in free if unit.order not in orders]
    splits.update({digest: "train" for unit in free for digest in unit.digests})


# --------------------------------------------------------------------------------------------------------- saved splits


def assign_splits(
    index: DatasetIndex,
    report: DataReport,
    *,
    seed: int = 0,
    saved: SplitAssignment | None = None,
    folder: Path | None = None,
    group_by: str | None = None,
) -> tuple[SplitAssignment, DataReport]:
    """Split so that every image keeps the split it had; images that cannot get one are left out in the returned report.

    The draw is by the labels of the source, so corrections move no image to another split. Where the order of the files
    predicts similarity, blocks of neighbors join the groups of the report. An assignment of ``folder`` that was drawn with
    another grouping is not kept.

    Args:
        index: what was scanned.
        report: its audit.
        seed: of the draw.
        saved: assignment to keep. Default: what ``save_split`` wrote to ``folder`` for this source and seed, if anything.
        folder: where assignments are saved.
        group_by: what the user asks for, see ``group_images``.

    Raises:
        BrokenSourceError: the saved assignment cannot be read.
    """
    length, notes = block_length(report.findings), tuple[str, ...]()
    grouping = group_by or ("order" if length else None)
    if saved is None and folder is not None and (saved := saved_split(folder, index.root, seed)):
        if saved.grouping == "order" and group_by is None:
            grouping, length = "order", saved.block_images
        elif (saved.grouping or "none") != (grouping or "none"):
            before, now = (name or "near-duplicates only" for name in (saved.grouping, grouping))
            notes = (f"{DRAWN_AGAIN}: images are grouped by {now}, in the last fit by {before}.",)
            saved = None
    if length:
        source_index, source_report = _uncorrected(index, report)
        blocks = find_blocks(images_in_use(source_index, source_report), length, saved.splits if saved else None)
        report = _join(report, index, blocks)
    if report.corrections:
        saved = make_split(*_uncorrected(index, report), seed=seed, saved=saved)
    assignment = make_split(index, report, seed=seed, saved=saved)
    assignment = assignment.model_copy(
        update={"grouping": grouping, "block_images": length, "notes": (*notes, *assignment.notes)}
    )
    if report.corrections:
        report = report.model_copy(update={"findings": _with_test_corrections(report, assignment)})
    detail = "it resembles images in two splits of the saved assignment, so neither may have it"
    unplaced = (image.path for image in images_in_use(index, report) if image.digest not in assignment.splits)
    rows = [LeftOut(path=path, reason="between_splits", detail=detail) for path in unplaced]
    return assignment, leave_out(index, report, rows)


def saved_split(folder: Path, root: str, seed: int) -> SplitAssignment | None:
    """The assignment that ``save_split`` wrote, if any.

    Args:
        folder: of saved splits.
        root: of the source.
        seed: of the draw.

    Raises:
        BrokenSourceError: it cannot be read.
    """
    file = _file(folder, root, seed)
    return read_split(file) if file.is_file() else None


def group_blocks(index: DatasetIndex, report: DataReport) -> DataReport:
    """Add the blocks of neighbors to the groups of the report, if the order of the files predicts similarity.

    Args:
        index: of the scan.
        report: of the audit.
    """
    length = block_length(report.findings)
    return _join(report, index, find_blocks(images_in_use(index, report), length)) if length else report


def _join(report: DataReport, index: DatasetIndex, blocks: Sequence[Sequence[str]]) -> DataReport:
    paths = {image.path for image in (index.images if report.corrections else images_in_use(index, report))}
    grouped = {path for group in (*report.groups, *blocks) for path in group} & paths
    return report.model_copy(update={"groups": tuple(g for g in join_groups(grouped, (*report.groups, *blocks)) if len(g) > 1)})


def _uncorrected(index: DatasetIndex, report: DataReport) -> tuple[DatasetIndex, DataReport]:
    """Index and report with the labels of the source, excluded images included: corrections move no image of the draw."""
    images = with_source_labels(index.images, report.corrections)
    leaks = (row for row in report.left_out if row.reason == "leak")
    return (
        index.model_copy(update={"images": images}),
        report.model_copy(update={"left_out": (*leave_out_copies(images), *leaks)}),
    )


def _with_test_corrections(report: DataReport, assignment: SplitAssignment) -> tuple[Finding, ...]:
    """The findings; that about corrections counts the test images of ``assignment``."""
    now = {finding.code: finding for finding in correction_findings(report.corrections, assignment.splits)}
    return tuple(now.get(finding.code, finding) for finding in report.findings)


def save_split(folder: Path, index: DatasetIndex, assignment: SplitAssignment) -> Path:
    """Write ``assignment`` to ``folder``, where ``assign_splits`` finds it for the same source and seed. All or nothing.

    Args:
        folder: of saved splits.
        index: of the scan.
        assignment: the split to save.

    Returns:
        The written file.
    """
    file = _file(folder, index.root, assignment.seed)
    write_whole(file, assignment.model_dump_json(indent=2).encode())
    return file


def read_split(file: Path) -> SplitAssignment:
    """Read a split as ``save_split`` and `tl data split --out` write it.

    Raises:
        BrokenSourceError: it cannot be read, or is something else.
    """
    try:
        return SplitAssignment.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        problem = error.strerror if isinstance(error, OSError) else "not what `tl data split --out` writes"
        expected = "a split written by `tl data split --out`; delete this file to split the images again"
        raise BrokenSourceError(file, f"it can't be read ({problem})", expected) from error


def _file(folder: Path, root: str, seed: int) -> Path:
    place = sha256(os.fsencode(root if is_url(root) else Path(root).resolve())).hexdigest()[:24]
    return folder / f"{place}-{seed}.json"
