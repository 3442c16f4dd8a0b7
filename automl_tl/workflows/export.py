"""Export: write a model for another runtime, and verify in a new process that it predicts the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from automl_tl import data
from automl_tl.errors import DataError, ModelError
from automl_tl.exports import Exported, ExportFormat, ExportReference, Precision, export_model
from automl_tl.exports.mlflow_model import write_mlflow_model
from automl_tl.exports.mlflow_registry import MLflowRegistry, metrics_of
from automl_tl.exports.model_card import write_model_card
from automl_tl.exports.sample_files import KINDS, sample_files
from automl_tl.models.reference_predictions import IMAGES_ROLE
from automl_tl.plugin_host import Catalog, discover
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.runtime.resources import writing_to
from automl_tl.workflows.dataset import open_labeled_images
from automl_tl.workflows.model import Model, find_training_images, load, open_registry
from automl_tl_registry import ModelVersion

MAX_COMPARED = 200  # images: more sharpen the accuracy, at about a second each on a slow runtime
MAX_DISTILLED = 1000  # training images; a minute on two cores


def export(
    model: str,
    *,
    format: ExportFormat = "onnx",
    precision: Precision | Sequence[Precision] = "fp32",
    out: str | Path | None = None,
    images: str | Path | None = None,
    corrections: str | Path | None = None,
    training_images: str | Path | None = None,
    register: bool = False,
    registry: str | Path | None = None,
    progress: Progress = QUIET,
) -> list[Exported]:
    """Write ``model`` for another runtime, one file set per precision.

    Args:
        model: ``name``, ``name@3`` or ``name@production``.
        format: target runtime.
        precision: one or several precisions of the weights; ``int8`` needs ``images``.
        out: folder to write to; by default ``NAME-VERSION-FORMAT`` in the current folder.
        images: labeled images for measuring accuracy and calibrating ``int8``; by default the reference images.
        corrections: of ``images``; a file as `tl review` writes it.
        training_images: hf: the images of the fit, on which heads are distilled that no linear layer computes; by default where
            they were at the fit.
        register: mlflow: also register it in the MLflow registry that ``MLFLOW_TRACKING_URI`` names, with its aliases.
        registry: folder of the registry; by default the user's.
        progress: receives progress and warnings.

    Raises:
        ModelError: the format doesn't support the model, or the MLflow registry can't be used.
        DisagreementError: the exported model predicts something else.
        DataError: the images have no class that the model knows.
        ResourceError: a full disk or a limit; what was written is incomplete.
    """
    if register and format != "mlflow":
        raise ModelError(f"--register is for --format mlflow, not for {format}; `tl registry push` shares a model.")
    mlflow_registry = MLflowRegistry() if register else None
    opened = load(model, registry=registry)
    version = open_registry(registry).resolve(opened.ref)
    source = training_images or find_training_images(open_registry(registry), opened.ref)
    training = _read_training_images(opened, source, is_given=training_images is not None)
    reference = _export_reference(opened, images, corrections, training, progress)
    folder = Path(out) if out else Path(f"{opened.view.name}-{opened.view.version}-{format}")
    precisions = [precision] if isinstance(precision, str) else precision
    exports, catalog = [], discover()
    for each in precisions:
        progress.info(f"writing {format} ({each}) and verifying it in a new process on {len(reference.files)} images")
        target = folder / each if len(precisions) > 1 else folder
        with writing_to(target):
            exports.append(export_model(opened.classifier, catalog, target, reference, export_format=format, precision=each))
            if format == "hf":
                _write_model_card(opened, exports[-1], catalog)
            if format == "mlflow":
                write_mlflow_model(target, reference.files[0], _metadata(version))
        if mlflow_registry is not None:
            progress.info(f"registering {version.ref} in {mlflow_registry.uri}")
            address = mlflow_registry.register(target, version)
            exports[-1] = exports[-1].model_copy(update={"registered": address})
    return exports


def _metadata(version: ModelVersion) -> dict[str, object]:
    """What an MLflow model says about its version."""
    facts = version.facts
    return {
        "automl_tl.model": version.ref,
        "automl_tl.model_digest": facts.model_digest,
        "backbone": facts.backbone,
        "strategy": facts.strategy,
        "classes": facts.classes,
        "tags": version.tags,
        "metrics": metrics_of(version),
    }


def _write_model_card(model: Model, exported: Exported, catalog: Catalog) -> None:
    backbone = catalog.backbones.get(model.view.facts.backbone)
    write_model_card(
        exported.folder,
        model.ref,
        model.view.facts,
        exported,
        base_license=backbone.card.license if backbone else None,
    )


def _read_training_images(model: Model, source: str | Path | None, *, is_given: bool) -> Iterator[bytes]:
    """Yield up to ``MAX_DISTILLED`` of the training images, as far as they are still there."""
    if source is None:
        return
    try:
        opened = data.open_source(source, classes_are_folders=True)  # only read by path: what is a class does not matter
    except (OSError, DataError):
        if is_given:
            raise
        return
    paths = model.reference.paths
    for row in np.random.default_rng(0).permutation(len(paths))[:MAX_DISTILLED]:
        with suppress(OSError, KeyError, ValueError):
            yield opened.read(paths[row])


def _export_reference(
    model: Model,
    images: str | Path | None,
    corrections: str | Path | None,
    training: Iterator[bytes],
    progress: Progress,
) -> ExportReference:
    """Return image files of every kind from the version's reference images, after up to 200 labeled files of ``images``."""
    kinds = sample_files(list(load_file(model.view.paths[IMAGES_ROLE])["pixels"]))
    unusual = list(KINDS)[1:]  # the first is plain RGB
    if images is None:
        return ExportReference(model.classifier, kinds, kinds=unusual, training=training)
    labeled = open_labeled_images(images, model.classes, progress, corrections=corrections)
    order = np.random.default_rng(0).permutation(len(labeled.known))[:MAX_COMPARED]
    chosen = [labeled.known[row] for row in order]
    files = [labeled.source.read(record.path) for record in chosen]
    labels = np.array([model.classes.index(record.label) for record in chosen])
    return ExportReference(model.classifier, [*files, *kinds], labels, kinds=unusual, training=training)
