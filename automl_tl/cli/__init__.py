"""The command line: one file per group of commands, each thin: parse, call, render.

Nothing here imports torch before a command needs it. stdout is the result, stderr the progress.
"""

from automl_tl.cli.app import main

__all__ = ["main"]
