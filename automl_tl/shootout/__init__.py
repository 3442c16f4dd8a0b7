"""The shoot-out: every backbone with every strategy on one set of images, each cell measured in a process of its own."""

from automl_tl.shootout.cells import Cell, Question
from automl_tl.shootout.page import write_page
from automl_tl.shootout.running import run_cells

__all__ = ["Cell", "Question", "run_cells", "write_page"]
