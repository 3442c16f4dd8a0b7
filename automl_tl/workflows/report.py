"""From a registered version, and the images it was fitted on if they are at hand, to its report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from automl_tl import data
from automl_tl.evaluation.abstention import guarantee_error_rate
from automl_tl.evaluation.learning_curve import LearningCurve, learning_curve
from automl_tl.evaluation.metrics import evaluate
from automl_tl.evaluation.reference_features import ROLE, ReferenceFeatures, read_reference_features
from automl_tl.reports import FitHistory, ReportFacts, TestedImage, write_report
from automl_tl.runtime.paths import cache_dir, splits_dir
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.runtime.threads import one_blas_thread
from automl_tl.values import DataReport, DatasetIndex, Plan, SplitAssignment
from automl_tl.workflows.model import Trusted, thumbnails
from automl_tl_registry import ModelVersion, Registry

if TYPE_CHECKING:
    from automl_tl.models.bundle import Classifier
    from automl_tl.runtime.budget import Deadline

__all__ = ["Origin", "facts_of_version", "read_origin", "report_of_fit", "report_page", "tested_images"]

PROMISES: Final = (0.1, 0.05, 0.02, 0.01)
WRITING_S: Final = 3.0  # a thousand images on two cores; with less of the budget left the report waits for `tl report`


@dataclass(frozen=True)
class Origin:
    """The images that a model comes from: read, checked and split."""

    source: data.Source
    index: DatasetIndex
    report: DataReport
    split: SplitAssignment


def read_origin(images: Path, version: ModelVersion, progress: Progress = QUIET) -> Origin:
    """What the fit of ``version`` saw in ``images``, its source.

    Raises:
        DataError: there is no source.
    """
    source = data.open_source(images)
    index = data.scan(source, cache_dir=cache_dir(), progress=progress)
    split, report = data.divide(index, data.audit(index), seed=_seed(version), folder=splits_dir())
    return Origin(source, index, report, split)


def report_of_fit(
    home: Path, version: ModelVersion, classifier: Classifier, origin: Origin, deadline: Deadline, progress: Progress
) -> Path | None:
    """Write the page about a version that was just published beside its registry at ``home``; gives the file.

    The model is published by now, so nothing here fails the fit: without time or room the report is left to `tl report`.
    """
    later = f"`tl report {version.ref} --images IMAGES` writes it"
    if deadline.left_s < WRITING_S:
        progress.info(f"no time left for the report; {later}")
        return None
    view = Registry(home).load(version.ref)
    file = home / "reports" / f"{version.name}-{version.version}.html"
    try:
        file.parent.mkdir(exist_ok=True)
        trusted = Trusted(view, classifier, read_reference_features(view.paths[ROLE]))
        page = report_page(facts_of_version(trusted, version, origin), origin)
        file.write_text(page, encoding="utf-8")
    except OSError as error:
        progress.warn(f"The report can't be written to {file} ({error.strerror}); {later} elsewhere.")
        return None
    return file


def report_page(facts: ReportFacts, origin: Origin | None) -> str:
    """The page that tells ``facts``, with pictures if there is an ``origin``."""
    return write_report(facts, thumbnails(origin.source) if origin else None)


def facts_of_version(trusted: Trusted, version: ModelVersion, origin: Origin | None) -> ReportFacts:
    """Facts of a version; with its ``origin`` also findings, class counts and paths of pictures."""
    labels, probabilities = trusted.tested
    classes, reference = tuple(version.facts.classes), trusted.reference
    progress, index = version.facts.extra.get("fit"), origin.index if origin else None
    return ReportFacts(
        model=version.ref,
        created_at=version.created_at,
        index=index,
        data=origin.report if origin else None,
        split=origin.split if origin else None,
        plan=Plan.model_validate(version.facts.plan) if version.facts.plan else None,
        fit=FitHistory.model_validate(progress) if progress else None,
        evaluation=evaluate(labels, probabilities, classes) if len(labels) else None,
        tested=tested_images(labels, probabilities, classes, _paths(trusted, index)),
        learning=None if reference is None else _learning(reference, classes),
        abstentions=tuple(guarantee_error_rate(*trusted.held_out, rate) for rate in PROMISES)
        if len(trusted.held_out[0])
        else (),
        seconds=version.facts.seconds,
        latency_ms=version.facts.latency_ms,
        size_mib=version.size_bytes / 2**20,
        provenance=_provenance(version),
    )


def tested_images(
    labels: NDArray[np.int64], probabilities: NDArray[np.float32], classes: tuple[str, ...], paths: tuple[str, ...]
) -> tuple[TestedImage, ...]:
    """One value per test image; ``paths`` may hold empty ones."""
    said = probabilities.argmax(axis=1)
    return tuple(
        TestedImage(
            path=path,
            label=classes[label],
            predicted=classes[best],
            probability=min(1.0, float(row[best])),
            true_probability=min(1.0, float(row[label])),
        )
        for path, label, best, row in zip(paths, labels, said, probabilities, strict=True)
    )


def _paths(trusted: Trusted, index: DatasetIndex | None) -> tuple[str, ...]:
    """Paths of the test images by their digests; empty where the source is not at hand."""
    from safetensors.numpy import load_file

    file = trusted.view.paths.get("predictions")
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
    """A hundred small solutions."""
    with one_blas_thread():
        return learning_curve(reference.features, reference.labels, classes)


def _plain(value: JsonValue) -> str:
    return ", ".join(f"{count} {name}" for name, count in value.items()) if isinstance(value, dict) else str(value)
