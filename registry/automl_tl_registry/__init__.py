"""A local model registry: publish, promote, roll back, compare and audit versions of safetensors models.

A separate library: it needs pydantic, safetensors and filelock, and numpy only where predictions are compared. Each name is
loaded when it is first used, so importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from automl_tl_registry.contents import write_tensors
    from automl_tl_registry.errors import RegistryError
    from automl_tl_registry.gates import GatePolicy
    from automl_tl_registry.registry import Registry
    from automl_tl_registry.values import (
        ANYWHERE,
        AliasChange,
        Blob,
        Event,
        Facts,
        GateResult,
        Manifest,
        Metrics,
        ModelVersion,
        Tenure,
        VersionView,
    )

__all__ = [
    "ANYWHERE",
    "AliasChange",
    "Blob",
    "Event",
    "Facts",
    "GatePolicy",
    "GateResult",
    "Manifest",
    "Metrics",
    "ModelVersion",
    "Registry",
    "RegistryError",
    "Tenure",
    "VersionView",
    "write_tensors",
]

_ELSEWHERE: Final = {"GatePolicy": "gates", "Registry": "registry", "RegistryError": "errors", "write_tensors": "contents"}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the names above
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ELSEWHERE.get(name, 'values')}"), name)


def __dir__() -> list[str]:
    return __all__
