"""The audit: all that is wrong with the images, why it matters and what to do, and what is left out because of it."""

from __future__ import annotations

from hashlib import sha256

from automl_tl.data.copies import leave_out_copies
from automl_tl.errors import TooFewImagesError
from automl_tl.values import DataReport, DatasetIndex, Finding, LeftOut

__all__ = ["audit", "check_learnable"]


def audit(index: DatasetIndex) -> DataReport:
    """Report on ``index``: findings, images left out, groups that no split may part. Deterministic."""
    left_out = leave_out_copies(index)
    return DataReport(
        findings=_of_left_out(left_out),
        left_out=left_out,
        groups=_given_groups(index),
        fingerprint=_fingerprint(index, left_out),
    )


def check_learnable(index: DatasetIndex, report: DataReport) -> None:
    """Nothing, if the images can be learned from and measured on.

    Raises:
        TooFewImagesError: fewer than two classes, or classes with fewer than two images to use, or with none outside the
            given test part; names all of them.
    """
    out = {row.path for row in report.left_out}
    usable = dict.fromkeys(index.classes, 0)
    to_learn_from = dict.fromkeys(index.classes, 0)
    for image in index.images:
        usable[image.label] += image.path not in out
        to_learn_from[image.label] += image.path not in out and image.part != "test"
    if sum(count > 0 for count in to_learn_from.values()) < 2:
        raise TooFewImagesError("A classifier needs two classes or more to learn from", usable, "Add images of another class.")
    few = {name: usable[name] for name in usable if usable[name] < 2 or not to_learn_from[name]}
    if few:
        problem = f"{len(few)} of {len(usable)} classes have fewer than two usable images, or all of them in the test part"
        raise TooFewImagesError(problem, few, "Add images to these classes, or take their folders out.")


def _given_groups(index: DatasetIndex) -> tuple[tuple[str, ...], ...]:
    groups: dict[str, list[str]] = {}
    for image in index.images:
        if image.group is not None:
            groups.setdefault(image.group, []).append(image.path)
    return tuple(sorted(tuple(sorted(paths)) for paths in groups.values() if len(paths) > 1))


def _fingerprint(index: DatasetIndex, left_out: tuple[LeftOut, ...]) -> str:
    out = {row.path for row in left_out}
    used = sorted((image.digest, image.label) for image in index.images if image.path not in out)
    return sha256("\n".join(f"{digest} {label}" for digest, label in used).encode()).hexdigest()


def _of_left_out(left_out: tuple[LeftOut, ...]) -> tuple[Finding, ...]:
    paths = tuple(row.path for row in left_out)
    if not paths:
        return ()
    return (
        Finding(
            code="left_out",
            severity="warning",
            title=f"{len(paths)} images are left out",
            why="copies, conflicting labels or leaks",
            advice="look at them",
            paths=paths,
        ),
    )
