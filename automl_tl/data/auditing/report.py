"""The audit: all that is wrong with the images, why it matters and what to do, and what is left out because of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from itertools import groupby
from operator import itemgetter
from typing import Final

from automl_tl.data.auditing.class_findings import class_findings
from automl_tl.data.auditing.copies import leave_out_copies
from automl_tl.data.auditing.duplicate_findings import duplicate_findings
from automl_tl.data.auditing.file_findings import file_findings
from automl_tl.data.auditing.group_findings import bursts, group_findings
from automl_tl.data.auditing.image_findings import image_findings
from automl_tl.data.auditing.near_duplicate_pairs import find_near_duplicate_pairs, leave_out_leaks
from automl_tl.data.joining import join
from automl_tl.data.records import exclude
from automl_tl.errors import TooFewImagesError
from automl_tl.values import DataReport, DatasetIndex, ImageRecord, LeftOut, SplitName

__all__ = ["audit", "check_learnable", "check_measurable", "leave_out"]


SEVERITIES: Final = ("error", "warning", "info")


def audit(index: DatasetIndex) -> DataReport:
    """Report on ``index``: findings (worst first), images left out, groups that no split may part. Deterministic."""
    images = exclude(index.images, ())
    copies = leave_out_copies(images)
    near_pairs = find_near_duplicate_pairs(exclude(images, (row.path for row in copies)))
    left_out = sorted((*copies, *leave_out_leaks(near_pairs)), key=lambda row: row.path)
    used = exclude(images, (row.path for row in left_out))
    bound = bursts(used)
    findings = (
        *file_findings(index, images),
        *duplicate_findings(images, left_out, near_pairs),
        *class_findings(used, index.classes),
        *image_findings(used),
        *group_findings(used, bound),
    )
    pairs = ((pair.first.path, pair.second.path) for pair in near_pairs)
    together = (*_given_groups(used), *bound, *pairs)
    bound_paths = {path for group in together for path in group} - {row.path for row in left_out}
    return DataReport(
        findings=tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))),
        left_out=tuple(left_out),
        groups=tuple(group for group in join(bound_paths, together) if len(group) > 1),
        fingerprint=_fingerprint(used),
    )


def leave_out(index: DatasetIndex, report: DataReport, rows: Sequence[LeftOut]) -> DataReport:
    """``report`` with ``rows`` of images that are left out as well."""
    if not rows:
        return report
    left_out = tuple(sorted((*report.left_out, *rows), key=lambda row: row.path))
    used = exclude(index.images, (row.path for row in left_out))
    return report.model_copy(update={"left_out": left_out, "fingerprint": _fingerprint(used)})


def check_learnable(index: DatasetIndex, report: DataReport) -> None:
    """Nothing, if the images can be learned from and measured on.

    Raises:
        TooFewImagesError: fewer than two classes, or classes with fewer than two images to use, or with none outside the
            given test part; names all of them.
    """
    used = exclude(index.images, (row.path for row in report.left_out))
    all_counts = Counter(image.label for image in used)
    training_counts = Counter(image.label for image in used if image.split != "test")
    usable, to_learn_from = ({name: counts[name] for name in index.classes} for counts in (all_counts, training_counts))
    if sum(count > 0 for count in to_learn_from.values()) < 2:
        raise TooFewImagesError("A classifier needs two classes or more to learn from", usable, "Add images of another class.")
    few = {name: usable[name] for name in usable if usable[name] < 2 or not to_learn_from[name]}
    if few:
        problem = f"{len(few)} of {len(usable)} classes have fewer than two usable images, or all of them in the test part"
        raise TooFewImagesError(problem, few, "Add images to these classes, or take their folders out.")


def check_measurable(parts: Mapping[SplitName, Sequence[ImageRecord]]) -> None:
    """Nothing, if there is something to measure on.

    Raises:
        TooFewImagesError: the test part is empty.
    """
    if not parts["test"]:
        counts = dict(Counter(image.label for images in parts.values() for image in images))
        problem = "No image can be put aside to measure on: all images of each class belong together, as copies or one group"
        raise TooFewImagesError(problem, counts, "Add images that were taken apart from these, or give a test folder.")


def _given_groups(used: Sequence[ImageRecord]) -> list[list[str]]:
    given = sorted((image.group, image.path) for image in used if image.group is not None)
    return [[path for _, path in rows] for _, rows in groupby(given, key=itemgetter(0))]


def _fingerprint(used: Sequence[ImageRecord]) -> str:
    digest, rows = sha256(), sorted((image.digest, image.label) for image in used)
    for number, (image, label) in enumerate(rows):
        digest.update(f"{chr(10) * bool(number)}{image} {label}".encode())
    return digest.hexdigest()
