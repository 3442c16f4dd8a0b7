"""Build models of ``keras.applications``: with the torch backend, on the CPU, whatever the user's own Keras is set to."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any, Final

from automl_tl.errors import PluginError
from automl_tl_keras.cards import Entry

BACKEND: Final = "torch"
BACKEND_VARIABLE: Final = "KERAS_BACKEND"
# Arguments of NASNetMobile, which keras up to 3.15 refuses to build with the torch backend; only its graph is used here.
NASNET_MOBILE: Final = {
    **{"penultimate_filters": 1056, "num_blocks": 4, "stem_block_filters": 32, "skip_reduction": False},
    **{"filter_multiplier": 2, "default_size": 224, "name": "nasnet_mobile"},
}


def import_keras() -> Any:  # noqa: ANN401  keras has no types
    """Return keras with the torch backend.

    Raises:
        PluginError: keras was imported before, with another backend.
    """
    if "keras" not in sys.modules:
        before = os.environ.get(BACKEND_VARIABLE)
        os.environ[BACKEND_VARIABLE] = BACKEND
        try:
            import keras
        finally:
            os.environ.pop(BACKEND_VARIABLE)
            if before is not None:
                os.environ[BACKEND_VARIABLE] = before
    import keras

    if keras.config.backend() != BACKEND:
        raise PluginError(
            f"Keras was imported with the backend {keras.config.backend()!r}, but backbones of keras/ need {BACKEND!r}. "
            f"Set {BACKEND_VARIABLE}={BACKEND} before the first import of keras."
        )
    return keras


def find_constructor(name: str) -> Any:  # noqa: ANN401  keras has no types
    """Return a function of ``keras.applications`` by name.

    Raises:
        AttributeError: the installed keras lacks it.
    """
    constructor = getattr(import_keras().applications, name)
    if name == "NASNetMobile":
        return partial(import_module(constructor.__module__).NASNet, **NASNET_MOBILE)
    return constructor


def build_model(entry: Entry, side_px: int | None = None, device: str = "cpu") -> Any:  # noqa: ANN401  keras has no types
    """Build the Keras model of ``entry`` with random weights, which follow from torch's global random generator.

    Args:
        entry: constructor and options.
        side_px: side of the images; by default that of the card.
        device: of the weights; on ``meta`` they have no values.

    Raises:
        AttributeError: the installed keras lacks the model.
    """
    keras = import_keras()
    constructor = find_constructor(entry.constructor)
    side_px = side_px or entry.card.preprocessing.side_px
    top = {"classifier_activation": None} if entry.has_top else {"include_top": False, "pooling": "avg"}
    with _usual_settings(keras), _seeded_by_torch(), keras.device(device):
        return constructor(weights=None, input_shape=(side_px, side_px, 3), **top, **entry.options)


@contextmanager
def _usual_settings(keras: Any) -> Iterator[None]:  # noqa: ANN401
    """Set float32 and channels last, which the user's ``keras.json`` or program may have changed."""
    layout, policy = keras.config.image_data_format(), keras.config.dtype_policy()
    keras.config.set_image_data_format("channels_last")
    keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_image_data_format(layout)
        keras.config.set_dtype_policy(policy)


@contextmanager
def _seeded_by_torch() -> Iterator[None]:
    """Let Keras' initializers, which take their seeds from ``random``, follow from torch's generator."""
    import torch

    state = random.getstate()
    random.seed(int(torch.randint(2**31, ())))
    try:
        yield
    finally:
        random.setstate(state)
