"""Cells one after another, each in a new process; what was answered before is not asked again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.workflows.bench_cells import Cell, Question, read_cell, write_cell

__all__ = ["run_cells"]


def run_cells(questions: Sequence[Question], folder: Path, *, progress: Progress = QUIET) -> Iterator[Cell]:
    """The cell of each question. Answers are kept in ``folder``; a cell that failed is asked again next time."""
    with progress.track("benchmark", len(questions)) as advance:
        for question in questions:
            cell = read_cell(folder, question)
            if cell is None:
                cell = _measured(question)
                if cell.error is None:
                    write_cell(folder, question, cell)
                told = cell.error or f"{100 * (cell.accuracy or 0):.1f}%, {cell.seconds:.0f} s"
                progress.info(
                    f"{question.images_name}: {question.strategy} on {question.backbone}, seed {question.seed}: {told}"
                )
            advance(1)
            yield cell


def _measured(question: Question) -> Cell:
    """A process of its own: its memory is the cell's, and if it dies the others go on."""
    command = [sys.executable, "-m", "automl_tl.workflows.bench_measuring", question.model_dump_json()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return Cell.model_validate_json(done.stdout)
    except ValidationError:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return Cell(
            images=question.images_name,
            backbone=question.backbone,
            strategy=question.strategy,
            seed=question.seed,
            error=reason,
        )
