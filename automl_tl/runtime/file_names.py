"""File names made from text such as labels, valid on every system."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import PurePath
from typing import Final

from automl_tl.runtime.formatting import CONTROL

MAX_BYTES: Final = 200  # of the 255 that file systems have, with room for " (2)"
UNSAFE: Final = re.compile(rf'[{CONTROL}\\/:*?"<>|]|^[. ]+|[. ]+$')
# Devices on Windows, with any suffix.
RESERVED: Final = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[\d¹²³]) *(\..*)?", re.IGNORECASE)


def file_name(text: str) -> str:
    """Return ``text`` as the name of one file or folder; what a name cannot hold is written as in URLs: ``a/b`` as ``a%2Fb``.

    A long name is shortened and gets a digest; its suffix stays.
    """
    name = UNSAFE.sub(lambda match: "".join(map(_percent_encoded, match[0])), text) or "_"
    if RESERVED.fullmatch(name):
        name = _percent_encoded(name[0]) + name[1:]
    if len(name.encode()) <= MAX_BYTES:
        return name
    suffix = PurePath(name).suffix
    suffix = suffix if len(suffix.encode()) <= MAX_BYTES // 4 else ""
    return _with_digest(name.removesuffix(suffix), text) + suffix


def folder_names(labels: Sequence[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """Return a folder name for each label, different even where letter case and composed characters don't count.

    Args:
        labels: all classes of a model, in its order; the first keeps its name if two are alike.
        taken: names that no label gets.
    """
    names: dict[str, str] = {}
    used = set(map(_folded, taken))
    for label in labels:
        name = file_name(label)
        names[label] = name if _folded(name) not in used else _with_digest(name, label)
        used.add(_folded(names[label]))
    return names


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _percent_encoded(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode(errors="surrogatepass"))


def _with_digest(name: str, text: str) -> str:
    """Return ``name``, shortened if it is long, with a digest of ``text``."""
    start = name.encode()[: MAX_BYTES // 2].decode(errors="ignore")
    return f"{start}-{sha256(text.encode(errors='surrogatepass')).hexdigest()[:8]}"
