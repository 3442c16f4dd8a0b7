"""Cards of all torchvision models, from a table by ``benchmarks/make_cards_torchvision.py``. No torch, no network."""

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
    model: str
    weights: str
    url: str

    @property
    def path(self) -> Path:
        """Location of the checkpoint in torch hub's cache."""
        return _torch_checkpoints() / self.url.rpartition("/")[2]


def entries() -> Iterator[Entry]:
    """Yield every model with its default weights as ``model``, and with each set of weights as ``model.WEIGHTS``."""
    table: dict[str, Any] = json.loads(files("automl_tl_torchvision").joinpath(TABLE).read_text(encoding="utf-8"))
    checkpoints = _torch_checkpoints()
    try:
        cached = {path.name for path in checkpoints.iterdir()}
    except OSError:  # missing, or in the home of another user
        cached = set()
    for row in table["models"]:
        model, weights, url, default = (row.pop(key) for key in ("model", "weights", "url", "default"))
        state = "cached" if url.rpartition("/")[2] in cached else "download"
        for name in [model, f"{model}.{weights}"] if default else [f"{model}.{weights}"]:
            card = BackboneCard(name=f"torchvision/{name}", weights=state, **row)
            yield Entry(card, model, weights, url)


def _torch_checkpoints() -> Path:
    """Folder of torch hub's checkpoints, by ``TORCH_HOME``, then ``XDG_CACHE_HOME``, as ``torch.hub`` documents it."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or str(Path(cache) / "torch")
    return Path(os.path.expanduser(home)) / "hub" / "checkpoints"  # noqa: PTH111 - the method needs a home
