"""Training images for the live page: thumbnails of the nearest ones, read where they were at the fit.

A path is one that the version names, never one from a client, and an image is shown only if its bytes are those of the fit.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path

from safetensors.numpy import load_file

from automl_tl import data
from automl_tl.errors import DataError
from automl_tl.workflows.dataset import make_thumbnail
from automl_tl.workflows.model import Model


class TrainingImages:
    """The training images of a model, as far as they are still on this machine; may be used from several threads."""

    def __init__(self, model: Model, source: Path | None) -> None:
        """Prepare to read; nothing is opened before the first thumbnail.

        Args:
            model: version that was fitted on the images.
            source: folder, table or archive of the fit; ``None``: unknown.
        """
        self._model, self._path = model, source

    def thumbnail(self, path: str) -> bytes | None:
        """Return a small JPEG of the training image at ``path``; ``None`` if it is not there any more, or changed."""
        try:
            content = self._source.read(path) if self._source else b""
            is_known = hashlib.sha256(content).digest() in self._digests
            return make_thumbnail(content) if is_known else None
        except (OSError, KeyError, ValueError, DataError):
            return None

    @cached_property
    def _source(self) -> data.Source | None:
        try:  # only read by path: what is a class does not matter
            return data.open_source(self._path, classes_are_folders=True) if self._path else None
        except (OSError, DataError):
            return None

    @cached_property
    def _digests(self) -> frozenset[bytes]:
        return frozenset(map(bytes, load_file(self._model.view.paths["images"])["image_digest"]))
