"""Cells: one question each, one answer each, kept as JSON so that a benchmark can go on tomorrow."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from pydantic import Field, ValidationError

from automl_tl.values import Fraction, Interval, Value

__all__ = ["Cell", "Question", "read_cell", "write_cell"]


class Question(Value):
    """Which images, fitted how."""

    images: Path
    backbone: str
    strategy: str
    seed: int = Field(default=0, ge=0, description="of split, folds and training")
    options: dict[str, str | float | int | bool] = Field(default_factory=dict, description="of the strategy")

    @property
    def images_name(self) -> str:
        """Of their folder or file, also where that was given as a dot."""
        return self.images.resolve().name

    @property
    def file_name(self) -> str:
        """Of the answer; the place of the images is no part of the question, but what is in it."""
        text = self.model_copy(update={"images": Path(self.images_name)}).model_dump_json() + _listing(self.images.resolve())
        return f"{self.images_name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


@cache
def _listing(images: Path) -> str:
    """Names and sizes of the files: soon told, and other images seldom have the same. What a benchmark writes is left out."""
    files = [images] if images.is_file() else sorted(images.rglob("*"))
    told = (file for file in files if file.is_file() and file.suffix not in (".json", ".html", ".csv", ".draft"))
    return ";".join(f"{file.relative_to(images)} {file.stat().st_size}" for file in told)


class Cell(Value):
    """What came of a question. ``error`` says why nothing did."""

    images: str = Field(description="name of their folder")
    backbone: str
    strategy: str
    seed: int
    error: str | None = None
    accuracy: Fraction | None = Field(default=None, description="on the test part")
    interval: Interval | None = None
    num_test: int = 0
    right: str = Field(default="", description="one digit per test image, in order of content: 1 if it was recognized")
    expected: Fraction | None = Field(default=None, description="before the test")
    expected_interval: Interval | None = None
    out_of_fold: Fraction | None = Field(default=None, description="accuracy out of fold, or on validation images")
    seconds: float | None = Field(default=None, description="features, training and head, from an empty cache")
    cpu_s: float | None = Field(default=None, description="the same, of all cores")
    predicted_s: float | None = Field(default=None, description="what the plan said beforehand")
    latency_ms: float | None = Field(default=None, description="one image")
    latency_4_ms: float | None = Field(default=None, description="four images at once")
    memory_mib: float | None = Field(default=None, description="peak of the process")
    size_mib: float | None = Field(default=None, description="of the files")


def read_cell(folder: Path, question: Question) -> Cell | None:
    """The answer in ``folder``, if it is there and whole."""
    try:
        return Cell.model_validate_json((folder / question.file_name).read_bytes())
    except (OSError, ValidationError):
        return None


def write_cell(folder: Path, question: Question, cell: Cell) -> None:
    """Keep ``cell`` in ``folder``, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{question.file_name}.draft"
    draft.write_text(cell.model_dump_json(indent=1))
    draft.rename(folder / question.file_name)
