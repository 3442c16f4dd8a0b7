"""Splits kept between fits, so that adding photographs never moves old ones between the parts."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO

from pydantic import ValidationError

from automl_tl.data.auditing import leave_out
from automl_tl.data.splitting import make_split, unplaced
from automl_tl.errors import BrokenSourceError
from automl_tl.values import DataReport, DatasetIndex, SplitAssignment

__all__ = ["divide", "keep_split", "read_split", "write_split"]


def divide(
    index: DatasetIndex, report: DataReport, *, seed: int = 0, saved: SplitAssignment | None = None, folder: Path | None = None
) -> tuple[SplitAssignment, DataReport]:
    """A split in which every image keeps the part it had, and ``report`` with a row for each image that has none.

    Args:
        index: what was scanned.
        report: what the audit said of it.
        seed: of the draw.
        saved: whose places are kept; absent: those of the split that ``keep_split`` wrote to ``folder`` for this source
            and seed, if it did.
        folder: where splits are kept.

    Raises:
        BrokenSourceError: a split was kept, and can't be read any more.
    """
    kept = _file(folder, index, seed) if folder else None
    if saved is None and kept is not None and kept.is_file():
        saved = read_split(kept)
    split = make_split(index, report, seed=seed, saved=saved)
    return split, leave_out(index, report, unplaced(index, report, split))


def keep_split(folder: Path, index: DatasetIndex, split: SplitAssignment) -> Path:
    """Writes ``split`` to ``folder``, where ``divide`` finds it again for the same source and seed. All or nothing."""
    file = _file(folder, index, split.seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("w", dir=file.parent, prefix=".", delete=False, encoding="utf-8") as draft:
        write_split(draft, split)
    return Path(draft.name).replace(file)


def write_split(opened: IO[str], split: SplitAssignment) -> None:
    """Writes ``split`` as JSON."""
    opened.write(split.model_dump_json(indent=2))


def read_split(file: Path) -> SplitAssignment:
    """The split in ``file``.

    Raises:
        BrokenSourceError: it can't be read, or is none.
    """
    try:
        return SplitAssignment.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        problem = error.strerror if isinstance(error, OSError) else "not what `tl data split --out` writes"
        expected = "a split written by `tl data split --out`; delete this file to split the images again"
        raise BrokenSourceError(file, f"it can't be read ({problem})", expected) from error


def _file(folder: Path, index: DatasetIndex, seed: int) -> Path:
    place = sha256(os.fsencode(Path(index.root).resolve())).hexdigest()[:24]
    return folder / f"{place}-{seed}.json"
