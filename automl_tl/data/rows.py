"""What the scan keeps of each file: a row, made as soon as the file was looked at, and as small as it can be.

A hundred thousand rows stay in memory. Equal texts and numbers are therefore kept once, and so is pydantic's note of which
fields were given: that set alone is larger than everything else in a row.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final, final

from automl_tl.data.looking import Look
from automl_tl.data.sources.source import Entry
from automl_tl.values import ImageRecord, RejectedFile

__all__ = ["Rows"]

REPEATED: Final = ("label", "part", "group", "width_px", "height_px", "format", "mode", "camera", "remarks")
ROUNDED: Final = ("brightness", "contrast", "colour")  # to four decimals: 10,001 different numbers at most


@final
class Rows:
    """One row per file that was looked at, by path."""

    def __init__(self) -> None:
        self.by_path: dict[str, ImageRecord | RejectedFile] = {}
        self._kept: dict[str, dict[Any, Any]] = defaultdict(dict)

    def add(self, entry: Entry, look: Look) -> None:
        """Keeps what ``look`` found behind ``entry``."""
        if look.reason:
            row = RejectedFile(path=entry.path, label=entry.label, reason=look.reason, detail=look.detail)
            self.by_path[entry.path] = row
        else:
            self.by_path[entry.path] = self._record(entry, look)

    def _record(self, entry: Entry, look: Look) -> ImageRecord:
        given = {"path": entry.path, "label": entry.label, "part": entry.part, "group": entry.group, **look.facts}
        given["digest"] = look.digest
        for name in (*REPEATED, *ROUNDED):
            value = given.get(name)
            value = tuple(value) if isinstance(value, list) else value  # remarks, where they come from JSON
            given[name] = self._kept[name].setdefault(value, value)
        record = ImageRecord.model_validate({name: value for name, value in given.items() if value is not None})
        said = record.__pydantic_fields_set__
        object.__setattr__(record, "__pydantic_fields_set__", self._kept["said"].setdefault(frozenset(said), said))
        return record
