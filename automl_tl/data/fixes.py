"""Proposals to a person, as a table: what could be deleted, relabeled or grouped. Nothing is ever moved or changed."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Literal

from automl_tl.values import DataReport, DatasetIndex, Finding

__all__ = ["Fix", "propose_fixes", "write_fixes"]


@dataclass(frozen=True, slots=True)
class Fix:
    """One thing to do to one image: ``value`` is the new label or the group, empty for delete and look."""

    path: str
    label: str
    action: Literal["delete", "relabel", "group", "replace", "look"]
    value: str
    reason: str


def propose_fixes(index: DatasetIndex, report: DataReport) -> list[Fix]:
    """What to do about everything in ``report``, sorted by path; an image may have several proposals."""
    named = {path for finding in report.findings for path in _paths(finding)} | {out.path for out in report.left_out}
    label = {image.path: image.label for image in index.images if image.path in named}
    fixes = [
        Fix(row.path, row.label or "", "replace" if row.reason in BROKEN else "look", "", f"{row.reason}: {row.detail}")
        for row in index.rejected
    ]
    for out in report.left_out:
        look = out.reason == "conflicting_label"
        fixes.append(Fix(out.path, label[out.path], "look" if look else "delete", "", f"{out.reason}: {out.detail}"))
    for finding in report.findings:
        fixes += _of(finding, label)
    return sorted(set(fixes), key=astuple)


def write_fixes(file: Path, fixes: list[Fix]) -> None:
    """Writes ``fixes`` as CSV with a header."""
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(field.name for field in fields(Fix))
        writer.writerows(astuple(fix) for fix in fixes)


def _paths(finding: Finding) -> Iterator[str]:
    return chain(finding.paths, *finding.groups)


def _of(finding: Finding, label: dict[str, str]) -> Iterator[Fix]:
    if finding.code == "suspected_labels":
        for path in finding.paths:
            yield Fix(path, label[path], "relabel", str(finding.facts[path]), finding.code)
    elif finding.code in ("name_groups", "near_duplicates", "bursts"):
        for group in finding.groups:
            for path in group:
                yield Fix(path, label[path], "group", group[0], finding.code)
    elif finding.code in LOOK:
        for path in finding.paths:
            yield Fix(path, label[path], "look", "", finding.code)


BROKEN = ("empty", "truncated", "damaged", "not_an_image", "unreadable", "missing_file", "no_bytes")
LOOK = (
    "damaged_images",
    "near_duplicates_of_two_classes",
    "blank_images",
    "extreme_aspect",
    "tiny_images",
    "dark_images",
    "bright_images",
    "blurred_images",
    "outliers",
    "nested_folders",
)
