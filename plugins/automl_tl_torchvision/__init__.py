"""Every torchvision classification model as a Backbone. Importing this package loads no torch."""

from __future__ import annotations

from collections.abc import Sequence

from automl_tl.contracts import Backbone

__all__ = ["backbones"]


def backbones() -> Sequence[Backbone]:
    """The backbones that torchvision offers."""
    return ()
