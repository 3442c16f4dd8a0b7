"""The audit: all that is wrong with the images, why it matters and what to do, and what is left out because of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import Final

from automl_tl.data.auditing.class_findings import class_findings
from automl_tl.data.auditing.copies import leave_out_copies
from automl_tl.data.auditing.duplicate_findings import duplicate_findings
from automl_tl.data.auditing.file_findings import file_findings
from automl_tl.data.auditing.group_findings import bursts, group_findings
from automl_tl.data.auditing.picture_findings import picture_findings
from automl_tl.data.auditing.twins import find_twins, leave_out_leaks
from automl_tl.data.joining import join
from automl_tl.errors import TooFewImagesError
from automl_tl.values import DataReport, DatasetIndex, ImageRecord, LeftOut, Part

__all__ = ["audit", "check_learnable", "check_measurable", "leave_out"]


SEVERITIES: Final = ("error", "warning", "info")


def audit(index: DatasetIndex) -> DataReport:
    """Report on ``index``: findings (worst first), images left out, groups that no split may part. Deterministic."""
    copies = leave_out_copies(index)
    different = _without(index.images, copies)
    twins = find_twins(different)
    left_out = sorted((*copies, *leave_out_leaks(twins)), key=lambda row: row.path)
    used = _without(index.images, left_out)
    bound = bursts(used)
    findings = (
        *file_findings(index),
        *duplicate_findings(index, left_out, twins),
        *class_findings(used, index.classes),
        *picture_findings(used),
        *group_findings(used, bound),
    )
    pairs = ((pair.first.path, pair.second.path) for pair in twins)
    groups = join((image.path for image in used), (*_given_groups(used), *bound, *pairs))
    return DataReport(
        findings=tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))),
        left_out=tuple(left_out),
        groups=tuple(group for group in groups if len(group) > 1),
        fingerprint=_fingerprint(used),
    )


def leave_out(index: DatasetIndex, report: DataReport, rows: Sequence[LeftOut]) -> DataReport:
    """``report`` with ``rows`` of images that are left out as well."""
    if not rows:
        return report
    left_out = tuple(sorted((*report.left_out, *rows), key=lambda row: row.path))
    return report.model_copy(update={"left_out": left_out, "fingerprint": _fingerprint(_without(index.images, left_out))})


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


def check_measurable(parts: Mapping[Part, Sequence[ImageRecord]]) -> None:
    """Nothing, if there is something to measure on.

    Raises:
        TooFewImagesError: the test part is empty.
    """
    if not parts["test"]:
        counts = dict(Counter(image.label for images in parts.values() for image in images))
        problem = "No image can be put aside to measure on: all images of each class belong together, as copies or one group"
        raise TooFewImagesError(problem, counts, "Add images that were taken apart from these, or give a test folder.")


def _without(images: Iterable[ImageRecord], left_out: Iterable[LeftOut]) -> list[ImageRecord]:
    out = {row.path for row in left_out}
    return sorted((image for image in images if image.path not in out), key=lambda image: image.path)


def _given_groups(used: Sequence[ImageRecord]) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for image in used:
        if image.group is not None:
            groups.setdefault(image.group, []).append(image.path)
    return list(groups.values())


def _fingerprint(used: Sequence[ImageRecord]) -> str:
    rows = sorted(f"{image.digest} {image.label}" for image in used)
    return sha256("\n".join(rows).encode()).hexdigest()
