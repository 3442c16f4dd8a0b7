"""Errors of the machine rather than of the work: full disks, quotas, limits, missing permissions. One line each, exit code 10.

Libraries report the same cause as ``OSError``, ``MemoryError``, ``SafetensorError``, ``ImportError`` or a plain
``RuntimeError``, often as text only; ``explain`` recognizes all of them.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from automl_tl.errors import ResourceError
from automl_tl.runtime.paths import cache_dir, registry_dir

DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
CAUSES: Final[dict[int, str]] = {
    errno.ENOSPC: "The disk is full",
    errno.EDQUOT: "The disk quota is used up",
    errno.EFBIG: "A file would exceed the size limit of this shell (`ulimit -f`)",
    errno.EROFS: "The file system is read-only",
    errno.EMFILE: "Too many open files (`ulimit -n` is the limit)",
    errno.ENFILE: "Too many open files on this machine",
    errno.ENOMEM: "Memory ran out",
    errno.EIO: "The disk reports an input/output error",
    errno.ESTALE: "The network file system lost a file",
    errno.ENOTCONN: "The network file system is disconnected",
    errno.ENOLCK: "The file system has no file locks",
    errno.EAGAIN: "No more threads or processes can be started (`ulimit -u`, or the memory limit)",
}
ADVICE: Final[dict[int, str]] = {
    errno.EFBIG: "Raise the limit, e.g. `ulimit -f unlimited`.",
    errno.EMFILE: "Raise the limit, e.g. `ulimit -n 1024`.",
    errno.ENFILE: "Close other programs.",
    errno.ENOMEM: "Close other programs, raise the limit (`ulimit -v`, the container's or job's memory), or use fewer images.",
    errno.EAGAIN: "Raise the limit, or close other programs.",
}
# Texts of libraries that pass on neither a number nor the system's words. numpy: "96 requested and 48 written".
WORDS: Final[dict[str, int]] = {
    r"\d+ requested and \d+ written": errno.ENOSPC,
    r"database or disk is full": errno.ENOSPC,
    r"PytorchStreamWriter failed writing|inline_container\.cc.*unexpected pos": errno.ENOSPC,
    r"iostream error": errno.ENOSPC,  # OpenVINO
    # The allocators of torch: CPU, CPU on Windows, CUDA and MPS; the libraries of CUDA; numpy, C++, the dynamic linker.
    r"can't allocate memory|[Nn]ot enough memory|out of memory|ALLOC_FAILED": errno.ENOMEM,
    r"Unable to allocate|bad_alloc|MemoryError|failed to map segment": errno.ENOMEM,
    r"can't start new thread|[Tt]hread creation failed": errno.EAGAIN,
}
# Windows' own numbers: not enough memory, out of memory, paging file too small; disk full, of a handle and of a path.
WINDOWS: Final = {8: errno.ENOMEM, 14: errno.ENOMEM, 1455: errno.ENOMEM, 39: errno.ENOSPC, 112: errno.ENOSPC}
TEMPORARY: Final = re.compile("tl-|automl_tl_")  # our temporary folders
KINDS: Final = (OSError, MemoryError, ImportError, RuntimeError)


def explain(error: BaseException, place: Path | None = None) -> ResourceError | None:
    """Return the one-line explanation of an error that the machine's resources caused, or ``None`` for any other.

    Args:
        error: as raised by Python or a library.
        place: where it happened, if the error does not name a file itself.
    """
    if not isinstance(error, KINDS) and type(error).__name__ != "SafetensorError" and not hasattr(error, "sqlite_errorname"):
        return None
    number = errno.ENOMEM if isinstance(error, MemoryError) else getattr(error, "errno", None)
    number = number if number in CAUSES else find_cause(str(error))
    if number is None:
        return None
    named = getattr(error, "filename", None)
    return resource_error(number, Path(os.fsdecode(named)) if isinstance(named, str | bytes) and named else place)


def find_cause(text: str) -> int | None:
    """Return the error number in a library's message, or in the last line that a child process printed, if it is known."""
    if coded := re.search(r"(\[Errno|\[WinError|\(os error|Error code) (\d+)", text):
        is_windows = coded[1] == "[WinError" or (coded[1] == "(os error" and sys.platform == "win32")
        number = WINDOWS.get(int(coded[2])) if is_windows else int(coded[2])
        return number if number in CAUSES else None
    texts = {number: os.strerror(number) for number in CAUSES if number != errno.EAGAIN}
    # Windows has no text for some of them.
    spelled = (number for number, words in texts.items() if words in text and not words.startswith("Unknown error"))
    return next(spelled, next((number for words, number in WORDS.items() if re.search(words, text)), None))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` means that memory ran out; most allocators raise a plain ``RuntimeError``."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and find_cause(str(error)) == errno.ENOMEM)


def resource_error(number: int, place: Path | None) -> ResourceError:
    """Return the error for an error number in ``CAUSES``.

    Args:
        number: of ``errno``.
        place: file or folder; ``None`` if unknown.
    """
    if number == errno.ENOSPC and _file_size_limit() is not None:
        number = errno.EFBIG  # numpy doesn't tell them apart
    elsewhere = "Check the disk, or choose another folder (TL_HOME, TMPDIR or the output path)."
    advice = ADVICE.get(number) or (_advice_on(place) if number in DISK_FULL else elsewhere)
    where = f": {place}" if place else ""
    return ResourceError(f"{CAUSES[number]}{where}. {advice}", place)


def _advice_on(place: Path | None) -> str:
    if place is None:
        temporary = "TMPDIR (temporary files), TL_HOME (registry and cache) and the output path"
        return f"Free some space, or choose other folders: {temporary} can all be changed."
    absolute = place.absolute()
    if absolute.is_relative_to(cache_dir().absolute()):
        return "`tl cache clear` frees space; TL_HOME moves cache and registry elsewhere."
    if absolute.is_relative_to(registry_dir().absolute()):
        return "Free some space (`tl registry gc`), or use --registry or TL_HOME with another folder."
    if absolute.is_relative_to(temporary := tempfile.gettempdir()) and TEMPORARY.match(str(absolute.relative_to(temporary))):
        return "Free some space there, or set TMPDIR to another folder."
    return "Free some space there, or choose another path."


def _file_size_limit() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return None if limit == resource.RLIM_INFINITY else limit


@contextmanager
def writing_to(place: Path) -> Iterator[None]:
    """Raise resource errors of the block as ``ResourceError`` that names ``place``, unless they name a file themselves.

    Raises:
        ResourceError: a full disk, a limit, a missing permission.
    """
    try:
        yield
    except Exception as error:
        if explained := explain(error, place):
            raise explained from error
        raise
