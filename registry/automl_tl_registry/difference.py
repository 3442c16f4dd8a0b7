"""What lies between two versions: settings, classes, data, metrics, and image by image what they predict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from automl_tl_registry.comparison import ChangedImage, Comparison, changed_images, compare
from automl_tl_registry.evidence import ImagesDifference, compare_images, read_images, read_predictions
from automl_tl_registry.loading import resolve
from automl_tl_registry.store import Store
from automl_tl_registry.values import Json, ModelVersion, Value

__all__ = ["Change", "Difference", "diff"]


class Change(Value):
    """A fact that differs; absent on a side means that it isn't known there."""

    key: str
    before: Json = None
    after: Json = None


class Difference(Value):
    """From ``before`` to ``after``. Fields without the necessary blobs are absent."""

    before: str
    after: str
    settings: tuple[Change, ...]
    classes_added: tuple[str, ...]
    classes_removed: tuple[str, ...]
    data: tuple[Change, ...]
    metrics: tuple[Change, ...]
    images: ImagesDifference | None = None
    comparison: Comparison | None = None
    changed: tuple[ChangedImage, ...] = ()


def diff(store: Store, before: str, after: str) -> Difference:
    """The difference of two versions, which may be of different models.

    Raises:
        NotFoundError: one isn't there.
        IntegrityError: a blob that is compared is damaged.
    """
    old, new = resolve(store, before), resolve(store, after)
    comparison, changed = _predicted(store, old, new)
    return Difference(
        before=old.ref,
        after=new.ref,
        settings=_changes(_settings(old), _settings(new)),
        classes_added=tuple(name for name in new.facts.classes if name not in old.facts.classes),
        classes_removed=tuple(name for name in old.facts.classes if name not in new.facts.classes),
        data=_changes(old.facts.data, new.facts.data),
        metrics=_changes(_measured(old), _measured(new)),
        images=_images(store, old, new),
        comparison=comparison,
        changed=changed,
    )


def _settings(version: ModelVersion) -> dict[str, Any]:
    keys = {"task", "preprocessing", "backbone", "strategy", "plan", "environment", "lineage", "extra"}
    return version.facts.model_dump(mode="json", include=keys)


def _measured(version: ModelVersion) -> dict[str, Any]:
    return version.facts.model_dump(mode="json", include={"metrics", "latency_ms", "seconds"}) | {
        "size_bytes": version.size_bytes
    }


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Change, ...]:
    old, new = _flat(before), _flat(after)
    keys = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    return tuple(Change(key=key, before=old.get(key), after=new.get(key)) for key in keys)


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in content.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def _predicted(store: Store, old: ModelVersion, new: ModelVersion) -> tuple[Comparison | None, tuple[ChangedImage, ...]]:
    blobs = (old.blobs.get("predictions"), new.blobs.get("predictions"))
    if blobs[0] is None or blobs[1] is None:
        return None, ()
    before = read_predictions(store.blobs.checked(blobs[0].digest), old.facts.classes)
    after = read_predictions(store.blobs.checked(blobs[1].digest), new.facts.classes)
    return compare(before, after), tuple(changed_images(before, after))


def _images(store: Store, old: ModelVersion, new: ModelVersion) -> ImagesDifference | None:
    blobs = (old.blobs.get("images"), new.blobs.get("images"))
    if blobs[0] is None or blobs[1] is None:
        return None
    before = read_images(store.blobs.checked(blobs[0].digest), old.facts.classes)
    return compare_images(before, read_images(store.blobs.checked(blobs[1].digest), new.facts.classes))
