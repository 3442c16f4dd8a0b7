"""The command line: one thin file per group of commands: parse, call a workflow, render.

Nothing here imports torch before a command needs it. Results go to stdout, progress and errors to stderr.
"""

from automl_tl.cli.app import main

__all__ = ["main"]
