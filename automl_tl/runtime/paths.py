"""Where the tool keeps what it keeps: everything under ``TL_HOME`` if that is set, else the platform's user folders."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path, user_data_path

__all__ = ["cache_dir", "registry_dir", "splits_dir"]


def registry_dir() -> Path:
    """Folder of the default registry; not made here."""
    home = os.environ.get("TL_HOME")
    return Path(home).expanduser() / "registry" if home else user_data_path("automl_tl") / "registry"


def splits_dir() -> Path:
    """Folder of the splits that fits have used, so that old images stay where they were; not made here."""
    return registry_dir().with_name("splits")


def cache_dir() -> Path:
    """Folder of everything that can be computed again; not made here."""
    home = os.environ.get("TL_HOME")
    return Path(home).expanduser() / "cache" if home else user_cache_path("automl_tl")
