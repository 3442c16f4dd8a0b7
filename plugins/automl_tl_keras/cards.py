"""Cards of all Keras models, from a table by ``benchmarks/make_cards_keras.py``. No keras, no torch, no network."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from automl_tl.contracts import BackboneCard

TABLE: Final = "cards.json"


@dataclass(frozen=True)
class Entry:
    """A card and what is needed to build its network."""

    card: BackboneCard
    constructor: str  # in keras.applications
    options: dict[str, Any]  # of the constructor
    has_top: bool  # whether the classifier reads pooled features; VGG's does not and is left out
    reads_bgr: bool  # Keras' preprocessing `caffe`
    url: str  # of Keras' own weights
    hash: str | None  # of that file, where Keras states it

    @property
    def path(self) -> Path:
        """Location of the weights in Keras' cache."""
        return _keras_models() / self.url.rpartition("/")[2]


def entries() -> Iterator[Entry]:
    """Yield every model, by the name of its constructor in lower case."""
    table: dict[str, Any] = json.loads(files("automl_tl_keras").joinpath(TABLE).read_text(encoding="utf-8"))
    cached = _file_names(_keras_models())
    for row in table["models"]:
        facts = {key: row.pop(key) for key in ("constructor", "options", "has_top", "reads_bgr", "url", "hash")}
        state = "cached" if facts["url"].rpartition("/")[2] in cached else "download"
        yield Entry(BackboneCard(weights=state, **row), **facts)


def _keras_models() -> Path:
    """Folder of Keras' weights: ``models`` in ``KERAS_HOME``, or in ``~/.keras``."""
    home = os.environ.get("KERAS_HOME") or "~/.keras"
    return Path(os.path.expanduser(home)) / "models"  # noqa: PTH111 - the method needs a home


def _file_names(folder: Path) -> frozenset[str]:
    try:
        return frozenset(path.name for path in folder.iterdir())
    except OSError:  # missing, or in the home of another user
        return frozenset()
