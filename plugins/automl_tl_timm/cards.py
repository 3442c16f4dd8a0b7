"""Facts about every timm model, from the table that ``make_cards`` wrote. No torch, no timm, no network."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal

from automl_tl.contracts import BackboneCard, Preprocessing
from automl_tl_timm.caches import HUB_FILES, Caches, hub_cache, hub_folder, torch_checkpoints

__all__ = ["COLUMNS", "TABLE", "Entry", "Source", "entries", "read_table"]

TABLE: Final = "cards.json.gz"
COLUMNS: Final = (
    "model",  # as timm spells it, with its tag
    "family",
    "preprocessing",  # index into the table's list of preprocessings
    "feature_dim",
    "num_blocks",
    "num_parameters",
    "num_macs",
    "pretrained_on",
    "license",
    "fixed_side",
    "hub",  # repository on the hub; "" if the weights are not there
    "filename",  # in the repository, if it isn't the usual one
    "url",  # of a checkpoint, where there is no repository
)
BYTES_PER_PARAMETER: Final = 4  # float32


@dataclass(frozen=True)
class Source:
    """Where timm takes a model's weights from; all empty where it has none."""

    hub: str = ""
    filename: str = ""
    url: str = ""

    def __bool__(self) -> bool:
        return bool(self.hub or self.url)

    def state(self, caches: Caches) -> Literal["cached", "download", "none"]:
        """Whether the weights are here, elsewhere or nowhere."""
        if not self:
            return "none"
        here = caches.has_hub_file(self.hub, self.filename) if self.hub else caches.has_checkpoint(self.path.name)
        return "cached" if here else "download"

    @property
    def path(self) -> Path:
        """Where the file is, or would be, in the library's cache; the snapshot's name is the hub's and unknown here."""
        if self.hub:
            return hub_cache() / hub_folder(self.hub) / "snapshots" / "*" / (self.filename or HUB_FILES[0])
        return torch_checkpoints() / self.url.rpartition("/")[2]

    @property
    def address(self) -> str:
        """For people: what is downloaded."""
        return f"huggingface.co/{self.hub}" if self.hub else self.url


@dataclass(frozen=True)
class Entry:
    """One card and what is needed to build its network."""

    card: BackboneCard
    model: str
    source: Source


def read_table() -> dict[str, Any]:
    """The table as it is on disk."""
    table: dict[str, Any] = json.loads(gzip.decompress(files("automl_tl_timm").joinpath(TABLE).read_bytes()))
    return table


def entries() -> Iterator[Entry]:
    """Every model: by architecture, which means its default weights, and by architecture and tag."""
    table, caches = read_table(), Caches()
    preprocessings = [Preprocessing.model_validate(row) for row in table["preprocessings"]]
    defaults: dict[str, list[str]] = {}
    for architecture, model in table["defaults"].items():
        defaults.setdefault(model, []).append(architecture)
    for values in table["models"]:
        row = dict(zip(COLUMNS, values, strict=True))
        source = Source(row.pop("hub"), row.pop("filename"), row.pop("url"))
        model = row.pop("model")
        row["preprocessing"] = preprocessings[row["preprocessing"]]
        row["weights"] = source.state(caches)
        if row["weights"] != "none":
            row["weights_mib"] = round(row["num_parameters"] * BYTES_PER_PARAMETER / 2**20, 1)
        for name in dict.fromkeys([*defaults.get(model, ()), model]):
            yield Entry(BackboneCard(name=f"timm/{name}", **row), model, source)
