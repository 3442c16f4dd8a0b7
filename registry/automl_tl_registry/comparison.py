"""Compare two versions: settings, classes, data, metrics, and the predictions for each shared test image.

Images are matched by digest, classes by name. The true label is that of the newer version (``after``); images whose label
differs in the older one are counted as relabeled. numpy is imported only when predictions are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import exp, lgamma, log, sqrt
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from pydantic import Field

from automl_tl_registry.contents import (
    SPLITS,
    CorrectedLabel,
    Predictions,
    read_corrected_labels,
    read_images,
    read_predictions,
)
from automl_tl_registry.queries import resolve
from automl_tl_registry.store import Store
from automl_tl_registry.values import Json, ModelVersion, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

T = TypeVar("T")
RESAMPLES: Final = 2_000  # bootstrap resamples; the limits then vary by about 2% of the interval's width
CONFIDENCE: Final = 0.95


class ClassChange(Value):
    """Recall of one class, before and after, on the shared images of that class."""

    name: str
    num_images: int
    before: float
    after: float


class Comparison(Value):
    """Comparison on the test images that both versions share. Differences are after minus before."""

    num_images: int
    num_only_before: int
    num_only_after: int
    num_relabeled: int
    gained: int
    lost: int
    accuracy_before: float
    accuracy_after: float
    difference: float
    interval: tuple[float, float]
    p_value: float
    log_loss_difference: float | None = None
    log_loss_interval: tuple[float, float] | None = None
    classes: tuple[ClassChange, ...] = ()


MetricName = Literal["accuracy", "balanced_accuracy", "macro_f1", "log_loss"]


class MetricChange(Value):
    """A metric of both versions on their shared test images; a loss is positive where the newer version is worse."""

    num_images: int
    before: float
    after: float
    loss: float
    largest_loss: float = Field(description="upper limit of the loss, with the asked confidence")


class ChangedImage(Value):
    """An image that the two versions classify differently."""

    digest: str
    label: str
    before: str
    after: str
    probability_before: float
    probability_after: float
    kind: str


class _Matched:
    """Predictions of both versions for the shared images, ordered by digest; classes are indices into ``names``."""

    def __init__(self, before: Predictions, after: Predictions) -> None:
        import numpy as np

        keys = [np.ascontiguousarray(predictions.image_digest).reshape(-1).view("S32") for predictions in (before, after)]
        self.digests, rows_before, rows_after = np.intersect1d(keys[0], keys[1], return_indices=True)
        self.num_only_before = len(np.unique(keys[0])) - len(self.digests)
        self.num_only_after = len(np.unique(keys[1])) - len(self.digests)
        self.names = list(dict.fromkeys([*after.classes, *before.classes]))
        to_names = np.array([self.names.index(name) for name in before.classes])
        self.label = after.label[rows_after]
        self.label_before = to_names[before.label[rows_before]]
        self.probability = (before.probability[rows_before], after.probability[rows_after])
        self.predicted = (to_names[self.probability[0].argmax(1)], self.probability[1].argmax(1))
        self.right = (self.predicted[0] == self.label, self.predicted[1] == self.label)
        self.columns_before = {name: number for number, name in enumerate(before.classes)}

    def __len__(self) -> int:
        return len(self.digests)

    def log_loss(self) -> NDArray[Any]:
        """Return the log-loss difference (after minus before) of each image whose class both versions know."""
        import numpy as np

        columns = np.array([self.columns_before.get(name, -1) for name in self.names])[self.label]
        rows = np.flatnonzero(columns >= 0)
        floor = 1e-7  # float32 cannot distinguish much smaller probabilities from zero
        before = np.clip(self.probability[0][rows, columns[rows]], floor, 1)
        after = np.clip(self.probability[1][rows, self.label[rows]], floor, 1)
        return np.asarray(np.log(before) - np.log(after), dtype=np.float64)


def compare(before: Predictions, after: Predictions) -> Comparison:
    """Return how two versions differ on their shared test images; all zero without any. Deterministic.

    Args:
        before: test predictions of the older version.
        after: test predictions of the newer version.
    """
    matched = _Matched(before, after)
    num, (right_before, right_after) = len(matched), matched.right
    gained, lost = int((right_after & ~right_before).sum()), int((right_before & ~right_after).sum())
    loss, loss_interval = _bootstrap(matched.log_loss())
    return Comparison(
        num_images=num,
        num_only_before=matched.num_only_before,
        num_only_after=matched.num_only_after,
        num_relabeled=int((matched.label != matched.label_before).sum()),
        gained=gained,
        lost=lost,
        accuracy_before=float(right_before.mean()) if num else 0.0,
        accuracy_after=float(right_after.mean()) if num else 0.0,
        difference=(gained - lost) / num if num else 0.0,
        interval=paired_interval(gained, lost, num, confidence=CONFIDENCE),
        p_value=mcnemar_p(gained, lost),
        log_loss_difference=loss,
        log_loss_interval=loss_interval,
        classes=_class_changes(matched),
    )


def compare_metric(before: Predictions, after: Predictions, metric: str, *, confidence: float) -> MetricChange:
    """Compare two versions by a metric on their shared test images. Deterministic.

    The limit is a quantile of a paired bootstrap within classes (Efron 1979), with one image of each class changed in addition,
    so that few equal images prove no equality.

    Args:
        before: test predictions of the older version.
        after: test predictions of the newer version; there is at least one shared image.
        metric: balanced_accuracy, macro_f1 or log_loss.
        confidence: one-sided, that the loss is not larger.
    """
    import numpy as np

    matched = _Matched(before, after)
    label, predicted, generator = matched.label, matched.predicted, np.random.Generator(np.random.PCG64(0))
    present = [np.flatnonzero(label == number) for number in np.unique(label)]
    negative = -_log_likelihoods(matched) if metric == "log_loss" else np.zeros((2, len(label)))

    def values(rows: NDArray[Any]) -> tuple[float, float]:
        """Return the metric of both versions on ``rows``, negative if lower is better."""
        if metric == "log_loss":
            return float(-negative[0, rows].mean()), float(-negative[1, rows].mean())
        return _class_mean(metric, label[rows], predicted[0][rows]), _class_mean(metric, label[rows], predicted[1][rows])

    rows = np.arange(len(label))
    was, now = values(rows)
    losses = []
    for _ in range(RESAMPLES):
        chosen = np.concatenate([of_class[generator.integers(0, len(of_class), len(of_class))] for of_class in present])
        once = values(chosen)
        losses.append(once[0] - once[1])
    margin = (
        0.0 if metric == "log_loss" else float(np.mean([1 / (len(of_class) + 2) for of_class in present])) / len(present) ** 0.5
    )
    sign = -1.0 if metric == "log_loss" else 1.0
    return MetricChange(
        num_images=len(label),
        before=sign * was,
        after=sign * now,
        loss=was - now,
        largest_loss=float(np.quantile(losses, confidence)) + margin,
    )


def _log_likelihoods(matched: _Matched) -> NDArray[Any]:
    """Return the log-probabilities ``(2, N)`` of the true classes; a class that a version does not know has the floor."""
    import numpy as np

    floor, rows = 1e-7, np.arange(len(matched))
    columns = np.array([matched.columns_before.get(name, -1) for name in matched.names])[matched.label]
    before = np.where(columns >= 0, matched.probability[0][rows, columns], 0.0)
    return np.asarray(np.log(np.clip(np.stack([before, matched.probability[1][rows, matched.label]]), floor, 1)))


def _class_mean(metric: str, label: NDArray[Any], predicted: NDArray[Any]) -> float:
    """Return the mean over the classes of the recall, or of the F1."""
    import numpy as np

    num = int(max(label.max(), predicted.max())) + 1
    found, sizes = np.bincount(label[label == predicted], minlength=num), np.bincount(label, minlength=num)
    if metric == "balanced_accuracy":
        return float((found[sizes > 0] / sizes[sizes > 0]).mean())
    totals = sizes + np.bincount(predicted, minlength=num)
    return float((2 * found[totals > 0] / totals[totals > 0]).mean())


def _class_changes(matched: _Matched) -> tuple[ClassChange, ...]:
    changes = []
    for number, name in enumerate(matched.names):
        rows = matched.label == number
        if rows.any():
            before, after = (float(right[rows].mean()) for right in matched.right)
            changes.append(ClassChange(name=name, num_images=int(rows.sum()), before=before, after=after))
    return tuple(changes)


def changed_images(before: Predictions, after: Predictions) -> list[ChangedImage]:
    """Return the shared test images that are classified differently: gained, lost, then both wrong; most confident first.

    Args:
        before: test predictions of the older version.
        after: test predictions of the newer version.
    """
    matched = _Matched(before, after)
    images = []
    for row in (matched.predicted[0] != matched.predicted[1]).nonzero()[0]:
        was, now = bool(matched.right[0][row]), bool(matched.right[1][row])
        images.append(
            ChangedImage(
                digest=bytes(matched.digests[row]).ljust(32, b"\0").hex(),
                label=matched.names[matched.label[row]],
                before=matched.names[matched.predicted[0][row]],
                after=matched.names[matched.predicted[1][row]],
                probability_before=float(matched.probability[0][row].max()),
                probability_after=float(matched.probability[1][row].max()),
                kind="gained" if now else "lost" if was else "both wrong",
            )
        )
    order = ("gained", "lost", "both wrong")
    return sorted(images, key=lambda image: (order.index(image.kind), -image.probability_after, image.digest))


def recall_by_class(predictions: Predictions) -> dict[str, tuple[float, int]]:
    """Return recall and number of test images for each class that has test images."""
    right = predictions.probability.argmax(1) == predictions.label
    rows = {name: predictions.label == number for number, name in enumerate(predictions.classes)}
    return {name: (float(right[of_class].mean()), int(of_class.sum())) for name, of_class in rows.items() if of_class.any()}


def paired_interval(gained: int, lost: int, num_images: int, *, confidence: float) -> tuple[float, float]:
    """Return the two-sided interval of the difference between two accuracies on the same images.

    Args:
        gained: images that only the newer version classifies correctly.
        lost: images that only the older version classifies correctly.
        num_images: all shared images.
        confidence: two-sided confidence level, from 0 to 1.

    Returns:
        Lower and upper limit, from -1 to 1.

    Source: Agresti and Min 2005 (Statistics in Medicine 24:729), the Wald interval after adding 0.5 to each of the four cells.
    Unlike the plain Wald interval and the bootstrap, it does not collapse to a point when no image changed.
    """
    total = num_images + 2
    center = (gained - lost) / total
    spread = sqrt(max(0.0, gained + lost + 1 - (gained - lost) ** 2 / total)) / total
    reach = NormalDist().inv_cdf(0.5 + confidence / 2) * spread
    return max(-1.0, center - reach), min(1.0, center + reach)


def mcnemar_p(gained: int, lost: int) -> float:
    """Return the two-sided p-value of the exact McNemar test; 1 if no image changed.

    scipy.stats.binomtest gives the same value, but importing it takes a second, longer than a whole promotion.

    Args:
        gained: images that only the newer version classifies correctly.
        lost: images that only the older version classifies correctly.
    """
    changed, fewer = gained + lost, min(gained, lost)
    logs = (lgamma(changed + 1) - lgamma(k + 1) - lgamma(changed - k + 1) - changed * log(2) for k in range(fewer + 1))
    return min(1.0, 2 * sum(exp(log_term) for log_term in logs))


def _bootstrap(differences: NDArray[Any]) -> tuple[float | None, tuple[float, float] | None]:
    """Return mean and percentile interval of paired differences; deterministic."""
    import numpy as np

    if not len(differences):
        return None, None
    generator = np.random.Generator(np.random.PCG64(0))
    means = [differences[generator.integers(0, len(differences), len(differences))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(differences.mean()), (float(low), float(high))


class Change(Value):
    """A fact that differs; None on one side means that it is unknown there."""

    key: str
    before: Json = None
    after: Json = None


class ImagesDifference(Value):
    """Digests of images by split: that of the newer version if it has the image."""

    added: dict[str, tuple[str, ...]]
    removed: dict[str, tuple[str, ...]]
    relabeled: tuple[str, ...]
    moved: tuple[str, ...]


class CorrectedImage(Value):
    """An image whose label differs because of corrections; None: the version does not use it.

    Kind: corrected, excluded, or undone (corrected before, but not after).
    """

    digest: str
    path: str
    before: str | None
    after: str | None
    kind: str


class Difference(Value):
    """Difference between two versions. Fields whose blobs are missing are None; ``corrected``: because of corrections."""

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
    corrected: tuple[CorrectedImage, ...] = ()


def diff(store: Store, before: str, after: str) -> Difference:
    """Compare two versions, which may belong to different models. See ``Registry.diff``."""
    old, new = resolve(store, before), resolve(store, after)
    predictions = _read_both(store, (old, new), "predictions", read_predictions)
    images = _read_both(store, (old, new), "images", read_images)
    return Difference(
        before=old.ref,
        after=new.ref,
        settings=_changes(_settings(old), _settings(new)),
        classes_added=tuple(name for name in new.facts.classes if name not in old.facts.classes),
        classes_removed=tuple(name for name in old.facts.classes if name not in new.facts.classes),
        data=_changes(old.facts.data, new.facts.data),
        metrics=_changes(_measured(old), _measured(new)),
        images=_compare_images(*images) if images else None,
        comparison=compare(*predictions) if predictions else None,
        changed=tuple(changed_images(*predictions)) if predictions else (),
        corrected=_compare_corrections([_corrected_labels(store, version) for version in (old, new)], images) if images else (),
    )


def _corrected_labels(store: Store, version: ModelVersion) -> dict[str, CorrectedLabel]:
    """Return the corrected labels of a version; empty if it was fitted without corrections."""
    blob = version.blobs.get("corrections")
    return {} if blob is None else read_corrected_labels(store.blobs.checked(blob.digest))


def _compare_corrections(
    corrections: Sequence[Mapping[str, CorrectedLabel]], images: Sequence[Mapping[str, tuple[str, str]]]
) -> tuple[CorrectedImage, ...]:
    """Return the images whose label differs because of corrections: corrected, excluded, then undone; sorted by path."""
    corrected = []
    for digest in {**corrections[0], **corrections[1]}:
        was, now = (rows[digest][0] if digest in rows else None for rows in images)
        path, _, label = corrections[1].get(digest) or corrections[0][digest]
        kind = "undone" if digest not in corrections[1] else "excluded" if label is None else "corrected"
        if was != now and not (kind == "undone" and now is None):  # deleted since
            corrected.append(CorrectedImage(digest=digest, path=path, before=was, after=now, kind=kind))
    return tuple(sorted(corrected, key=lambda image: (image.kind, image.path, image.digest)))


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
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _read_both(
    store: Store, versions: tuple[ModelVersion, ModelVersion], role: str, read: Callable[[Path, Sequence[str]], T]
) -> list[T] | None:
    """Return what ``read`` makes of a blob of both versions, or None if one of them has no such blob."""
    pairs = [(version.blobs.get(role), version.facts.classes) for version in versions]
    checked = [(store.blobs.checked(blob.digest), classes) for blob, classes in pairs if blob is not None]
    return [read(path, classes) for path, classes in checked] if len(checked) == len(pairs) else None


def _compare_images(before: Mapping[str, tuple[str, str]], after: Mapping[str, tuple[str, str]]) -> ImagesDifference:
    shared = sorted(before.keys() & after.keys())
    return ImagesDifference(
        added=_by_split(after, after.keys() - before.keys()),
        removed=_by_split(before, before.keys() - after.keys()),
        relabeled=tuple(key for key in shared if before[key][0] != after[key][0]),
        moved=tuple(key for key in shared if before[key][1] != after[key][1]),
    )


def _by_split(images: Mapping[str, tuple[str, str]], keys: set[str]) -> dict[str, tuple[str, ...]]:
    digests = {split: tuple(sorted(key for key in keys if images[key][1] == split)) for split in SPLITS}
    return {split: keys_of_split for split, keys_of_split in digests.items() if keys_of_split}
