"""A local model registry: versions of safetensors models that can be trusted, promoted, undone and asked about.

A library of its own: standard library, pydantic and safetensors files; numpy is loaded where predictions are compared.
"""

from automl_tl_registry.aliases import ANYWHERE, AliasChange
from automl_tl_registry.errors import RegistryError
from automl_tl_registry.gates import GatePolicy, GateResult
from automl_tl_registry.header import write_tensors
from automl_tl_registry.registry import Registry
from automl_tl_registry.values import Blob, Event, Facts, Manifest, Metrics, ModelVersion, Tenure, VersionView

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
