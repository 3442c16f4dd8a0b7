"""A local model registry: versions of safetensors models that can be trusted, promoted, undone and asked about.

A library of its own: standard library, pydantic and safetensors files; numpy is loaded where predictions are compared.
"""

from automl_tl_registry.errors import RegistryError
from automl_tl_registry.header import write_tensors
from automl_tl_registry.registry import Registry
from automl_tl_registry.values import Blob, Event, Facts, Manifest, Metrics, ModelVersion, Tenure, VersionView

__all__ = [
    "Blob",
    "Event",
    "Facts",
    "Manifest",
    "Metrics",
    "ModelVersion",
    "Registry",
    "RegistryError",
    "Tenure",
    "VersionView",
    "write_tensors",
]
