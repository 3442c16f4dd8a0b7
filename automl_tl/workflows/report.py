"""Report: one HTML page about a registered model, with thumbnails if its images are available."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue
from safetensors.numpy import load_file

from automl_tl.evaluation.abstention import guarantee_error_rate
from automl_tl.evaluation.learning_curve import LearningCurve, learning_curve
from automl_tl.evaluation.metrics import evaluate
from automl_tl.evaluation.reference_features import ROLE, ReferenceFeatures, read_reference_features
from automl_tl.reports import FitHistory, ReportFacts, TestedImage, render_report
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.runtime.threads import one_blas_thread
from automl_tl.values import DatasetIndex, Plan
from automl_tl.workflows.dataset import Dataset, load_dataset, read_thumbnail
from automl_tl.workflows.model import Model, load, open_registry
from automl_tl_registry import ModelVersion, Registry

if TYPE_CHECKING:
    from automl_tl.models.bundle import Classifier
    from automl_tl.runtime.budget import Deadline

__all__ = ["facts_of_version", "report", "report_of_fit", "report_page", "tested_images"]

ERROR_RATES: Final = (0.1, 0.05, 0.02, 0.01)  # of the abstention table
WRITING_S: Final = 3.0  # a thousand images on two cores; with less of the budget left, `tl report` writes the page later


def report(
    model: str,
    *,
    out: str | Path | None = None,
    images: str | Path | None = None,
    registry: str | Path | None = None,
    progress: Progress = QUIET,
) -> ReportFacts:
    """Write the HTML report of a model and return the facts in it.

    Args:
        model: ``name``, ``name@3`` or ``name@production``.
        out: file to write; by default ``NAME-VERSION.html`` in the current folder.
        images: the images of the fit, for thumbnails, findings and class counts.
        registry: folder of the registry; by default the user's.
        progress: receives progress and warnings.

    Raises:
        RegistryError: no such version, or a damaged one.
        OSError: the file cannot be written.
    """
    opened = load(model, registry=registry)
    version = open_registry(registry).resolve(opened.ref)
    dataset = load_dataset(images, seed=_seed(version), must_be_learnable=False, progress=progress) if images else None
    facts = facts_of_version(opened, version, dataset)
    file = Path(out) if out else Path(f"{version.name}-{version.version}.html")
    file.write_text(report_page(facts, dataset), encoding="utf-8")
    return facts


def report_of_fit(
    registry: Registry, version: ModelVersion, classifier: Classifier, dataset: Dataset, deadline: Deadline, progress: Progress
) -> Path | None:
    """Write the report of a version that was just published, and return the file.

    Nothing here fails the fit: the model is published, and without time or disk space the report is left to ``tl report``.
    """
    later = f"`tl report {version.ref} --images IMAGES` writes it"
    if deadline.left_s < WRITING_S:
        progress.info(f"no time left for the report; {later}")
        return None
    view = registry.load(version.ref)
    file = registry.root / "reports" / f"{version.name}-{version.version}.html"
    try:
        file.parent.mkdir(exist_ok=True)
        model = Model(view, classifier, read_reference_features(view.paths[ROLE]))
        file.write_text(report_page(facts_of_version(model, version, dataset), dataset), encoding="utf-8")
    except OSError as error:
        progress.warn(f"Cannot write the report to {file} ({error.strerror}); {later} elsewhere.")
        return None
    return file


def report_page(facts: ReportFacts, dataset: Dataset | None) -> str:
    """Render ``facts`` as HTML, with thumbnails if the ``dataset`` is available."""
    return render_report(facts, partial(read_thumbnail, dataset.source) if dataset else None)


def facts_of_version(model: Model, version: ModelVersion, dataset: Dataset | None) -> ReportFacts:
    """Collect the facts of a version; the ``dataset`` adds findings, class counts and image paths."""
    labels, probabilities = model.tested
    classes, reference = tuple(version.facts.classes), model.reference
    history, index = version.facts.extra.get("fit"), dataset.index if dataset else None
    return ReportFacts(
        model=version.ref,
        created_at=version.created_at,
        index=index,
        data=dataset.report if dataset else None,
        split=dataset.split if dataset else None,
        plan=Plan.model_validate(version.facts.plan) if version.facts.plan else None,
        fit=FitHistory.model_validate(history) if history else None,
        evaluation=evaluate(labels, probabilities, classes) if len(labels) else None,
        tested=tested_images(labels, probabilities, classes, _paths(model, index)),
        learning=None if reference is None else _learning(reference, classes),
        abstentions=tuple(guarantee_error_rate(*model.held_out, rate) for rate in ERROR_RATES)
        if len(model.held_out[0])
        else (),
        seconds=version.facts.seconds,
        latency_ms=version.facts.latency_ms,
        size_mib=version.size_bytes / 2**20,
        provenance=_provenance(version),
    )


def tested_images(
    labels: NDArray[np.int64], probabilities: NDArray[np.float32], classes: tuple[str, ...], paths: tuple[str, ...]
) -> tuple[TestedImage, ...]:
    """Return one row per test image.

    Args:
        labels: ``(N,)`` class indices.
        probabilities: ``(N, C)`` predicted probabilities.
        classes: class names.
        paths: N paths; empty where unknown.
    """
    predicted = probabilities.argmax(axis=1)
    return tuple(
        TestedImage(
            path=path,
            label=classes[label],
            predicted=classes[best],
            probability=min(1.0, float(row[best])),
            true_probability=min(1.0, float(row[label])),
        )
        for path, label, best, row in zip(paths, labels, predicted, probabilities, strict=True)
    )


def _paths(model: Model, index: DatasetIndex | None) -> tuple[str, ...]:
    """Return the paths of the test images by digest; empty strings where the dataset is not available."""
    file = model.view.paths.get("predictions")
    digests: Iterable[NDArray[np.uint8]] = load_file(file)["image_digest"] if file else ()
    path_of = {record.digest: record.path for record in index.images} if index else {}
    return tuple(path_of.get(bytes(digest).hex(), "") for digest in digests)


def _seed(version: ModelVersion) -> int:
    seed = version.facts.lineage.get("seed", 0)
    return seed if isinstance(seed, int) else 0


def _provenance(version: ModelVersion) -> dict[str, str]:
    environment = version.facts.environment
    packages = environment.get("packages")
    return {
        "model digest": version.facts.model_digest,
        "manifest": version.manifest_digest,
        "published": f"{version.created_at:%Y-%m-%d %H:%M} by {version.actor}",
        **{f"data {name.replace('_', ' ')}": _plain(value) for name, value in version.facts.data.items()},
        **({name: str(value) for name, value in packages.items()} if isinstance(packages, dict) else {}),
        **{name: str(value) for name, value in environment.items() if name != "packages"},
    }


def _learning(reference: ReferenceFeatures, classes: tuple[str, ...]) -> LearningCurve | None:
    """Fit the learning curve; about a hundred small solves, faster on one BLAS thread."""
    with one_blas_thread():
        return learning_curve(reference.features, reference.labels, classes)


def _plain(value: JsonValue) -> str:
    return ", ".join(f"{count} {name}" for name, count in value.items()) if isinstance(value, dict) else str(value)
