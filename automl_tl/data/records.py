"""The images that a scan decoded: in a temporary database on disk, for a million of them would fill the memory."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from datetime import datetime
from itertools import count
from operator import itemgetter
from typing import Any, Final, final, overload

from automl_tl.data.on_disk import TemporaryDatabase
from automl_tl.runtime.batches import batches
from automl_tl.values import ImageRecord

__all__ = ["Records"]

FIELDS: Final = tuple(ImageRecord.model_fields)
DEFAULTS: Final = {name: field.default for name, field in ImageRecord.model_fields.items() if not field.is_required()}
REPEATED: Final = ("label", "format", "mode", "camera")  # texts that many images have in common: kept once
GIVEN: Final = set(FIELDS)  # pydantic's note of which fields were given, one for all records: it is larger than a record
IN_ORDER: Final = itemgetter(*FIELDS)
COLUMNS: Final = ", ".join(f'"{name}"' for name in FIELDS)
SCHEMA: Final = f"CREATE TABLE images ({COLUMNS}, PRIMARY KEY (path)) WITHOUT ROWID"
INSERT: Final = f"INSERT INTO images VALUES ({', '.join('?' * len(FIELDS))})"
AT_ONCE: Final = 500  # SQLite takes at most 999 parameters by default


@final
class Records(Sequence[ImageRecord]):
    """Records of images, sorted by path, each made when it is asked for.

    What concerns all of them is asked in SQL, where a column has the name of the field; ``captured_at`` is ISO 8601 and
    ``remarks`` JSON, or empty.
    """

    def __init__(self, rows: Iterable[Mapping[str, object]] = ()) -> None:
        """``rows`` hold fields of ``ImageRecord``; absent ones have its defaults."""
        self._database = TemporaryDatabase(SCHEMA)
        self._numbers = count(1)  # of views
        self._name = "images"
        self._database.add(INSERT, map(_row, rows))
        self._length: int = self.value("COUNT(*)")

    @classmethod
    def of(cls, images: Sequence[ImageRecord]) -> Records:
        """``images`` as records, if they aren't yet."""
        return images if isinstance(images, Records) else cls(map(dict, images))

    def select(self, what: str, rest: str = "", *values: object) -> Iterator[tuple[Any, ...]]:
        """Rows that SQL gives for ``SELECT what FROM`` these records ``rest``, one after the other."""
        return self._database.ask(f"SELECT {what} FROM {self._name} {rest}", *values)

    def value(self, what: str, rest: str = "", *values: object) -> Any:  # noqa: ANN401 - what SQL gives
        """The only value that SQL gives."""
        return next(self.select(what, rest, *values))[0]

    def define(self, name: str, function: Any) -> None:  # noqa: ANN401 - see TemporaryDatabase
        """Makes a function of one text known to SQL."""
        self._database.define(name, function)

    def at(self, paths: Iterable[str]) -> dict[str, ImageRecord]:
        """Records of those ``paths`` that are among them."""
        found: dict[str, ImageRecord] = {}
        for some in batches(paths, AT_ONCE):
            rows = self.select(COLUMNS, f"WHERE path IN ({', '.join('?' * len(some))})", *some)
            found |= {record.path: record for record in map(_record, rows)}
        return found

    def without(self, paths: Iterable[str]) -> Records:
        """The other records."""
        number = next(self._numbers)
        self._database.run(f"CREATE TABLE out_{number} (path PRIMARY KEY) WITHOUT ROWID")
        self._database.add(f"INSERT OR IGNORE INTO out_{number} VALUES (?)", ((path,) for path in paths))
        return self._view(number, f"SELECT * FROM {self._name} WHERE path NOT IN out_{number}")

    def without_thumbnails(self) -> Records:
        """The same records with empty thumbnails, which take more memory than all else in a record."""
        columns = ", ".join("x'' AS thumbnail" if name == "thumbnail" else f'"{name}"' for name in FIELDS)
        return self._view(next(self._numbers), f"SELECT {columns} FROM {self._name}")

    def _view(self, number: int, query: str) -> Records:
        view = copy(self)
        view._name = f"images_{number}"
        self._database.run(f"CREATE VIEW {view._name} AS {query}")
        view._length = view.value("COUNT(*)")
        return view

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[ImageRecord]:
        return map(_record, self.select(COLUMNS, "ORDER BY path"))

    @overload
    def __getitem__(self, at: int) -> ImageRecord: ...

    @overload
    def __getitem__(self, at: slice) -> tuple[ImageRecord, ...]: ...

    def __getitem__(self, at: int | slice) -> ImageRecord | tuple[ImageRecord, ...]:
        places = range(self._length)[at]
        if isinstance(places, int):
            return _record(next(self.select(COLUMNS, "ORDER BY path LIMIT 1 OFFSET ?", places)))
        first, last = (min(places, default=0), max(places, default=-1))
        rows = self.select(COLUMNS, "ORDER BY path LIMIT ? OFFSET ?", last - first + 1, first)
        return tuple(map(_record, rows))[:: places.step]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Records | tuple):
            return NotImplemented
        return len(self) == len(other) and all(one == another for one, another in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{self._length} records on disk>"


def _row(fields: Mapping[str, object]) -> tuple[object, ...]:
    given = {**DEFAULTS, **fields}
    given["remarks"] = json.dumps(given["remarks"]) if given["remarks"] else ""
    if isinstance(given["captured_at"], datetime):
        given["captured_at"] = given["captured_at"].isoformat()
    row: tuple[object, ...] = IN_ORDER(given)
    return row


def _record(row: Sequence[Any]) -> ImageRecord:
    given = dict(zip(FIELDS, row, strict=True))
    given["remarks"] = json.loads(given["remarks"]) if given["remarks"] else ()
    for name in REPEATED:
        given[name] = given[name] and sys.intern(given[name])
    record = ImageRecord.model_validate(given)
    object.__setattr__(record, "__pydantic_fields_set__", GIVEN)
    return record
