"""Plain values out of a pickle file without unpickling it: nothing in the file is ever called or imported.

``pickletools.genops`` only takes the file apart into its operations. Of those, the ones that build lists, dictionaries,
numbers and strings are carried out here on plain Python values; a numpy array becomes the place in the file where its bytes
lie; anything else is refused by name. Enough for the python batches of CIFAR, and for nothing that could run.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from automl_tl.errors import BrokenSourceError

__all__ = ["Span", "read_plain"]

EXPECTED: Final = "a file of numbers, strings, lists and byte arrays, such as CIFAR's python batches"
MAX_BYTES: Final = 2**30  # CIFAR-100's train file has 155 MB
ARRAY_MAKERS: Final = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
HARMLESS: Final = (*ARRAY_MAKERS, "numpy ndarray", "numpy dtype", "_codecs encode")


@dataclass(slots=True)
class Span:
    """Bytes of the file, from ``offset`` on."""

    offset: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class _Named:
    """A name that the pickle would import; here it is only a name."""

    name: str


@dataclass(frozen=True, slots=True)
class _Bytes:
    """A byte string and where it begins."""

    value: bytes
    offset: int


MARK: Final = object()


def read_plain(file: Path) -> dict[str, object]:
    """The dictionary in ``file``, keys as text; arrays of bytes as ``Span``.

    Raises:
        BrokenSourceError: the file is damaged, too large, or asks for anything but plain values.
    """
    if file.stat().st_size > MAX_BYTES:
        raise BrokenSourceError(file, f"it has more than {MAX_BYTES:,} bytes", EXPECTED)
    machine = _Machine(file)
    try:
        found = machine.run(file.read_bytes())
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise BrokenSourceError(file, f"it is damaged ({error})", EXPECTED) from error
    if not isinstance(found, dict):
        raise BrokenSourceError(file, f"it holds a {type(found).__name__}", EXPECTED)
    return {str(_plain(key)): _plain(value) for key, value in found.items()}


class _Machine:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._stack: list[Any] = []
        self._memo: dict[object, Any] = {}

    def run(self, data: bytes) -> object:
        for operation, argument, position in pickletools.genops(data):
            if operation.name == "STOP":
                return self._stack.pop()
            self._step(operation.name, argument, position or 0)
        raise ValueError("it has no end")

    def _step(self, name: str, argument: object, position: int) -> None:
        if name in CONSTANTS:
            self._stack.append(CONSTANTS[name])
        elif name in STRINGS:
            # genops decodes the strings of Python 2 as latin-1, one character per byte.
            value = argument.encode("latin-1") if isinstance(argument, str) else argument
            self._stack.append(_Bytes(cast(bytes, value), position + STRINGS[name]))
        elif name in PUSHED:
            self._stack.append(argument)
        elif name in BUILDERS:
            BUILDERS[name](self)
        elif name == "GLOBAL":
            self._named(str(argument))
        elif name not in ("PROTO", "FRAME"):
            self._remember(name, argument)

    def _remember(self, name: str, argument: object) -> None:
        if name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            self._memo[len(self._memo) if name == "MEMOIZE" else argument] = self._stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            self._stack.append(self._memo[argument])
        else:
            raise BrokenSourceError(self._file, f"it asks for the operation {name}, which is not carried out", EXPECTED)

    def stack_named(self) -> None:
        self._named(" ".join(str(_plain(part)) for part in self._take(2)))

    def _named(self, name: str) -> None:
        if name not in HARMLESS:
            raise BrokenSourceError(self._file, f"it asks for {name!r}, which is not carried out", EXPECTED)
        self._stack.append(_Named(name))

    def _take(self, number: int) -> list[Any]:
        taken = self._stack[-number:]
        del self._stack[-number:]
        return taken

    def _since_mark(self) -> list[Any]:
        at = max(number for number, value in enumerate(self._stack) if value is MARK)
        return self._take(len(self._stack) - at)[1:]

    def mark(self) -> None:
        self._stack.append(MARK)

    def tuple_of(self, number: int) -> None:
        self._stack.append(tuple(self._take(number)))

    def marked_tuple(self) -> None:
        self._stack.append(tuple(self._since_mark()))

    def new_list(self) -> None:
        self._stack.append([])

    def new_dict(self) -> None:
        self._stack.append({})

    def append(self) -> None:
        (value,) = self._take(1)
        self._stack[-1].append(value)

    def appends(self) -> None:
        values = self._since_mark()
        self._stack[-1].extend(values)

    def set_item(self) -> None:
        key, value = self._take(2)
        self._stack[-1][_plain(key)] = value

    def set_items(self) -> None:
        values = self._since_mark()
        self._stack[-1].update({_plain(key): value for key, value in zip(values[::2], values[1::2], strict=True)})

    def reduce(self) -> None:
        """A call in a real pickle: here an array is an empty span, a type is nothing, text as bytes is those bytes."""
        named, arguments = self._take(2)
        if named.name in ARRAY_MAKERS:
            self._stack.append(Span())
        elif named.name == "_codecs encode":
            raise BrokenSourceError(self._file, "its bytes are stored as text (a pickle written again by Python 3)", EXPECTED)
        else:
            self._stack.append(arguments)

    def build(self) -> None:
        """The state of an array: version, shape, type, order, bytes."""
        (state,) = self._take(1)
        if isinstance(self._stack[-1], Span):
            data = state[4]
            self._stack[-1].offset, self._stack[-1].size = data.offset, len(data.value)


STRINGS: Final = {"SHORT_BINSTRING": 2, "BINSTRING": 5, "SHORT_BINBYTES": 2, "BINBYTES": 5, "BINBYTES8": 9}
"""Operations whose bytes follow after so many bytes of operation and length."""
CONSTANTS: Final = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
PUSHED: Final = frozenset(
    ("BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "BINUNICODE", "SHORT_BINUNICODE", "BINFLOAT")
)
BUILDERS: Final[dict[str, Callable[[_Machine], None]]] = {
    "STACK_GLOBAL": _Machine.stack_named,
    "MARK": _Machine.mark,
    "TUPLE": _Machine.marked_tuple,
    "TUPLE1": lambda machine: machine.tuple_of(1),
    "TUPLE2": lambda machine: machine.tuple_of(2),
    "TUPLE3": lambda machine: machine.tuple_of(3),
    "EMPTY_LIST": _Machine.new_list,
    "EMPTY_DICT": _Machine.new_dict,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
}


def _plain(value: object) -> object:
    if isinstance(value, _Bytes):
        return value.value.decode("utf-8", "replace")
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value
