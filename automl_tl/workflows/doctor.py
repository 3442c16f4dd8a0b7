"""Doctor: check packages that must fit together, devices, weights, plugins and folders."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Final, Literal

from automl_tl.plugin_host import Catalog, discover
from automl_tl.runtime.paths import cache_dir, registry_dir
from automl_tl.values import Value

__all__ = ["CheckResult", "doctor", "explain_import_failure"]

TIMEOUT_S: Final = 120
DEVICE_PROGRAM: Final = """
import torch, torchvision
device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
print(device)
"""


class CheckResult(Value):
    """The result of one check."""

    state: Literal["ok", "note", "wrong"]
    what: str
    found: str


def doctor() -> list[CheckResult]:
    """Check the installation; takes a few seconds, because a child process imports torch."""
    catalog = discover()
    return [
        CheckResult(state="ok", what="versions", found=f"Python {platform.python_version()}, automl-tl {version('automl-tl')}"),
        _torch(),
        *_plugins(catalog),
        _weights(catalog),
        *(_folder(what, path) for what, path in (("registry", registry_dir()), ("cache", cache_dir()))),
    ]


def explain_import_failure(text: str) -> str:
    """Say what to do when torch or torchvision fails to import with the message ``text``."""
    if "torchvision::nms" in text or "undefined symbol" in text:
        return (
            "torch and torchvision are incompatible builds (CPU-only and CUDA mixed, or different releases). "
            "Install both from the same place: `pip install --force-reinstall torch torchvision`. " + text
        )
    if "No module named" in text:
        return f"{text}. `pip install --force-reinstall automl-tl` installs what is missing."
    return text


def _torch() -> CheckResult:
    """Import torch in a child process: a broken build can crash the process that imports it."""
    what = f"torch {version('torch')}, torchvision {version('torchvision')}"
    try:
        done = subprocess.run(
            [sys.executable, "-c", DEVICE_PROGRAM], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return CheckResult(
            state="wrong", what=what, found=f"importing them took more than {TIMEOUT_S} s; the disk may be very slow"
        )
    if done.returncode == 0:
        return CheckResult(state="ok", what=what, found=done.stdout.strip())
    last_words = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return CheckResult(state="wrong", what=what, found=explain_import_failure(last_words))


def _plugins(catalog: Catalog) -> list[CheckResult]:
    broken = [
        CheckResult(state="wrong", what=f"plugin {offer.name} ({offer.distribution})", found=offer.problem)
        for offer in catalog.plugins
        if offer.problem
    ]
    counts = f"{len(catalog.backbones)} backbones, {len(catalog.strategies)} strategies"
    return [CheckResult(state="ok", what="plugins", found=counts), *broken]


def _weights(catalog: Catalog) -> CheckResult:
    local = [name for name, backbone in catalog.backbones.items() if backbone.card.weights in ("package", "cached", "file")]
    if not local:
        return CheckResult(state="wrong", what="weights", found="no pretrained weights on this machine; reinstall automl-tl")
    listed = ", ".join(local[:6]) + (f" and {len(local) - 6} more" if len(local) > 6 else "")
    return CheckResult(state="ok", what="weights on this machine", found=listed)


def _folder(what: str, path: Path) -> CheckResult:
    existing = next(place for place in (path, *path.absolute().parents) if place.exists())
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return CheckResult(state="ok", what=f"{what} folder", found=str(path))
    return CheckResult(state="wrong", what=f"{what} folder", found=f"{path} is not writable; set TL_HOME to a folder that is")
