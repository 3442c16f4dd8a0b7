"""A scikit-learn estimator: ``fit`` chooses and trains a classifier for images, ``predict`` uses it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal
from unicodedata import normalize

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_array, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import assert_all_finite, check_is_fitted

from automl_tl.data import GivenImages
from automl_tl.data.in_memory import ImageValue, encode_image
from automl_tl.errors import UndecodableError
from automl_tl.models.predictor import Predictor
from automl_tl.values import FitOutcome, Metric
from automl_tl.workflows.fit import fit
from automl_tl.workflows.model import Model, load
from automl_tl.workflows.registry import registry

TEMPORARY_NAME: Final = "estimator"
EXPECTED: Final = (
    "images: paths, Pillow images or the bytes of image files, or an array of uint8 of shape (N, H, W) or (N, H, W, C)"
)


class ImageClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc] # scikit-learn has no types
    """An image classifier that automl_tl chooses and trains within a budget.

    ``X`` is a sequence of paths, Pillow images or bytes of image files, or an array ``(N, H, W)`` or ``(N, H, W, C)`` of uint8;
    ``y`` holds the class labels. Without ``name`` the model lives in the estimator, whose pickle holds safetensors and JSON.
    With ``name`` it is registered, and a pickle only holds its reference.

    Args:
        budget: wall-clock limit of ``fit``, such as ``"5m"``, or in seconds.
        backbone: one or several backbones to consider; by default all that are installed.
        strategy: one or several strategies to consider; by default all that are installed.
        head: ``"linear"`` or ``"mlp:4096,4096"``; by default chosen by the strategy.
        optimize: what to favor between candidates of similar accuracy.
        metric: that models are chosen by; by default accuracy, which ``score`` returns anyway.
        class_weight: ``"balanced"``, ``"sqrt"`` (its square roots), ``"none"``, or a weight by label; by default it follows
            from the metric.
        random_state: seed of the split, the folds and the training.
        name: model name in the registry; by default nothing is registered.
        registry: folder of the registry, if there is a ``name``; by default the user's.

    Attributes:
        classes_: labels, in the order of the probabilities.
        outcome_: the plan, the evaluation on 20% of the images that were put aside, and what else ``automl_tl.fit`` returns.
        model_: the reference of the registered model, or the archive of the model.
    """

    def __init__(
        self,
        budget: str | float | None = None,
        *,
        backbone: str | Sequence[str] | None = None,
        strategy: str | Sequence[str] | None = None,
        head: str | None = None,
        optimize: Literal["accuracy", "balanced", "latency", "size"] = "balanced",
        metric: Metric | None = None,
        class_weight: Literal["balanced", "sqrt", "none"] | Mapping[Any, float] | None = None,
        random_state: int | np.random.RandomState | None = None,
        name: str | None = None,
        registry: str | Path | None = None,
    ) -> None:
        self.budget = budget
        self.backbone = backbone
        self.strategy = strategy
        self.head = head
        self.optimize = optimize
        self.metric = metric
        self.class_weight = class_weight
        self.random_state = random_state
        self.name = name
        self.registry = registry

    def fit(self, X: Any, y: ArrayLike) -> ImageClassifier:  # noqa: ANN401 - scikit-learn's names
        """Choose and train a classifier.

        Args:
            X: the images.
            y: their labels.

        Raises:
            ValueError: they are no images or no labels, or have another number.
            AutomlTlError: as ``automl_tl.fit``.
        """
        if y is None:
            raise ValueError("ImageClassifier requires y to be passed, but the target y is None.")
        items = _as_items(X, self)
        labels = _checked_labels(items, y)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"ImageClassifier needs at least two classes, found 1 class: {self.classes_[0]!r}")
        images = _as_images(items)
        names = _class_names(self.classes_)
        source = GivenImages(images, [names[code] for code in codes], encode_image)
        if self.name is not None:
            self.outcome_ = self._fit(source, self.registry)
            self.model_: str | bytes = self.outcome_.model
            self._model = load(self.model_, registry=self.registry)
            return self
        with TemporaryDirectory(prefix="tl-", ignore_cleanup_errors=True) as folder:
            self.outcome_ = self._fit(source, folder).model_copy(update={"report": None})
            self.model_ = registry(folder).export(self.outcome_.model, Path(folder) / "model.tar").read_bytes()
            self._model = load(self.outcome_.model, registry=folder)
        return self

    def _fit(self, source: GivenImages, folder: str | Path | None) -> FitOutcome:
        seed = self.random_state
        if not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(np.iinfo(np.int32).max)
        return fit(
            source,
            name=self.name or TEMPORARY_NAME,
            registry=folder,
            budget=self.budget,
            backbone=self.backbone,
            strategy=self.strategy,
            head=self.head,
            optimize=self.optimize,
            metric=self.metric,
            class_weights=self._class_weights(),
            seed=int(seed),
        )

    def _class_weights(self) -> Any:  # noqa: ANN401 - as of ``fit``
        """Return the weights by the names of the classes in the model."""
        if not isinstance(self.class_weight, Mapping):
            return self.class_weight
        names = dict(zip(self.classes_.tolist(), _class_names(self.classes_), strict=True))
        return {names.get(label, str(label)): weight for label, weight in self.class_weight.items()}

    def predict_proba(self, X: Any) -> NDArray[np.float64]:  # noqa: ANN401 - scikit-learn's names
        """Return the probabilities ``(N, C)`` of the classes of each image.

        Raises:
            ValueError: something is no image, or cannot be read.
        """
        check_is_fitted(self)
        images, classifier = _as_images(_as_items(X, self)), self._load().classifier

        def read(position: str) -> bytes:
            return encode_image(images[int(position)])

        predictor = Predictor.for_many(classifier, len(images))
        try:
            rows = predictor.probabilities_of([str(row) for row in range(len(images))], read)
        except (UndecodableError, OSError) as error:
            raise ValueError(f"An image of X cannot be read: {error}") from error
        columns = {name: column for column, name in enumerate(classifier.facts.classes)}
        probabilities = np.zeros((len(images), len(self.classes_)))  # a class without a usable image has no column
        for at, name in enumerate(_class_names(self.classes_)):
            if name in columns:
                probabilities[:, at] = rows[:, columns[name]]
        return probabilities

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: ANN401 - scikit-learn's names
        """Return the most probable label of each image."""
        probabilities = self.predict_proba(X)
        labels: NDArray[Any] = self.classes_[probabilities.argmax(axis=1)]
        return labels

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def __sklearn_tags__(self) -> Any:  # noqa: ANN401 - scikit-learn has no types
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = tags.input_tags.string = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = {**super().__getstate__()}
        state.pop("_model", None)
        return state

    def _load(self) -> Model:
        """Return the model, and read it first if this estimator was unpickled."""
        if not hasattr(self, "_model"):
            if isinstance(self.model_, str):
                self._model = load(self.model_, registry=self.registry)
            else:
                with TemporaryDirectory(prefix="tl-", ignore_cleanup_errors=True) as folder:
                    archive = Path(folder) / "model.tar"
                    archive.write_bytes(self.model_)
                    self._model = load(registry(folder).import_(archive).ref, registry=folder)
        return self._model


def _checked_labels(items: Sequence[Any] | NDArray[Any], y: ArrayLike) -> NDArray[Any]:
    labels: NDArray[Any] = column_or_1d(y, warn=True)
    assert_all_finite(labels, input_name="y")
    check_consistent_length(items, labels)
    check_classification_targets(labels)
    return labels


def _class_names(classes: NDArray[Any]) -> list[str]:
    """Return the names of the classes in the model: their labels, or their positions if labels look the same."""
    names = [normalize("NFC", str(label)) for label in classes]
    is_usable = len(set(names)) == len(names) and all(name.strip() == name != "" for name in names)
    return names if is_usable else [str(position) for position in range(len(names))]


def _as_items(X: Any, estimator: ImageClassifier) -> Sequence[Any] | NDArray[Any]:  # noqa: ANN401 - checked here
    """Return a sequence of values or an array.

    Raises:
        TypeError, ValueError: what scikit-learn says of any estimator's data: sparse, empty, NaN ...
    """
    if isinstance(X, list | tuple) and X and isinstance(X[0], str | os.PathLike | bytes | Image.Image | np.ndarray):
        return X
    array: NDArray[Any] = check_array(X, dtype=None, allow_nd=True, ensure_2d=False, input_name="X", estimator=estimator)
    return array


def _as_images(items: Sequence[Any] | NDArray[Any]) -> Sequence[ImageValue]:
    """Return one image per item; a ``ValueError`` says what an array has to be."""
    if not isinstance(items, np.ndarray):
        return items
    if items.dtype.kind in "OU" and items.size == len(items):  # paths, also as a column of a table
        images: list[ImageValue] = items.ravel().tolist()
        return images
    if items.dtype != np.uint8 or items.ndim not in (3, 4):
        found = f"an array of {items.dtype} of shape {items.shape}"
        advice = "Rows of pixels become images by X.reshape(-1, height, width); values from 0 to 1 by (255 * X).astype('uint8')"
        raise ValueError(f"Expected {EXPECTED}; found {found}. {advice}.")
    return list(items)
