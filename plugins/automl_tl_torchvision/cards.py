"""Facts about every torchvision classification model, from the table that ``make_cards`` wrote. No torch, no network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

from automl_tl.contracts import BackboneCard
from automl_tl_torchvision.caches import checkpoints

__all__ = ["TABLE", "Entry", "entries"]

TABLE: Final = "cards.json"


@dataclass(frozen=True)
class Entry:
    """One card and what is needed to build its network."""

    card: BackboneCard
    model: str
    weights: str
    url: str

    @property
    def filename(self) -> str:
        """Name of the checkpoint in torch hub's folder."""
        return self.url.rpartition("/")[2]


def entries() -> Iterator[Entry]:
    """Every model: under its own name with torchvision's default weights, and under ``model.WEIGHTS`` with each."""
    rows: list[dict[str, Any]] = json.loads(files("automl_tl_torchvision").joinpath(TABLE).read_text(encoding="utf-8"))[
        "models"
    ]
    here = checkpoints()
    for row in rows:
        model, weights, url, default = (row.pop(key) for key in ("model", "weights", "url", "default"))
        state = "cached" if url.rpartition("/")[2] in here else "download"
        for name in [model, f"{model}.{weights}"] if default else [f"{model}.{weights}"]:
            card = BackboneCard(name=f"torchvision/{name}", weights=state, **row)
            yield Entry(card, model, weights, url)
