"""Records of images in memory: made from facts, and without those that are left out."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from automl_tl.values import ImageRecord

__all__ = ["exclude", "make_record"]

SHARED: Final = ("label", "format", "mode", "camera")  # texts that many images have in common: one object for all
ALL_FIELDS: Final = set(ImageRecord.model_fields)  # pydantic's set of given fields: larger than a record, hence shared


def make_record(fields: Mapping[str, object]) -> ImageRecord:
    """An ``ImageRecord`` that shares with all others what they have in common."""
    record = ImageRecord.model_validate(fields)
    for name in SHARED:
        if text := getattr(record, name):
            record.__dict__[name] = sys.intern(text)
    object.__setattr__(record, "__pydantic_fields_set__", ALL_FIELDS)
    return record


def exclude(images: Sequence[ImageRecord], paths: Iterable[str]) -> tuple[ImageRecord, ...]:
    """The ``images`` whose path is not among ``paths``, sorted by path."""
    excluded = set(paths)
    return tuple(sorted((image for image in images if image.path not in excluded), key=lambda image: image.path))
