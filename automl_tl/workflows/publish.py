"""Publish: a fitted and evaluated model becomes a version in the registry, verified in a new process before it is visible."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version as version_of
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from automl_tl.data import GivenImages, grouping_of
from automl_tl.evaluation.reference_features import ROLE as REFERENCE_ROLE
from automl_tl.evaluation.reference_features import (
    ReferenceFeatures,
    choose_reference_rows,
    make_reference_features,
    write_reference_features,
)
from automl_tl.models.engines import latency_ms, load_pixels
from automl_tl.models.predictor import Predictor
from automl_tl.models.reference_predictions import NUM_REFERENCE_IMAGES, check_in_new_process, write_reference_predictions
from automl_tl.reports import FitHistory, LabelIssue
from automl_tl.runtime.threads import num_cores
from automl_tl.training import Fitted, LabeledImages
from automl_tl.values import Evaluation, Finding, Plan, Preprocessing, SplitName
from automl_tl.workflows.dataset import Dataset
from automl_tl.workflows.model import remember_training_images
from automl_tl_registry import Facts, Metrics, ModelVersion, Registry, VersionView, write_tensors
from automl_tl_registry.contents import write_corrected_labels

SPLITS: Final[tuple[SplitName, ...]] = ("train", "validation", "test")
MAX_LABEL_ISSUES: Final = 16  # shown in the report
MAX_PATHS: Final = 100  # of a finding, so that a manifest stays small
PACKAGES: Final = ("automl-tl", "torch", "torchvision", "timm", "numpy", "pillow", "safetensors", "scikit-learn")


@dataclass(frozen=True)
class Measurement:
    """Probabilities ``(N, C)`` of the test images, their evaluation, and the findings that need features."""

    probabilities: NDArray[np.float32]
    evaluation: Evaluation
    findings: tuple[Finding, ...]


def publish(
    registry: Registry, name: str, plan: Plan, fitted: Fitted, dataset: Dataset, measurement: Measurement
) -> ModelVersion:
    """Publish the next version of ``name``; it becomes visible once a new process reproduces the reference predictions.

    Args:
        registry: where to publish.
        name: model name.
        plan: what was fitted.
        fitted: the model.
        dataset: the images.
        measurement: on the test images.

    Raises:
        DisagreementError: the saved model predicts something else.
        RegistryError: the version cannot be stored.
    """
    images = dataset.images
    folder = fitted.result.head_file.parent
    predictions: dict[str, NDArray[Any]] = {
        "image_digest": _digests(record.digest for record in images["test"].records),
        "label": images["test"].labels,
        "probability": measurement.probabilities,
    }
    blobs = {
        "encoder": fitted.result.encoder_file,
        "head": fitted.result.head_file,
        "predictions": write_tensors(folder / "predictions.safetensors", predictions),
        REFERENCE_ROLE: write_reference_features(folder / "reference_features.safetensors", _reference(fitted, plan)),
        "images": _write_images(folder / "images.safetensors", images),
        **write_reference_predictions(
            folder, _reference_pixels(fitted.classifier.facts.preprocessing, images), fitted.classifier
        ),
    }
    if corrections := dataset.report.corrections:
        rows = [(image.digest, image.path, image.before, image.after) for image in corrections.images]
        blobs["corrections"] = write_corrected_labels(folder / "corrections.safetensors", rows)
    facts = _facts(plan, fitted, dataset, measurement)
    version = registry.publish(name, blobs, facts, verify=check_predictions)
    if not isinstance(dataset.source, GivenImages) and not dataset.source.url:
        remember_training_images(registry, version.ref, dataset.source.root)
    return version


def check_predictions(view: VersionView) -> None:
    """Reproduce the reference predictions of a version in a new process; raise ``ModelError`` if that fails."""
    check_in_new_process(view.paths)


def _facts(plan: Plan, fitted: Fitted, dataset: Dataset, measurement: Measurement) -> Facts:
    """Return what the version records about the model, its data and its evaluation."""
    corrections, grouping = dataset.report.corrections, grouping_of(dataset.report.findings)
    return Facts(
        classes=list(fitted.result.classes),
        preprocessing=fitted.classifier.facts.preprocessing.model_dump(mode="json"),
        backbone=fitted.classifier.facts.backbone,
        strategy=plan.strategy,
        model_digest=fitted.result.model_digest,
        metrics=Metrics.model_validate(measurement.evaluation.model_dump(mode="json", exclude={"classes"})),
        plan=plan.model_dump(mode="json"),
        data={
            "source": dataset.index.source,
            "fingerprint": dataset.report.fingerprint,
            "counts": dict(dataset.counts),
            "test_given": dataset.split.test_given,
            **({"corrections": corrections.words} if corrections else {}),
            **({"grouping": grouping} if grouping else {}),
        },
        environment={
            "python": platform.python_version(),
            "platform": platform.platform(),
            "processor": platform.machine(),
            "num_cores": num_cores(),
            "packages": {package: version_of(package) for package in PACKAGES},
        },
        lineage={
            "seed": plan.constraints.seed,
            "code": f"automl-tl {version_of('automl-tl')}",
            **({"corrections": corrections.digest} if corrections else {}),
            **_weights_file(plan),
        },
        seconds=round(plan.trained_s + sum(fitted.result.seconds.values()), 3),
        latency_ms=round(
            latency_ms(Predictor(fitted.classifier).probabilities, fitted.classifier.facts.preprocessing.side_px), 2
        ),
        notes="; ".join(fitted.result.notes),
        extra={"fit": _history(fitted, measurement.findings).model_dump(mode="json")},
    )


def _weights_file(plan: Plan) -> dict[str, str]:
    """Return name and digest of the user's weights, if the fit started from a file."""
    if plan.constraints.weights in (None, "none"):
        return {}
    file = Path(plan.constraints.weights)
    with file.open("rb") as stream:
        return {"weights": file.name, "weights_sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def _reference(fitted: Fitted, plan: Plan) -> ReferenceFeatures:
    images = fitted.learned_from.at(choose_reference_rows(len(fitted.learned_from), seed=plan.constraints.seed))
    paths = tuple(record.path for record in images.records)
    return make_reference_features(fitted.features(images), images.labels, paths, held_out=fitted.held_out)


def _reference_pixels(preprocessing: Preprocessing, images: Mapping[SplitName, LabeledImages]) -> NDArray[np.uint8]:
    """Return the images with the smallest digests of all splits: other seeds and more images seldom change them."""
    candidates = [(record.digest, record.path, split.read) for split in images.values() for record in split.records]
    chosen = sorted(candidates, key=lambda image: image[:2])[:NUM_REFERENCE_IMAGES]
    return np.stack([load_pixels(read(path), preprocessing) for _, path, read in chosen])


def _write_images(file: Path, images: Mapping[SplitName, LabeledImages]) -> Path:
    """Write split and class of each image, sorted by digest; `tl registry diff` compares them."""
    rows = sorted(
        (record.digest, int(label), SPLITS.index(split))
        for split, labeled in images.items()
        for record, label in zip(labeled.records, labeled.labels, strict=True)
    )
    arrays: dict[str, NDArray[Any]] = {
        "image_digest": _digests(digest for digest, _, _ in rows),
        "label": np.array([label for _, label, _ in rows], dtype=np.int64),
        "part": np.array([split for _, _, split in rows], dtype=np.uint8),
    }
    return write_tensors(file, arrays)


def _digests(digests: Iterable[str]) -> NDArray[np.uint8]:
    """Return hexadecimal sha256 digests as bytes ``(N, 32)``."""
    return np.frombuffer(b"".join(map(bytes.fromhex, digests)), dtype=np.uint8).reshape(-1, 32)


def _history(fitted: Fitted, findings: tuple[Finding, ...]) -> FitHistory:
    """Return what the report shows beyond the other facts; lists of paths are cut."""
    result = fitted.result
    return FitHistory(
        curves=result.curves,
        seconds=result.seconds,
        notes=result.notes,
        findings=tuple(one.model_copy(update={"paths": one.paths[:MAX_PATHS], "facts": {}}) for one in findings),
        label_issues=_label_issues(fitted, findings),
    )


def _label_issues(fitted: Fitted, findings: tuple[Finding, ...]) -> tuple[LabelIssue, ...]:
    """Return the most likely label issues, each with the class that the model predicts instead."""
    if fitted.evidence is None:
        return ()
    classes, evidence = fitted.result.classes, fitted.evidence
    row_of = {record.path: row for row, record in enumerate(evidence.images.records)}
    suggestions = next((finding.facts for finding in findings if finding.code == "label_issues"), {})
    return tuple(
        LabelIssue(
            path=path,
            label=classes[evidence.images.labels[row_of[path]]],
            suggested=str(name),
            probability=min(1.0, float(np.exp(evidence.out_of_fold[row_of[path], classes.index(str(name))]))),
        )
        for path, name in islice(suggestions.items(), MAX_LABEL_ISSUES)
    )
