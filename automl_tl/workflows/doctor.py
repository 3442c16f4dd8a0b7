"""What ``tl doctor`` looks at: packages that must fit together, devices, weights, plugins, folders."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Final, Literal

from automl_tl.plugin_host import Catalog
from automl_tl.runtime.paths import cache_dir, registry_dir
from automl_tl.values import Value

__all__ = ["Examined", "examine", "explain_import_failure"]

TIMEOUT_S: Final = 120
LOOK: Final = """
import torch, torchvision
device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
print(device)
"""


class Examined(Value):
    """One thing that was looked at."""

    state: Literal["ok", "note", "wrong"]
    what: str
    found: str


def examine(catalog: Catalog) -> list[Examined]:
    """Everything that can be told without fitting anything; takes some seconds, because torch is imported."""
    return [
        Examined(state="ok", what="versions", found=f"Python {platform.python_version()}, automl-tl {version('automl-tl')}"),
        _torch(),
        *_plugins(catalog),
        _weights(catalog),
        *(_folder(what, path) for what, path in (("registry", registry_dir()), ("cache", cache_dir()))),
    ]


def explain_import_failure(text: str) -> str:
    """What to do about torch or torchvision failing to load with ``text`` as their last words."""
    if "torchvision::nms" in text or "undefined symbol" in text:
        return (
            "torch and torchvision are builds that don't fit together (one for the CPU only, one for CUDA, or of different "
            "releases). Install both from one place: `pip install --force-reinstall torch torchvision`. " + text
        )
    if "No module named" in text:
        return f"{text}. `pip install --force-reinstall automl-tl` brings what is missing."
    return text


def _torch() -> Examined:
    """In a process of its own: a broken build can end the process that imports it."""
    what = f"torch {version('torch')}, torchvision {version('torchvision')}"
    try:
        done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return Examined(state="wrong", what=what, found=f"importing them took more than {TIMEOUT_S} s: is the disk very slow?")
    if done.returncode == 0:
        return Examined(state="ok", what=what, found=done.stdout.strip())
    last_words = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return Examined(state="wrong", what=what, found=explain_import_failure(last_words))


def _plugins(catalog: Catalog) -> list[Examined]:
    broken = [
        Examined(state="wrong", what=f"plugin {offer.name} ({offer.distribution})", found=offer.problem)
        for offer in catalog.offers
        if offer.problem
    ]
    counts = f"{len(catalog.backbones)} backbones, {len(catalog.strategies)} strategies"
    return [Examined(state="ok", what="plugins", found=counts), *broken]


def _weights(catalog: Catalog) -> Examined:
    local = [name for name, backbone in catalog.backbones.items() if backbone.card.weights in ("package", "cached", "file")]
    if not local:
        return Examined(state="wrong", what="weights", found="no pretrained weights on this machine; reinstall automl-tl")
    listed = ", ".join(local[:6]) + (f" and {len(local) - 6} more" if len(local) > 6 else "")
    return Examined(state="ok", what="weights on this machine", found=listed)


def _folder(what: str, path: Path) -> Examined:
    existing = next(place for place in (path, *path.absolute().parents) if place.exists())
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return Examined(state="ok", what=f"{what} folder", found=str(path))
    return Examined(state="wrong", what=f"{what} folder", found=f"{path} can't be written; set TL_HOME to a folder of yours")
