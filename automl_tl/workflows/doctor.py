"""Doctor: check packages that must fit together, devices, weights, plugins and folders."""

from __future__ import annotations

import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Final, Literal

from automl_tl.plugin_host import Catalog, discover
from automl_tl.plugin_host.downloads import endpoint, is_offline
from automl_tl.runtime.child_processes import run_python
from automl_tl.runtime.paths import cache_dir, registry_dir
from automl_tl.values import Value
from automl_tl_registry.errors import StorageError
from automl_tl_registry.storage import check_writable

TIMEOUT_S: Final = 120
DEVICE_PROGRAM: Final = """
import torch, torchvision
device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
cpu = f"CPU, {torch.get_num_threads()} threads"
print(torch.cuda.get_device_name() if torch.cuda.is_available() else f"{device.type.upper()}, {cpu}" if device else cpu)
"""
EXTRAS: Final = {  # optional packages, and what they are for
    "heic": "reads HEIC and HEIF images",
    "keras": "backbones of Keras",
    "mlflow": "`--track mlflow`",
    "oci": "versions in container registries",
    "onnx": "`tl export` to ONNX and OpenVINO",
    "openvino": "runs frozen blocks 5 to 7 times as fast on a CPU",
    "ray": "`--on ray`",
    "remote": "shared registries in S3, Google Cloud Storage, Azure and other storage",
    "serve": "`tl serve` and `tl review`",
    "signing": "signatures of versions",
    "tensorboard": "`--track tensorboard`",
    "testing": "checks of plugins in their authors' own pytest",
    "wandb": "`--track wandb`",
}
OPTIONAL: Final = re.compile(r"([\w.-]+).*\bextra == ['\"]([\w-]+)['\"]")  # name and extra of a requirement


class InstallationCheck(Value):
    """The result of one check of the installation; what is "missing" is optional."""

    name: str
    status: Literal["ok", "missing", "failed"]
    detail: str


def doctor() -> list[InstallationCheck]:
    """Check the installation; takes a few seconds, because a child process imports torch."""
    catalog = discover()
    versions = f"Python {platform.python_version()}, automl-tl {version('automl-tl')}"
    return [
        InstallationCheck(name="versions", status="ok", detail=versions),
        _torch(),
        *map(_extra, EXTRAS),
        *_plugins(catalog),
        _weights(catalog),
        _downloads(catalog),
        _folder("registry", registry_dir()),
        _folder("cache", cache_dir()),
    ]


def explain_import_failure(text: str) -> str:
    """Say what to do when torch or torchvision fails to import with the message ``text``."""
    if "torchvision::nms" in text or "undefined symbol" in text:
        advice = "Install both from the same place: `pip install --force-reinstall torch torchvision`."
        return f"torch and torchvision are incompatible builds (CPU and CUDA mixed, or different releases). {advice} {text}"
    if "No module named" in text:
        return f"{text}. `pip install --force-reinstall automl-tl` installs what is missing."
    return text


def _torch() -> InstallationCheck:
    """Import torch in a child process: a broken build can crash the process that imports it."""
    name = f"torch {version('torch')}, torchvision {version('torchvision')}"
    try:
        completed = run_python(["-c", DEVICE_PROGRAM], timeout_s=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        detail = f"the import took more than {TIMEOUT_S} s; the disk may be very slow"
        return InstallationCheck(name=name, status="failed", detail=detail)
    if completed.returncode == 0:
        return InstallationCheck(name=name, status="ok", detail=completed.stdout.strip())
    last_line = (completed.stderr.strip().splitlines() or [f"exit code {completed.returncode}"])[-1]
    return InstallationCheck(name=name, status="failed", detail=explain_import_failure(last_line))


def _extra(extra: str) -> InstallationCheck:
    """Look for the packages of an extra; without them the product works, and does less."""
    optional = [match.groups() for match in map(OPTIONAL.match, requires("automl-tl") or []) if match]
    installed, missing = [], []
    for package in (name for name, of_extra in optional if of_extra == extra):
        try:
            installed.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
    purpose = EXTRAS[extra]
    if missing:
        detail = f"{purpose}; needs {', '.join(missing)}: `pip install 'automl-tl[{extra}]'`"
        return InstallationCheck(name=f"extra [{extra}]", status="missing", detail=detail)
    return InstallationCheck(name=f"extra [{extra}]", status="ok", detail=f"{purpose}: {', '.join(installed)}")


def _plugins(catalog: Catalog) -> list[InstallationCheck]:
    broken = [
        InstallationCheck(name=f"plugin {plugin.name} ({plugin.distribution})", status="failed", detail=plugin.problem)
        for plugin in catalog.plugins
        if plugin.problem
    ]
    counts = f"{len(catalog.backbones)} backbones, {len(catalog.strategies)} strategies"
    return [InstallationCheck(name="plugins", status="ok", detail=counts), *broken]


def _weights(catalog: Catalog) -> InstallationCheck:
    local = [name for name, backbone in catalog.backbones.items() if backbone.card.is_local]
    detail = ", ".join(local[:6]) + (f" and {len(local) - 6} more" if len(local) > 6 else "")
    return InstallationCheck(
        name="weights on this machine",
        status="ok" if local else "failed",
        detail=detail or "no pretrained weights; reinstall automl-tl",
    )


def _downloads(catalog: Catalog) -> InstallationCheck:
    """Tell which recommended backbones are here and where others would come from; no server is asked."""
    cards = [backbone.card for backbone in catalog.backbones.values() if backbone.card.recommended]
    num_local = sum(card.weights == "cached" for card in cards)
    source = "downloads are off (HF_HUB_OFFLINE)" if is_offline() else f"`--download` asks {endpoint()}"
    return InstallationCheck(
        name="recommended backbones",
        status="ok" if num_local == len(cards) else "missing",
        detail=f"{num_local} of {len(cards)} on this machine; {source}; `tl plugins backbones --recommended` lists them",
    )


def _folder(name: str, path: Path) -> InstallationCheck:
    try:
        check_writable(path)
    except (StorageError, OSError) as error:
        return InstallationCheck(name=f"{name} folder", status="failed", detail=str(error))
    return InstallationCheck(name=f"{name} folder", status="ok", detail=str(path))
