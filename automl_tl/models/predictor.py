"""Prediction with a saved model: one ``Prediction`` per image, an error row where an image can't be read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from automl_tl.data.decoding import UndecodableError
from automl_tl.models.bundle import Classifier
from automl_tl.models.doubts import NO_DOUBTS, Doubts
from automl_tl.models.engines import EagerEngine, Engine, fastest_engine
from automl_tl.models.features import BATCH_SIZE, Read, load_pixels
from automl_tl.runtime.batches import batches, in_order
from automl_tl.runtime.paths import cache_dir
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.values import Prediction

__all__ = ["Predictor"]

NUM_TOP = 5


class Predictor:
    """A classifier that is ready to look at images; ``engine`` runs its encoder, absent: torch as it is."""

    def __init__(self, classifier: Classifier, engine: Engine | None = None) -> None:
        self.facts = classifier.facts
        self._classifier = classifier
        self._engine: Engine = engine or EagerEngine(classifier.encoder, classifier.facts.preprocessing)

    @classmethod
    def for_many(cls, classifier: Classifier, num_images: int, progress: Progress = QUIET) -> Predictor:
        """One with the engine that is done first with ``num_images`` images; what it says may differ in the fifth digit."""
        preprocessing = classifier.facts.preprocessing
        return cls(
            classifier,
            fastest_engine(classifier.encoder, preprocessing, cache_dir=cache_dir(), num_images=num_images, progress=progress),
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities."""
        return self.facts.classes

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Map images ``(B, side_px, side_px, 3)``, 0 to 255, to probabilities ``(B, C)``."""
        result: NDArray[np.float32] = self._classifier.probabilities(torch.from_numpy(self._engine(pixels))).numpy()
        return result

    def probabilities_of(self, paths: Sequence[str], read: Read) -> Iterator[NDArray[np.float32]]:
        """Probabilities ``(B, C)``, batch by batch, of images that are known to be readable."""
        pixels = in_order(paths, lambda path: load_pixels(read(path), self.facts.preprocessing))
        for batch in batches(pixels, BATCH_SIZE):
            yield self.probabilities(np.stack(batch))

    def predict(
        self, paths: Iterable[str | Path], read: Read | None = None, *, doubts: Doubts = NO_DOUBTS
    ) -> Iterator[Prediction]:
        """One prediction per path, in order.

        Args:
            paths: of the images.
            read: gives the bytes at a path; absent: the file system does.
            doubts: say which predictions are marked as withheld; absent: none.
        """
        read = read or (lambda path: Path(path).read_bytes())
        loaded = in_order((str(path) for path in paths), lambda path: (path, self._load(path, read)))
        for batch in batches(loaded, BATCH_SIZE):
            pixels = [found for _, found in batch if not isinstance(found, str)]
            rows = self._judged(np.stack(pixels), doubts) if pixels else iter(())
            for path, found in batch:
                yield Prediction(path=path, error=found) if isinstance(found, str) else self._row(path, *next(rows))

    def features_of(self, paths: Iterable[str], read: Read) -> Iterator[tuple[str, NDArray[np.float32] | None]]:
        """Each path with its features ``(D,)``, or with ``None`` if it can't be read, in order."""
        loaded = in_order(paths, lambda path: (path, self._load(path, read)))
        for batch in batches(loaded, BATCH_SIZE):
            pixels = [found for _, found in batch if not isinstance(found, str)]
            rows = iter(self._engine(np.stack(pixels)) if pixels else ())
            for path, found in batch:
                yield path, None if isinstance(found, str) else next(rows)

    def _judged(self, pixels: NDArray[np.uint8], doubts: Doubts) -> Iterator[tuple[NDArray[np.float32], str | None]]:
        features = self._engine(pixels)
        probabilities = self._classifier.probabilities(torch.from_numpy(features)).numpy()
        return zip(probabilities, doubts.reasons(features, probabilities), strict=True)

    def _load(self, path: str, read: Read) -> NDArray[np.uint8] | str:
        try:
            return load_pixels(read(path), self.facts.preprocessing)
        except UndecodableError as error:
            return str(error)
        except OSError as error:
            return f"can't be read: {error.strerror or error}"

    def _row(self, path: str, probabilities: NDArray[np.float32], abstained: str | None) -> Prediction:
        best = np.argsort(-probabilities, kind="stable")[:NUM_TOP]
        top = {self.classes[index]: float(min(probabilities[index], 1.0)) for index in best}
        label = self.classes[best[0]]
        return Prediction(path=path, label=label, probability=top[label], top=top, abstained=abstained)
