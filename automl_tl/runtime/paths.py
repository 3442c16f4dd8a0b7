"""Default folders: below ``TL_HOME`` if that is set, else in the platform's user directories. Nothing is created here."""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import user_cache_path, user_data_path

__all__ = ["cache_dir", "registry_dir", "splits_dir"]


def registry_dir() -> Path:
    """Return the folder of the default registry."""
    data_dir = os.environ.get("TL_HOME")
    return Path(data_dir).expanduser() / "registry" if data_dir else user_data_path("automl_tl") / "registry"


def splits_dir() -> Path:
    """Return the folder of saved splits, which keep images in the same split when a dataset grows."""
    return registry_dir().with_name("splits")


def cache_dir() -> Path:
    """Return the folder of files that can be computed again."""
    data_dir = os.environ.get("TL_HOME")
    return Path(data_dir).expanduser() / "cache" if data_dir else user_cache_path("automl_tl")
