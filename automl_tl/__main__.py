"""``python -m automl_tl`` is ``tl``, and imports no more of the working directory than Python does before it gets here.

Python itself imports ``types`` and a few others first, from the working directory if they are there. ``tl`` and
``python -P -m automl_tl`` don't have that folder on their path at all.
"""

import sys
from pathlib import Path


def _leave_the_working_directory() -> None:
    """Take the working directory, which ``-m`` has put first, off the import path, unless this package lives there."""
    if not sys.flags.safe_path and sys.path[0] == str(Path.cwd()) and sys.path[0] != str(Path(__file__).parents[1]):
        del sys.path[0]


if __name__ == "__main__":
    _leave_the_working_directory()

    from automl_tl.cli import main
    from automl_tl.runtime.child_processes import end_with_parent

    end_with_parent()
    main()
