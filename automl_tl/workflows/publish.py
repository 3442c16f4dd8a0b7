"""From a fitted and measured model to a version in the registry, proven in a new process before anybody can see it."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version as version_of
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from automl_tl.evaluation.reference_features import ROLE as REFERENCE_ROLE
from automl_tl.evaluation.reference_features import (
    ReferenceFeatures,
    choose_reference_rows,
    make_reference_features,
    write_reference_features,
)
from automl_tl.models.engines import latency_ms
from automl_tl.models.features import load_pixels
from automl_tl.models.predictor import Predictor
from automl_tl.models.reference_predictions import NUM_REFERENCE_IMAGES, check_in_new_process, write_reference_predictions
from automl_tl.reports import FitHistory, LabelIssue
from automl_tl.runtime.threads import num_cores
from automl_tl.training import Fitted, LabeledImages
from automl_tl.values import Evaluation, Finding, Plan, SplitName
from automl_tl_registry import Facts, Metrics, ModelVersion, Registry, VersionView, write_tensors
from automl_tl_registry.errors import NotWritableError

__all__ = ["Measured", "check_writable", "probe_version", "publish"]

PARTS: tuple[SplitName, ...] = ("train", "validation", "test")
MAX_LABEL_ISSUES = 16  # that are shown
MAX_PATHS = 100  # of a finding
PACKAGES = ("automl-tl", "torch", "torchvision", "timm", "numpy", "pillow", "safetensors", "scikit-learn")


@dataclass(frozen=True)
class Measured:
    """What the test part of ``images`` said: the probabilities ``(N, C)`` and the evaluation they make.

    ``findings`` are those that need features, such as label issues.
    """

    images: Mapping[SplitName, LabeledImages]
    probabilities: NDArray[np.float32]
    evaluation: Evaluation
    findings: tuple[Finding, ...] = ()

    @property
    def test(self) -> LabeledImages:
        """The images that were measured on."""
        return self.images["test"]


def publish(
    registry: Registry, name: str, plan: Plan, fitted: Fitted, measured: Measured, data: dict[str, JsonValue]
) -> ModelVersion:
    """The next version of ``name``; visible only after a new process predicted the reference images as the trained model did.

    Raises:
        DisagreementError: the saved model predicts something else.
        RegistryError: the registry can't take it.
    """
    folder = fitted.result.head_file.parent
    pixels = _reference_pixels(plan, measured.images)
    blobs = {
        "encoder": fitted.result.encoder_file,
        "head": fitted.result.head_file,
        "predictions": _write_predictions(folder / "predictions.safetensors", measured),
        REFERENCE_ROLE: write_reference_features(folder / "reference_features.safetensors", _reference(fitted, plan)),
        "images": _write_images(folder / "images.safetensors", measured.images),
        **write_reference_predictions(folder, pixels, fitted.classifier),
    }
    latency = latency_ms(Predictor(fitted.classifier).probabilities, plan.preprocessing.side_px)
    facts = _facts(plan, fitted, measured, data).model_copy(update={"latency_ms": round(latency, 2)})
    return registry.publish(name, blobs, facts, verify=probe_version)


def probe_version(view: VersionView) -> None:
    """Predict the reference images of a version again, in a new process.

    Raises:
        ModelError: the model can't be loaded, or says something else than when it was trained.
    """
    check_in_new_process(view.paths)


def check_writable(folder: Path) -> None:
    """Raise before the work, not after it, when nothing can be written to the registry at ``folder``.

    Raises:
        NotWritableError: a file is in the way, or the rights are missing.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise NotWritableError(folder, f"{existing} is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise NotWritableError(folder, f"no right to write in {existing}")


def _reference(fitted: Fitted, plan: Plan) -> ReferenceFeatures:
    images = fitted.learned_from.at(choose_reference_rows(len(fitted.learned_from), seed=plan.constraints.seed))
    paths = tuple(record.path for record in images.records)
    return make_reference_features(fitted.features(images), images.labels, paths, held_out=fitted.held_out)


def _reference_pixels(plan: Plan, images: Mapping[SplitName, LabeledImages]) -> NDArray[np.uint8]:
    """The images with the smallest digests, whatever their part: other seeds and more images seldom change them."""
    everything = [(record.digest, record.path, each.read) for each in images.values() for record in each.records]
    chosen = sorted(everything, key=lambda image: image[:2])[:NUM_REFERENCE_IMAGES]
    return np.stack([load_pixels(read(path), plan.preprocessing) for _, path, read in chosen])


def _write_images(file: Path, images: Mapping[SplitName, LabeledImages]) -> Path:
    """Which image was in which part under which class, sorted: what `tl registry diff` compares."""
    rows = sorted(
        (record.digest, int(label), PARTS.index(part))
        for part, each in images.items()
        for record, label in zip(each.records, each.labels, strict=True)
    )
    arrays: dict[str, NDArray[Any]] = {
        "image_digest": np.frombuffer(b"".join(bytes.fromhex(digest) for digest, _, _ in rows), np.uint8).reshape(-1, 32),
        "label": np.array([label for _, label, _ in rows], dtype=np.int64),
        "part": np.array([part for _, _, part in rows], dtype=np.uint8),
    }
    return write_tensors(file, arrays)


def _write_predictions(file: Path, measured: Measured) -> Path:
    digests = b"".join(bytes.fromhex(record.digest) for record in measured.test.records)
    arrays: dict[str, NDArray[Any]] = {
        "image_digest": np.frombuffer(digests, dtype=np.uint8).reshape(-1, 32),
        "label": measured.test.labels,
        "probability": measured.probabilities.astype(np.float32),
    }
    return write_tensors(file, arrays)


def _facts(plan: Plan, fitted: Fitted, measured: Measured, data: dict[str, JsonValue]) -> Facts:
    metrics = measured.evaluation.model_dump(mode="json", exclude={"classes"})
    return Facts(
        classes=list(fitted.result.classes),
        preprocessing=plan.preprocessing.model_dump(mode="json"),
        backbone=plan.backbone,
        strategy=plan.strategy,
        model_digest=fitted.result.model_digest,
        metrics=Metrics.model_validate(metrics),
        plan=plan.model_dump(mode="json"),
        data=data,
        environment=_environment(),
        lineage={"seed": plan.constraints.seed, "code": f"automl-tl {version_of('automl-tl')}"},
        seconds=round(plan.trained_s + sum(fitted.result.seconds.values()), 3),
        notes="; ".join(fitted.result.notes),
        extra={"fit": _progress(fitted, measured).model_dump(mode="json")},
    )


def _progress(fitted: Fitted, measured: Measured) -> FitHistory:
    """What the report tells beyond the other facts; lists of paths are cut, so that a manifest stays small."""
    result = fitted.result
    return FitHistory(
        curves=result.curves,
        seconds=result.seconds,
        notes=result.notes,
        findings=tuple(each.model_copy(update={"paths": each.paths[:MAX_PATHS], "facts": {}}) for each in measured.findings),
        label_issues=_label_issues(fitted, measured.findings),
    )


def _label_issues(fitted: Fitted, findings: tuple[Finding, ...]) -> tuple[LabelIssue, ...]:
    """The first of the images whose label is probably wrong, each with the class that it looks like."""
    if fitted.evidence is None:
        return ()
    classes, evidence = fitted.result.classes, fitted.evidence
    row_of = {record.path: row for row, record in enumerate(evidence.images.records)}
    looks_like = next((each.facts for each in findings if each.code == "suspected_labels"), {})
    return tuple(
        LabelIssue(
            path=path,
            label=classes[evidence.images.labels[row_of[path]]],
            suggested=str(name),
            probability=min(1.0, float(np.exp(evidence.out_of_fold[row_of[path], classes.index(str(name))]))),
        )
        for path, name in islice(looks_like.items(), MAX_LABEL_ISSUES)
    )


def _environment() -> dict[str, JsonValue]:
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "num_cores": num_cores(),
        "packages": {package: version_of(package) for package in PACKAGES},
    }
