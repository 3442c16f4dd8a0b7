"""Rules of Windows that this product could break, made to hold in a Python process on Linux.

``imitate`` patches a process; a child process that finds ``tests/imitated_windows`` on its ``PYTHONPATH`` patches itself at
its start. Simulated: what happens to files that are read-only, open or mapped, names that are reserved, flushing, links,
functions and modules that are missing, and the code page of text files that are opened without an encoding. Not simulated:
paths, the registry of Windows, signals, real locks.
"""

from __future__ import annotations

import builtins
import errno
import fcntl
import io
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import platformdirs.unix  # noqa: F401 - its old versions import os.getuid where `sys.platform`, which stays, is not win32

OURS = ("automl_tl",)  # also automl_tl_registry and the plugins
CODE_PAGE = "cp1252"
MISSING_MODULES = {"fcntl", "grp", "pwd", "resource", "termios"}
MISSING_FUNCTIONS = ("fork", "forkpty", "getloadavg", "getuid", "killpg", "mkfifo", "sched_getaffinity", "wait4")
FORBIDDEN_NAME = re.compile(r'.*[<>:"|?*\x00-\x1f].*|.*[. ]|(con|prn|aux|nul|com\d|lpt\d)(\..*)?', re.IGNORECASE | re.DOTALL)
Patch = Callable[[Any, str, Any], object]

REAL_UNLINK, REAL_RENAME, REAL_REPLACE, REAL_FSYNC, REAL_MAKE_FOLDER = os.unlink, os.rename, os.replace, os.fsync, os.mkdir
REAL_OPEN_DESCRIPTOR, REAL_OPEN_FILE, REAL_IMPORT_MODULE = os.open, io.open, builtins.__import__


def imitate(patch: Patch = setattr, remove: Callable[[Any, str], object] = delattr) -> None:
    """Make this process keep the rules of Windows.

    Args:
        patch: such as ``MonkeyPatch.setattr``.
        remove: such as ``MonkeyPatch.delattr``.
    """
    for module, name, function in (
        (os, "unlink", unlink),
        (os, "remove", unlink),
        (os, "rename", rename),
        (os, "replace", replace),
        (os, "fsync", fsync),
        (os, "open", open_descriptor),
        (os, "mkdir", make_folder),
        (os, "symlink", refuse_link),
        (io, "open", open_file),
        (builtins, "open", open_file),
        (builtins, "__import__", import_module),
    ):
        patch(module, name, function)
    for name in MISSING_FUNCTIONS:
        if hasattr(os, name):
            remove(os, name)


def unlink(path: Any, *, dir_fd: int | None = None) -> None:
    _check_removable(_full(path, dir_fd))
    REAL_UNLINK(path, dir_fd=dir_fd)


def rename(source: Any, target: Any, **options: Any) -> None:
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "Cannot create a file when that file already exists", os.fspath(target))
    _check_closed(_full(source))
    _check_name(target)
    REAL_RENAME(source, target, **options)


def replace(source: Any, target: Any, **options: Any) -> None:
    if os.path.lexists(target):
        _check_removable(_full(target))
        if Path(target).is_dir():
            raise _denied(target)
    _check_closed(_full(source))
    _check_name(target)
    REAL_REPLACE(source, target, **options)


def fsync(descriptor: Any) -> None:
    number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
    if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, "Bad file descriptor")
    REAL_FSYNC(number)


def open_descriptor(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
    if flags & os.O_CREAT:
        _check_name(path)
    return REAL_OPEN_DESCRIPTOR(path, flags, *arguments, **options)


def open_file(
    file: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None, *others: Any, **options: Any
) -> Any:
    if not isinstance(file, int) and set(mode) & set("wxa+"):
        _check_name(file)
    if "b" not in mode and encoding in (None, "locale"):
        encoding = CODE_PAGE
    return REAL_OPEN_FILE(file, mode, buffering, encoding, *others, **options)


def make_folder(path: Any, *arguments: Any, **options: Any) -> None:
    _check_name(path)
    REAL_MAKE_FOLDER(path, *arguments, **options)


def refuse_link(source: Any, target: Any, *_: Any, **__: Any) -> None:
    raise OSError(errno.EPERM, "A required privilege is not held by the client", os.fspath(target))


def import_module(name: str, globals: Any = None, *arguments: Any, **options: Any) -> Any:
    if name in MISSING_MODULES and (globals or {}).get("__name__", "").startswith(OURS):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return REAL_IMPORT_MODULE(name, globals, *arguments, **options)


def _full(path: Any, dir_fd: int | None = None) -> str:
    folder = os.readlink(f"/proc/self/fd/{dir_fd}") if dir_fd is not None else os.getcwd()
    return os.path.join(folder, os.fsdecode(path))


def _denied(path: Any) -> PermissionError:
    return PermissionError(errno.EACCES, "Access is denied", os.fspath(path))


def _check_name(path: Any) -> None:
    name = os.path.basename(os.fsdecode(path))
    if name not in ("", ".", "..") and not os.fsdecode(path).startswith("/dev/") and FORBIDDEN_NAME.fullmatch(name):
        raise OSError(errno.EINVAL, "The filename, directory name, or volume label syntax is incorrect", os.fspath(path))


def _check_removable(path: str) -> None:
    if os.path.lexists(path) and not os.lstat(path).st_mode & stat.S_IWUSR:
        raise _denied(path)
    _check_closed(path)


def _check_closed(path: str) -> None:
    """Raise if this process has the file, or a file below the folder, open or mapped into memory."""
    real = os.path.realpath(path)
    for used in _used_paths():
        if used == real or used.startswith(real + os.sep):
            raise PermissionError(errno.EACCES, "The process cannot access the file because it is being used", path)


def _used_paths() -> set[str]:
    paths = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            paths.add(os.readlink(f"/proc/self/fd/{number}"))
        except OSError:
            continue
    maps = Path("/proc/self/maps").read_bytes().decode(errors="surrogateescape")
    return paths | {fields[5] for line in maps.splitlines() if len(fields := line.split(maxsplit=5)) == 6}
