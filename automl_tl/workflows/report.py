"""Report: one HTML page about a registered model, with thumbnails if its images are available."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import JsonValue
from safetensors.numpy import load_file

from automl_tl.evaluation.abstention import guarantee_error_rate
from automl_tl.evaluation.learning_curve import learning_curve
from automl_tl.evaluation.metrics import evaluate
from automl_tl.evaluation.reference_features import ROLE, read_reference_features
from automl_tl.reports import FitHistory, ReportFacts, TestedImage, render_report
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.runtime.resources import writing_to
from automl_tl.runtime.threads import one_blas_thread
from automl_tl.values import Plan
from automl_tl.workflows.dataset import Dataset, load_dataset, read_thumbnail
from automl_tl.workflows.model import Model, load, open_registry
from automl_tl_registry import ModelVersion, Registry

if TYPE_CHECKING:
    from automl_tl.models.bundle import Classifier
    from automl_tl.runtime.budget import Deadline

ERROR_RATES: Final = (0.1, 0.05, 0.02, 0.01)  # of the abstention table
WRITING_S: Final = 3.0  # a thousand images on two cores; with less of the budget left, `tl report` writes the page later


def report(
    model: str,
    *,
    out: str | Path | None = None,
    images: str | Path | None = None,
    corrections: str | Path | None = None,
    classes_are_folders: bool = False,
    registry: str | Path | None = None,
    progress: Progress = QUIET,
) -> ReportFacts:
    """Write the HTML report of a model and return the facts in it.

    Args:
        model: ``name``, ``name@3`` or ``name@production``.
        out: file to write; by default ``NAME-VERSION.html`` in the current folder.
        images: the images of the fit, for thumbnails, findings and class counts.
        corrections: file of decisions about single images, as `tl review` writes it; applied by image digest.
        classes_are_folders: every folder at the top is a class, even if it is called like a split.
        registry: folder of the registry; by default the user's.
        progress: receives progress and warnings.

    Raises:
        RegistryError: no such version, or a damaged one.
        ResourceError: the disk is full.
        OSError: the file cannot be written.
    """
    opened = load(model, registry=registry)
    version = open_registry(registry).resolve(opened.ref)
    seed = int(str(version.facts.lineage.get("seed", 0)))
    dataset = None
    if images:
        dataset = load_dataset(
            images,
            seed=seed,
            must_be_learnable=False,
            corrections=corrections,
            classes_are_folders=classes_are_folders,
            group_by=Plan.model_validate(version.facts.plan).constraints.group_by,
            progress=progress,
        )
    facts = _collect_facts(opened, version, dataset)
    file = Path(out) if out else Path(f"{version.name}-{version.version}.html")
    with writing_to(file):
        _write(file, facts, dataset)
    return facts


def report_of_fit(
    registry: Registry, version: ModelVersion, classifier: Classifier, dataset: Dataset, deadline: Deadline, progress: Progress
) -> Path | None:
    """Write the report of a version that was just published, and return the file.

    Nothing here fails the fit: without time or disk space, ``None`` is returned and the report is left to ``tl report``.

    Args:
        registry: holds the version.
        version: to report on.
        classifier: of the version.
        dataset: the images of the fit.
        deadline: of the fit.
        progress: receives a line if there is no report.
    """
    later = f"`tl report {version.ref} --images IMAGES` writes it"
    if deadline.left_s < WRITING_S:
        progress.info(f"no time left for the report; {later}")
        return None
    view = registry.load(version.ref)
    model = Model(view, classifier, read_reference_features(view.paths[ROLE]))
    file = registry.root / "reports" / f"{version.name}-{version.version}.html"
    try:
        file.parent.mkdir(exist_ok=True)
        _write(file, _collect_facts(model, version, dataset), dataset)
    except OSError as error:
        with suppress(OSError):
            file.unlink(missing_ok=True)
        progress.warn(f"Cannot write the report to {file} ({error.strerror}); {later} elsewhere.")
        return None
    return file


def _write(file: Path, facts: ReportFacts, dataset: Dataset | None) -> None:
    thumbnail = partial(read_thumbnail, dataset.source) if dataset else None
    file.write_text(render_report(facts, thumbnail), encoding="utf-8")


def _collect_facts(model: Model, version: ModelVersion, dataset: Dataset | None) -> ReportFacts:
    """Collect the facts of a version; the ``dataset`` adds findings, class counts and image paths."""
    labels, probabilities = model.tested
    classes = tuple(version.facts.classes)
    with one_blas_thread():  # a hundred small solves are faster on one thread
        learning = learning_curve(model.reference.features, model.reference.labels, classes)
    plan = Plan.model_validate(version.facts.plan)
    return ReportFacts(
        model=version.ref,
        created_at=version.created_at,
        index=dataset.index if dataset else None,
        data=dataset.report if dataset else None,
        split=dataset.split if dataset else None,
        plan=plan,
        fit=FitHistory.model_validate(version.facts.extra["fit"]),
        evaluation=evaluate(labels, probabilities, classes, training_imbalance=plan.profile.imbalance),
        tested=_tested_images(model, classes, dataset),
        learning=learning,
        abstentions=tuple(guarantee_error_rate(*model.held_out, rate) for rate in ERROR_RATES),
        seconds=version.facts.seconds,
        latency_ms=version.facts.latency_ms,
        size_mib=version.size_bytes / 2**20,
        provenance=_provenance(version),
    )


def _tested_images(model: Model, classes: tuple[str, ...], dataset: Dataset | None) -> tuple[TestedImage, ...]:
    """Return one row per test image; paths are found by digest, and empty without the dataset."""
    labels, probabilities = model.tested
    digests = load_file(model.view.paths["predictions"])["image_digest"]
    path_of = {record.digest: record.path for record in dataset.index.images} if dataset else {}
    return tuple(
        TestedImage(
            path=path_of.get(bytes(digest).hex(), ""),
            label=classes[label],
            predicted=classes[row.argmax()],
            probability=min(1.0, float(row.max())),
            true_probability=min(1.0, float(row[label])),
        )
        for digest, label, row in zip(digests, labels, probabilities, strict=True)
    )


def _provenance(version: ModelVersion) -> dict[str, str]:
    environment = version.facts.environment
    packages = environment.get("packages")
    return {
        "model digest": version.facts.model_digest,
        "manifest": version.manifest_digest,
        "published": f"{version.created_at:%Y-%m-%d %H:%M} by {version.actor}",
        **{f"data {name.replace('_', ' ')}": _format(value) for name, value in version.facts.data.items()},
        **({name: str(value) for name, value in packages.items()} if isinstance(packages, dict) else {}),
        **{name: str(value) for name, value in environment.items() if name != "packages"},
    }


def _format(value: JsonValue) -> str:
    return ", ".join(f"{count} {name}" for name, count in value.items()) if isinstance(value, dict) else str(value)
