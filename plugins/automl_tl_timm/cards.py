"""Cards of all timm models, from a table written by ``benchmarks/make_cards_timm.py``. No torch, no timm, no network.

Weights are looked up in the caches of ``torch.hub`` and ``huggingface_hub`` by their documented rules; importing either
library would take longer than reading all cards.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal

from automl_tl.contracts import BackboneCard, Preprocessing
from automl_tl_timm.recommended import RECOMMENDED

TABLE: Final = "cards.json.gz"
COLUMNS: Final = (
    "model",  # timm's name, with its tag
    "family",
    "preprocessing",  # index into the table's list of preprocessings
    "feature_dim",
    "num_blocks",
    "num_parameters",
    "num_macs",
    "pretrained_on",
    "license",
    "fixed_side",
    "hub",  # repository on the hub, or ""
    "filename",  # in the repository, if it is not one of HUB_FILES
    "url",  # of a checkpoint that is not on the hub
)
BYTES_PER_PARAMETER: Final = 4  # float32
HUB_FILES: Final = ("model.safetensors", "pytorch_model.bin")  # what timm asks a repository for, in this order


@dataclass(frozen=True)
class Source:
    """Where timm takes a model's weights from; all empty if there are none."""

    hub: str = ""
    filename: str = ""
    url: str = ""

    def __bool__(self) -> bool:
        return bool(self.hub or self.url)

    @property
    def filenames(self) -> tuple[str, ...]:
        """Files of the hub repository that timm accepts, in its order."""
        return (self.filename,) if self.filename else HUB_FILES

    @property
    def path(self) -> Path:
        """Location of the file in the library's cache; for the hub, a pattern with ``*`` for the snapshot."""
        if self.hub:
            return _hub_cache() / _hub_folder(self.hub) / "snapshots" / "*" / self.filenames[0]
        return _torch_checkpoints() / self.url.rpartition("/")[2]

    @property
    def address(self) -> str:
        """Address of the download, for messages."""
        return f"huggingface.co/{self.hub}" if self.hub else self.url


@dataclass(frozen=True)
class Entry:
    """A card and what is needed to build its network."""

    card: BackboneCard
    model: str
    source: Source


def read_table() -> dict[str, Any]:
    """Return the table as it is on disk."""
    table: dict[str, Any] = json.loads(gzip.decompress(files("automl_tl_timm").joinpath(TABLE).read_bytes()))
    return table


def entries() -> Iterator[Entry]:
    """Yield every model by architecture (its default weights) and by architecture and tag."""
    table, cached = read_table(), _file_names(_hub_cache()) | _file_names(_torch_checkpoints())
    preprocessings = [Preprocessing.model_validate(row) for row in table["preprocessings"]]
    defaults: dict[str, list[str]] = {}
    for architecture, model in table["defaults"].items():
        defaults.setdefault(model, []).append(architecture)
    for values in table["models"]:
        row = dict(zip(COLUMNS, values, strict=True))
        source = Source(row.pop("hub"), row.pop("filename"), row.pop("url"))
        model = row.pop("model")
        row["preprocessing"] = preprocessings[row["preprocessing"]]
        row["weights"] = _weights_state(source, cached)
        if source:
            row["weights_mib"] = round(row["num_parameters"] * BYTES_PER_PARAMETER / 2**20, 1)
        if source.hub:
            row["hub"], row["hub_files"] = source.hub, source.filenames
        for name in dict.fromkeys([*defaults.get(model, ()), model]):
            card = BackboneCard(name=f"timm/{name}", **row, **RECOMMENDED.get(name, {}))
            yield Entry(card, model, source)


def _weights_state(source: Source, cached: frozenset[str]) -> Literal["cached", "download", "none"]:
    if not source:
        return "none"
    if not source.hub:
        return "cached" if source.path.name in cached else "download"
    snapshots = _hub_cache() / _hub_folder(source.hub) / "snapshots"
    is_cached = _hub_folder(source.hub) in cached and any(
        path.is_file() for name in source.filenames for path in snapshots.glob(f"*/{name}")
    )
    return "cached" if is_cached else "download"


def _hub_cache() -> Path:
    explicit = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    home = os.environ.get("HF_HOME") or str(_cache_home() / "huggingface")
    return _expanded(explicit or str(Path(home) / "hub"))


def _torch_checkpoints() -> Path:
    home = os.environ.get("TORCH_HOME") or str(_cache_home() / "torch")
    return _expanded(home) / "hub" / "checkpoints"


def _cache_home() -> Path:
    return _expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache")


def _expanded(path: str) -> Path:
    return Path(os.path.expanduser(path))  # noqa: PTH111 - the method fails for users without a home


def _hub_folder(repository: str) -> str:
    return "models--" + repository.partition("@")[0].replace("/", "--")


def _file_names(folder: Path) -> frozenset[str]:
    try:
        return frozenset(path.name for path in folder.iterdir())
    except OSError:
        return frozenset()
