"""The standard streams of ``tl``, set up once at its start: any encoding, and closed, full or broken ones.

Characters that a stream cannot encode are spelled in ASCII or escaped. Nothing else in the package touches the streams.
"""

from __future__ import annotations

import codecs
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedWriter, FileIO, TextIOWrapper
from typing import TYPE_CHECKING, Final, TextIO

from automl_tl.runtime.formatting import escaped

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

SPELLED: Final = "automl_tl.spelled"  # an error handler of `codecs`
SPELLINGS: Final = {
    **{"\u2013": "-", "\u2014": "-", "\u2026": "...", "\u2192": "->", "\xb7": "|", "\xb1": "+/-", "\xd7": "x"},
    **{"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\xa0": " ", "\u202f": " "},
}
MIN_COLUMNS: Final = 60
STORAGE, BROKEN_PIPE = 10, 141  # exit codes; the second is a shell's for a program that SIGPIPE ended


class OutputLost(BaseException):
    """Standard output cannot be written. Not an ``Exception``: no handler for other errors may take it for one of theirs."""

    def __init__(self, error: OSError) -> None:
        self.error = error
        super().__init__(str(error))


@contextmanager
def standard_streams() -> Iterator[None]:
    """Set up the standard streams, and end the process if standard output cannot be written.

    A pipe that its reader has closed ends it silently, with exit code 141; a full disk with one line and exit code 10.
    """
    _use_utf8_for_names()
    _open_closed_streams()
    if os.environ.get("COLUMNS", "").isdecimal():  # rich prints nothing into 0 columns
        os.environ["COLUMNS"] = str(max(int(os.environ["COLUMNS"]), MIN_COLUMNS))
    codecs.register_error(SPELLED, _spell)
    sys.stdout, sys.stderr = _writing_to(sys.stdout, _Output), _writing_to(sys.stderr, _Messages)
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OutputLost as lost:
        # What is still in the buffer would fail once more when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(lost.error, BrokenPipeError) or lost.error.errno == errno.EINVAL:  # of a closed pipe on Windows
            sys.exit(BROKEN_PIPE)
        sys.stderr.write(f"error: Cannot write the output, which is incomplete: {lost.error.strerror}. Choose another place.\n")
        sys.exit(STORAGE)


def _use_utf8_for_names() -> None:
    """Start ``tl`` again in Python's UTF-8 mode if the locale has another encoding for file names, as ``LC_ALL=C`` may.

    Names of files are UTF-8 on disk, in tables and in the registry; in another encoding they would not be the real ones. The
    streams keep theirs.
    """
    if os.name == "posix" and sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        if "PYTHONIOENCODING" not in os.environ and sys.stdout is not None:
            os.environ["PYTHONIOENCODING"] = sys.stdout.encoding
        os.environ["PYTHONUTF8"] = "1"  # for child processes
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _open_closed_streams() -> None:
    """Connect closed streams to the null device; otherwise the next file that is opened would take their number."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    sys.stdin = sys.stdin or TextIOWrapper(FileIO(0, closefd=False), encoding="utf-8")
    sys.stdout = sys.stdout or TextIOWrapper(BufferedWriter(FileIO(1, "w", closefd=False)), encoding="utf-8")
    sys.stderr = sys.stderr or TextIOWrapper(BufferedWriter(FileIO(2, "w", closefd=False)), encoding="utf-8")


class _Output(FileIO):
    """Standard output; a failure is an ``OutputLost``."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OutputLost(error) from error


class _Messages(FileIO):
    """Standard error; what cannot be written is dropped, as no result depends on it."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _writing_to(stream: TextIO, kind: type[FileIO]) -> TextIO:
    """Return ``stream`` with another file below it and replacements for unknown characters; as it is if not Python's own."""
    if type(stream) is not TextIOWrapper or type(getattr(stream.buffer, "raw", stream.buffer)) is not FileIO:
        return stream
    file = kind(stream.fileno(), "w", closefd=False)
    return TextIOWrapper(
        BufferedWriter(file) if hasattr(stream.buffer, "raw") else file,  # `python -u`
        encoding=stream.encoding,
        errors=SPELLED,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def _spell(error: UnicodeError) -> tuple[str, int]:
    """Spell the characters that cannot be encoded in ASCII, or escape them; an error handler of ``codecs``."""
    assert isinstance(error, UnicodeEncodeError)
    characters = error.object[error.start : error.end]
    return "".join(SPELLINGS.get(character) or escaped(character) for character in characters), error.end
