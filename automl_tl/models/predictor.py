"""Prediction with a saved model: one ``Prediction`` per image, an error row for each unreadable file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from automl_tl.data.decode import UndecodableError
from automl_tl.data.image_inputs import NamedImage
from automl_tl.evaluation.abstention import ANSWER_ALWAYS, AbstentionPolicy
from automl_tl.models.bundle import Classifier
from automl_tl.models.engines import (
    BATCH_SIZE,
    BREAK_EVEN_IMAGES,
    EagerEngine,
    Engine,
    Read,
    embed,
    fastest_engine,
    load_pixels,
)
from automl_tl.runtime.paths import cache_dir
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.runtime.threads import batches, in_order
from automl_tl.values import Prediction

NUM_TOP = 5

_Loaded = tuple[NamedImage, NDArray[np.uint8] | str]


class Predictor:
    """A classifier that reads images; ``engine`` runs its encoder, by default PyTorch."""

    def __init__(self, classifier: Classifier, engine: Engine | None = None) -> None:
        self.facts = classifier.facts
        self._classifier = classifier
        self._engine: Engine = engine or EagerEngine(classifier.encoder, classifier.facts.preprocessing)

    @classmethod
    def for_many(cls, classifier: Classifier, num_images: int, progress: Progress = QUIET) -> Predictor:
        """Build a predictor with the engine that finishes first; probabilities may differ in the fifth digit.

        Args:
            classifier: to predict with.
            num_images: number of images to predict.
            progress: receives a line if OpenVINO can't be used.
        """
        preprocessing = classifier.facts.preprocessing
        engine = fastest_engine(
            classifier.encoder, preprocessing, cache_dir=cache_dir(), num_images=num_images, progress=progress
        )
        return cls(classifier, engine)

    @property
    def engine_name(self) -> str:
        """Name of the engine in use."""
        return self._engine.name

    def run(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Map images ``(B, side_px, side_px, 3)``, 0 to 255, to features ``(B, D)`` and probabilities ``(B, C)``."""
        features = self._engine(pixels)
        return features, self._classifier.probabilities(torch.from_numpy(features)).numpy()

    @classmethod
    def for_images(
        cls, classifier: Classifier, images: Iterable[NamedImage], progress: Progress = QUIET
    ) -> tuple[Predictor, Iterator[NamedImage]]:
        """Build a predictor as ``for_many`` does, and return it with the images, of which as few are read as that takes.

        Args:
            classifier: to predict with.
            images: any number, finite or not.
            progress: receives a line if OpenVINO can't be used.
        """
        images = iter(images)
        first = list(islice(images, BREAK_EVEN_IMAGES + 1))
        return cls.for_many(classifier, len(first), progress), chain(first, images)

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map images ``(B, side_px, side_px, 3)``, 0 to 255, to probabilities ``(B, C)``."""
        return self.run(pixels)[1]

    def probabilities_of(self, paths: Sequence[str], read: Read, progress: Progress = QUIET) -> NDArray[np.float32]:
        """Return the probabilities ``(N, C)`` of readable images.

        Args:
            paths: of the images, at least one.
            read: returns the bytes of a path.
            progress: receives progress.

        Raises:
            UndecodableError: an image cannot be read.
        """
        rows = []
        with progress.track("predicting", len(paths)) as advance:
            for features in embed(paths, read, self._engine, self.facts.preprocessing):
                rows.append(self._classifier.probabilities(torch.from_numpy(features)).numpy())
                advance(len(features))
        return np.concatenate(rows)

    def predict(
        self, paths: Iterable[str | Path], read: Read | None = None, *, policy: AbstentionPolicy = ANSWER_ALWAYS
    ) -> Iterator[Prediction]:
        """Yield one prediction per path, in order.

        Args:
            paths: of the images.
            read: returns the bytes of a path; by default from the file system.
            policy: which predictions are marked as withheld; by default none.
        """
        read = read or (lambda path: Path(path).read_bytes())
        images = (NamedImage(path, partial(read, path)) for path in map(str, paths))
        return (prediction for prediction, _ in self.predict_images(images, policy=policy))

    def predict_images(
        self, images: Iterable[NamedImage], *, policy: AbstentionPolicy = ANSWER_ALWAYS
    ) -> Iterator[tuple[Prediction, NamedImage]]:
        """Yield each image with its prediction, in order.

        Args:
            images: consumed lazily, at most three batches ahead.
            policy: which predictions are marked as withheld; by default none.
        """
        for loaded, features in self._batches(images):
            probabilities = self._classifier.probabilities(torch.from_numpy(features)).numpy()
            rows = zip(probabilities, policy.reasons(features, probabilities), strict=True)
            for image, pixels in loaded:
                if isinstance(pixels, str):
                    yield Prediction(path=image.name, error=pixels), image
                else:
                    yield self._prediction(image.name, *next(rows)), image

    def features_of(self, images: Iterable[NamedImage]) -> Iterator[tuple[NamedImage, NDArray[np.float32] | None]]:
        """Yield each image with its features ``(D,)``, or with ``None`` if it can't be read, in order."""
        for loaded, features in self._batches(images):
            rows = iter(features)
            for image, pixels in loaded:
                yield image, None if isinstance(pixels, str) else next(rows)

    def _batches(self, images: Iterable[NamedImage]) -> Iterator[tuple[list[_Loaded], NDArray[np.float32]]]:
        """Batches of images with their pixels or error, and the features of those that could be read."""
        # Images of a generator are in memory in full while they wait, so only as many as keep the threads busy.
        for batch in batches(in_order(images, lambda image: (image, self._load(image)), ahead=2 * BATCH_SIZE), BATCH_SIZE):
            pixels = [image for _, image in batch if not isinstance(image, str)]
            yield batch, self._engine(np.stack(pixels)) if pixels else np.zeros((0, self.facts.head.feature_dim), np.float32)

    def _load(self, image: NamedImage) -> NDArray[np.uint8] | str:
        """Pixels of the image, or the error."""
        try:
            return load_pixels(image.read(), self.facts.preprocessing)
        except UndecodableError as error:
            return str(error)
        except OSError as error:
            return f"can't be read: {error.strerror or error}"

    def _prediction(self, path: str, probabilities: NDArray[np.float32], abstained: str | None) -> Prediction:
        best = np.argsort(-probabilities, kind="stable")[:NUM_TOP]
        top = {self.facts.classes[index]: float(min(probabilities[index], 1.0)) for index in best}
        label = self.facts.classes[best[0]]
        return Prediction(path=path, label=label, probability=top[label], top=top, abstained=abstained)
