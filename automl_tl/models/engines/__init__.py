"""Engines: what runs frozen blocks as fast as it can, from images as bytes to features or activations.

``eager`` is torch as it is and what the others are held against; the others are built once per network and kept on disk.
"""

from automl_tl.models.engines.choosing import ENGINES, ComparedEngine, Cost, EngineKind, fastest_engine
from automl_tl.models.engines.eager import EagerEngine, Engine, Normalize, best_device, blocks_digest, layout_on

__all__ = [
    "ENGINES",
    "ComparedEngine",
    "Cost",
    "EagerEngine",
    "Engine",
    "EngineKind",
    "Normalize",
    "best_device",
    "blocks_digest",
    "fastest_engine",
    "layout_on",
]
