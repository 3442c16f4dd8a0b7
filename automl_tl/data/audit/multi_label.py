"""Labels of tables that look like several labels in one cell: ``scab rust``, ``a|b``, ``['a', 'b']``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Final

from automl_tl.values import DatasetIndex, Finding

SEPARATORS: Final = ("|", ";", ",")
MAX_NAMED: Final = 4


def multi_label_findings(index: DatasetIndex) -> Iterator[Finding]:
    """Yield a finding if labels of a table look like several in one; names of folders never do."""
    if "folders" in index.source:
        return
    counts = Counter(image.label for image in index.images)
    several = {label for label in counts if _has_several(label, counts)}
    if several:
        cells, named = sum(counts[label] for label in several), sorted(several)
        listed = ", ".join(named[:MAX_NAMED]) + (" ..." if len(named) > MAX_NAMED else "")
        yield Finding(
            code="multi_label",
            severity="warning",
            title=f"Cells that look like several labels in one: {cells} of {counts.total()} ({listed})",
            why="This looks like multi-label data. Here each image has one class, so each combination is a class of its own.",
            advice="Keep the main label of each image, or make one table per label, with the classes yes and no.",
            paths=tuple(image.path for image in index.images if image.label in several),
            facts={"num_cells": cells, "num_combinations": len(several)},
        )


def _has_several(label: str, labels: Counter[str]) -> bool:
    if re.fullmatch(r"\[.*\]|\(.*,.*\)|\{.*\}", label):
        return len(re.split(r"[,\s]\s*(?=['\"\w])", label)) > 1
    for separator in SEPARATORS:
        parts = {part.strip() for part in label.split(separator)}
        if len(parts) > 1:
            return any(part in labels or _num_with(part, separator, labels) > 1 for part in parts if part)
    words = label.split()
    return len(words) > 1 and any(word in labels for word in words)


def _num_with(part: str, separator: str, labels: Counter[str]) -> int:
    """Number of labels that have ``part`` among theirs."""
    return sum(part in map(str.strip, label.split(separator)) for label in labels)
