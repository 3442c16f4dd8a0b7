"""A registered version ready to answer: loaded, with the engine that ``tl predict`` picks, and proven before it is used."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from automl_tl.data.decode import decode, to_input
from automl_tl.errors import DisagreementError
from automl_tl.evaluation.abstention import AbstentionPolicy, Decision, decision_of, make_policy
from automl_tl.evaluation.reference_features import FALSE_ALARM_RATE
from automl_tl.models.engines import EagerEngine
from automl_tl.models.predictor import Predictor
from automl_tl.models.reference_predictions import check_predictor
from automl_tl.runtime.formatting import metric_name, percent, percent_range
from automl_tl.runtime.progress import Progress
from automl_tl.server.details import TrainingImages
from automl_tl.training.class_weights import weights_of
from automl_tl.values import Constraints, Value
from automl_tl.workflows.explain import cover_with_heatmap, find_evidence, find_neighbors
from automl_tl.workflows.model import Model, find_training_images, load, open_registry
from automl_tl_registry import ModelVersion

MANY: Final = 10**6  # images: the fastest engine pays


@dataclass(frozen=True)
class ServingOptions:
    """How predictions are withheld, and where versions and training images are."""

    max_error: float | None = None
    reject_ood: bool = True
    registry: str | Path | None = None
    images: Path | None = None  # by default where they were at the fit


class ModelFacts(Value):
    """What the live page shows about the model."""

    name: str
    version: int
    alias: str | None
    classes: tuple[str, ...]
    headline: str
    value: float
    interval: tuple[float, float] | None
    num_images: int
    words: str
    warnings: tuple[str, ...]
    created: str
    backbone: str
    strategy: str
    size_mib: float
    latency_ms: float | None
    limits: tuple[str, ...]
    abstention_threshold: float | None
    guarantee: str | None
    image_size: int
    engine: str
    collect: bool


@dataclass(frozen=True)
class InputImage:
    """A decoded image ``(S, S, 3)``, and the suffix of its format."""

    pixels: NDArray[np.uint8]
    suffix: str


@dataclass(frozen=True)
class ServedModel:
    """A version with its predictor and its abstention policy."""

    version: ModelVersion
    model: Model
    predictor: Predictor
    policy: AbstentionPolicy
    training_images: TrainingImages | None = None

    @classmethod
    def open(cls, ref: str, options: ServingOptions, progress: Progress) -> ServedModel:
        """Load a version, and check that the engine in use reproduces its reference predictions.

        Args:
            ref: ``name@3``.
            options: of the server.
            progress: receives a line about another engine.

        Raises:
            RegistryError: no such version, or a damaged one.
            ModelError: it can't be built, or it predicts something else.
            UnsatisfiableConstraintsError: no threshold keeps ``max_error``.
        """
        registry = open_registry(options.registry)
        version = registry.resolve(ref)
        model = load(version.ref, registry=options.registry)
        policy = make_policy(model.reference, model.held_out, options.max_error)
        if not options.reject_ood:
            policy = AbstentionPolicy(policy.guarantee, None)
        predictor = Predictor.for_many(model.classifier, MANY, progress)
        try:
            check_predictor(model.view.paths, predictor)
        except DisagreementError as error:  # a GPU computes in bfloat16
            progress.warn(f"{error} Using float32 instead.")
            classifier = model.classifier
            engine = EagerEngine(classifier.encoder, classifier.facts.preprocessing, precision=torch.float32)
            predictor = Predictor(classifier, engine)
            check_predictor(model.view.paths, predictor)
        images = TrainingImages(model, options.images or find_training_images(registry, version.ref))
        return cls(version, model, predictor, policy, images)

    @property
    def ref(self) -> str:
        """``name@version``."""
        return self.version.ref

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the probabilities."""
        return self.model.classes

    def read(self, data: bytes) -> InputImage:
        """Decode an image; raise ``UndecodableError`` if the bytes are not a usable one."""
        preprocessing = self.model.classifier.facts.preprocessing
        decoded = decode(data, side_px=round(preprocessing.side_px / preprocessing.crop_fraction))
        suffix = {"JPEG": "jpg", "MPO": "jpg", "JPEG2000": "jp2", "TIFF": "tif", "HEIF": "heic"}.get(decoded.format)
        return InputImage(to_input(decoded.image, preprocessing), suffix or decoded.format.lower())

    def answer(self, pixels: NDArray[np.uint8]) -> list[Answer]:
        """Return one answer per image of ``pixels`` ``(B, S, S, 3)``."""
        features, probabilities = self.predictor.run(pixels)
        rows = zip(features, probabilities, self.policy.reasons(features, probabilities), strict=True)
        return [Answer(self, *row) for row in rows]

    def facts(self, *, alias: str | None, collects: bool) -> ModelFacts:
        """Return what the live page shows.

        Args:
            alias: that the server follows.
            collects: whether corrections are accepted.
        """
        facts, guarantee = self.version.facts, self.policy.guarantee
        metrics = facts.metrics
        headline, value, interval = metrics.headline
        if headline == "log_loss":  # the page draws a share of images
            headline, value, interval = "accuracy", metrics.accuracy, metrics.interval
        return ModelFacts(
            name=self.version.name,
            version=self.version.version,
            alias=alias,
            classes=self.classes,
            headline=metric_name(headline),
            value=value,
            interval=interval,
            num_images=metrics.num_images,
            words=" ".join(metrics.texts("words")),
            warnings=metrics.texts("warnings"),
            created=self.version.created_at.isoformat(),
            backbone=facts.backbone,
            strategy=facts.strategy,
            size_mib=round(self.version.size_bytes / 2**20, 1),
            latency_ms=facts.latency_ms,
            limits=self._limits(),
            abstention_threshold=guarantee.threshold if guarantee else None,
            guarantee=guarantee.words if guarantee else None,
            image_size=self.model.classifier.facts.preprocessing.side_px,
            engine=self.predictor.engine_name,
            collect=collects,
        )

    def _has_class_weights(self) -> bool:
        constraints = Constraints.model_validate(self.version.facts.plan.get("constraints", {}))
        return weights_of(constraints) != "none"

    def _limits(self) -> tuple[str, ...]:
        """Return what the model does not know, in sentences."""
        metrics = self.version.facts.metrics
        limits = [
            f"It knows {len(self.classes)} classes and nothing else. An image that shows none of them, or several, still "
            "gets one of these labels.",
            f"Its accuracy, {percent(metrics.accuracy)} ({percent_range(metrics.interval)}), was measured on "
            f"{metrics.num_images} images from the same source as its training images. On other cameras, places or "
            "lighting it can be lower.",
            "Class weights shift its probabilities toward the classes that count more: they do not say how often it is right."
            if self._has_class_weights()
            else "Probabilities are calibrated for class frequencies like those in training.",
        ]
        if self.policy.reference is not None and np.isfinite(self.policy.reference.threshold):
            limits.append(
                "'Unlike the training images' is a hint: it also marks about "
                f"{percent(FALSE_ALARM_RATE)} of ordinary images, and it can miss unusual ones."
            )
        else:
            limits.append("It does not notice images unlike its training images.")
        if self.policy.guarantee is None:
            limits.append("It answers however unsure it is; `tl serve --max-error` makes it abstain.")
        return tuple(limits)


@dataclass(frozen=True)
class Answer:
    """What a model says about one image."""

    served: ServedModel
    features: NDArray[np.float32]  # (D,)
    probabilities: NDArray[np.float32]  # (C,)
    reason: str | None  # to withhold the prediction

    @property
    def decision(self) -> Decision:
        """Whether the prediction stands."""
        return decision_of(self.reason)

    def top(self, count: int) -> list[tuple[str, float]]:
        """Return the most probable classes with their probabilities, best first."""
        best = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.served.classes[index], float(min(self.probabilities[index], 1.0))) for index in best]

    def heatmap(self, pixels: NDArray[np.uint8]) -> str:
        """Draw where the evidence for the most probable class is; return a PNG as a data URL."""
        heat, _ = find_evidence(self.served.model.classifier, pixels, int(np.argmax(self.probabilities)))
        target = io.BytesIO()
        Image.fromarray(cover_with_heatmap(pixels, heat).clip(0, 255).astype(np.uint8)).save(target, "PNG")
        return data_url(target.getvalue(), "image/png")

    def neighbors(self) -> list[dict[str, Any]]:
        """Return the nearest training images, with a thumbnail if they are still on this machine."""
        found = find_neighbors(self.features[None], self.served.model.reference, self.served.classes)
        images = self.served.training_images
        thumbnails = [images.thumbnail(one.path) if images else None for one in found]
        return [
            {
                "path": one.path,
                "label": one.label,
                "similarity": 1 - one.distance,
                "image": data_url(thumbnail, "image/jpeg") if thumbnail else None,
            }
            for one, thumbnail in zip(found, thumbnails, strict=True)
        ]


def data_url(content: bytes, media_type: str) -> str:
    """Return ``content`` as a data URL.

    Args:
        content: of an image.
        media_type: such as ``image/png``.
    """
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
