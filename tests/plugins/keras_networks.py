"""Keras backbones for tests, if keras is installed, and networks that are built once."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from automl_tl_keras import KerasBackbone
from automl_tl_keras.cards import Entry, entries

if TYPE_CHECKING:
    from automl_tl_keras.encoders import KerasNetwork

__all__ = ["ENTRIES", "SMALLEST", "Untyped", "backbone_of", "keras_model", "needs_keras", "network_of"]

Untyped: TypeAlias = Any  # keras has no types

ENTRIES: dict[str, Entry] = {entry.card.name.partition("/")[2]: entry for entry in entries()}
SMALLEST = "mobilenet_0.25"
os.environ.setdefault("KERAS_BACKEND", "torch")  # a test may be the first to import keras
os.environ.setdefault("KERAS_HOME", os.devnull)  # keras writes its settings there

needs_keras = pytest.mark.skipif(find_spec("keras") is None, reason="keras is not installed")


def backbone_of(model: str = SMALLEST) -> KerasBackbone:
    """The backbone ``keras/model``."""
    return KerasBackbone(ENTRIES[model])


def keras_model(model: str = SMALLEST, side_px: int = 64) -> Untyped:
    """The Keras model itself, with random weights, the same in each call; tests must not change it."""
    return _built(model, side_px)


@cache
def _built(model: str, side_px: int) -> Untyped:
    from automl_tl_keras.models import build_model

    return build_model(ENTRIES[model], side_px)


def network_of(model: str = SMALLEST, side_px: int = 64) -> KerasNetwork:
    """The translated network with the weights of ``keras_model``."""
    from automl_tl_keras.encoders import copy_weights, translate

    network = translate(keras_model(model, side_px), reads_bgr=ENTRIES[model].reads_bgr)
    copy_weights(keras_model(model, side_px), network)
    return network
