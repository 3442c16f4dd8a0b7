"""The main line: from a folder of images to a registered model, one step after another."""

from __future__ import annotations

import re
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import JsonValue

from automl_tl import data
from automl_tl.errors import Interrupted, PluginError
from automl_tl.plugin_host import Catalog, discover
from automl_tl.runtime.budget import Deadline
from automl_tl.runtime.cache import trim_cache
from automl_tl.runtime.paths import cache_dir, registry_dir, splits_dir
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.values import (
    Constraints,
    DataReport,
    DatasetIndex,
    Estimate,
    Evaluation,
    FitOutcome,
    ImageRecord,
    Part,
    Plan,
    SplitAssignment,
)

if TYPE_CHECKING:
    from automl_tl.training import Evidence, Fitted, LabeledImages, Workspace
    from automl_tl.workflows.publish import Measured
    from automl_tl_registry import ModelVersion

__all__ = ["ImageData", "auto_fit", "auto_plan", "model_name", "read_images"]


@dataclass(frozen=True)
class ImageData:
    """A source that was read, checked and split."""

    source: data.Source
    index: DatasetIndex
    report: DataReport
    split: SplitAssignment

    @cached_property
    def parts(self) -> dict[Part, tuple[ImageRecord, ...]]:
        """The images of each part."""
        return data.images_by_part(self.index, self.report, self.split)

    @cached_property
    def images(self) -> dict[Part, LabeledImages]:
        """The same, ready to learn from."""
        from automl_tl.training import label_images

        return label_images(self.parts, self.index.classes, self.report, self.source.read)

    @property
    def counts(self) -> dict[str, int]:
        """Where every file went."""
        return {
            **{part: len(images) for part, images in self.parts.items()},
            "left_out": len(self.report.left_out),
            "rejected": len(self.index.rejected),
            "ignored": sum(self.index.ignored.values()),
        }

    @property
    def facts(self) -> dict[str, JsonValue]:
        """What a version remembers of its data."""
        return {
            "source": self.index.source,
            "fingerprint": self.report.fingerprint,
            "counts": dict(self.counts),
            "test_given": self.split.test_given,
        }


def auto_fit(
    images: Path,
    *,
    name: str | None = None,
    constraints: Constraints = Constraints(),
    plan: Plan | None = None,
    registry: Path | None = None,
    progress: Progress = QUIET,
) -> FitOutcome:
    """Choose, train, measure and register a classifier for ``images``."""
    if plan:
        constraints = plan.constraints.model_copy(update={"budget_s": constraints.budget_s or plan.constraints.budget_s})
        plan = plan.model_copy(update={"constraints": constraints, "trained_s": 0.0})
    deadline = Deadline(constraints.budget_s)
    starting_s = _import_training(deadline)
    from automl_tl.training import Workspace
    from automl_tl.workflows.publish import check_writable, publish
    from automl_tl.workflows.report import Origin, report_of_fit
    from automl_tl_registry import Registry
    from automl_tl_registry.names import checked_name

    catalog, home = discover(), registry or registry_dir()
    name = checked_name(name or model_name(images))
    check_writable(home)
    found = read_images(images, seed=constraints.seed, progress=progress)
    data.keep_split(splits_dir(), found.index, found.split)
    with tempfile.TemporaryDirectory(prefix="tl-fit-") as folder, _interruptible():
        workspace = Workspace(Path(folder), cache_dir(), deadline, progress, starting_s)
        plan, fitted = _plan_and_fit(plan, found, catalog, constraints, workspace)
        fitted_s = deadline.spent_s
        report = _with_suspects(found, fitted.evidence, progress)
        measured = _measured(found, fitted, report)
        version = publish(Registry(home), name, plan, fitted, measured, found.facts)
        seconds = plan.trained_s + sum(fitted.result.seconds.values()) + deadline.spent_s - fitted_s
        came_to = _came_to(measured.evaluation, version, seconds)
    origin = Origin(found.source, found.index, found.report, found.split)
    with _interruptible(f"{version.ref} is published; `tl report {version.ref} --images {images}` writes its report."):
        fitted.forget_checkpoints()
        page = report_of_fit(home, version, fitted.classifier, origin, deadline, progress)
    trim_cache(cache_dir())
    return FitOutcome(
        model=version.ref,
        model_digest=fitted.result.model_digest,
        report=page,
        plan=plan,
        test=measured.evaluation,
        measured=came_to,
        validation_accuracy=fitted.result.validation_accuracy,
        validation_interval=fitted.result.validation_interval,
        num_images=found.counts,
        findings=report.findings,
        seconds=round(deadline.spent_s, 3),
        seconds_by_step=fitted.result.seconds,
        notes=fitted.result.notes,
    )


def _import_training(deadline: Deadline) -> float | None:
    """Import torch and what stands on it. Seconds of the budget that it took, or ``None`` if torch was there already."""
    was_there = "torch" in sys.modules
    import automl_tl.planning
    import automl_tl.workflows.publish  # noqa: F401

    return None if was_there else deadline.spent_s


def _measured(found: ImageData, fitted: Fitted, report: DataReport) -> Measured:
    """On the test part, once; with what features told of the images that were learned from."""
    from automl_tl.evaluation import evaluate
    from automl_tl.workflows.publish import Measured

    test = found.images["test"]
    probabilities = fitted.probabilities(test)
    evaluation = evaluate(test.labels, probabilities, found.index.classes)
    told = tuple(finding for finding in report.findings if finding not in found.report.findings)
    return Measured(found.images, probabilities, evaluation, told)


def _came_to(evaluation: Evaluation, version: ModelVersion, seconds: float) -> Estimate:
    """What was planned, as it was measured then."""
    from automl_tl.runtime.threads import peak_mib

    return Estimate(
        accuracy=evaluation.accuracy,
        accuracy_interval=evaluation.interval,
        accuracy_source=f"{evaluation.num_images} test images",
        seconds=round(seconds, 1),
        latency_ms=version.facts.latency_ms,
        size_mib=round(version.size_bytes / 2**20, 2),
        memory_mib=peak_mib(),
    )


def _plan_and_fit(
    given: Plan | None, found: ImageData, catalog: Catalog, constraints: Constraints, workspace: Workspace
) -> tuple[Plan, Fitted]:
    """A plan and what came of it. A backbone that fails is left out and the plan made again, unless the user asked for it."""
    from automl_tl.planning import Lab, make_plan, make_profile
    from automl_tl.training import fit

    if given is None:
        _warn_of_plugins(catalog, workspace.progress)
    elif given.profile.fingerprint != found.report.fingerprint:
        workspace.progress.warn("the plan was made for other images: what it expects is not for these")
    lab = Lab(found.images, found.index.classes, workspace, constraints)
    while True:
        plan = given or make_plan(make_profile(found.parts, found.report), catalog, constraints, lab)
        workspace.progress.info(f"plan: {plan.strategy} on {plan.backbone}. " + ". ".join(plan.reasons))
        backbone = catalog.backbone(plan.backbone)
        try:
            with backbone.fence("was fitted"):
                return plan, fit(plan, backbone, found.index.classes, found.images, workspace)
        except PluginError as error:
            if given or plan.backbone in constraints.backbones:
                raise
            workspace.progress.warn(f"{error} The plan is made again without {plan.backbone}.")
            catalog = catalog.without(plan.backbone)


def _warn_of_plugins(catalog: Catalog, progress: Progress) -> None:
    for problem in catalog.problems:
        progress.warn(problem)


def auto_plan(images: Path, *, constraints: Constraints = Constraints(), progress: Progress = QUIET) -> Plan:
    """The plan that ``auto_fit`` would start with for ``images``; nothing is trained for it."""
    deadline = Deadline(constraints.budget_s)
    starting_s = _import_training(deadline)
    from automl_tl.planning import Lab, make_plan, make_profile
    from automl_tl.training import Workspace

    catalog = discover()
    found = read_images(images, seed=constraints.seed, progress=progress)
    _warn_of_plugins(catalog, progress)
    with tempfile.TemporaryDirectory(prefix="tl-plan-") as folder, _interruptible():
        workspace = Workspace(Path(folder), cache_dir(), deadline, progress, starting_s)
        lab = Lab(found.images, found.index.classes, workspace, constraints)
        return make_plan(make_profile(found.parts, found.report), catalog, constraints, lab, races=False)


def read_images(images: Path, *, seed: int, progress: Progress) -> ImageData:
    """Read, check and split the images at ``images``; every problem is in the report.

    Raises:
        DataError: there is nothing to learn from.
    """
    source = data.open_source(images)
    index = data.scan(source, cache_dir=cache_dir(), progress=progress)
    report = data.audit(index)
    data.check_learnable(index, report)
    split, report = data.divide(index, report, seed=seed, folder=splits_dir())
    found = ImageData(source, index, report, split)
    data.check_measurable(found.parts)
    counts = ", ".join(f"{number} {part}" for part, number in found.counts.items() if number)
    progress.info(f"data: {index.num_files} files, {len(index.classes)} classes: {counts}")
    for finding in report.findings:
        if finding.severity != "info":
            progress.warn(finding.title)
    return found


def _with_suspects(found: ImageData, evidence: Evidence | None, progress: Progress) -> DataReport:
    """The data report with what features tell: labels that are probably wrong, and images like no other."""
    if evidence is None:
        return found.report
    report = data.audit_features(
        found.index,
        found.report,
        paths=[record.path for record in evidence.images.records],
        features=evidence.features,
        probabilities=np.exp(evidence.out_of_fold),
    )
    before = {finding.code for finding in found.report.findings}
    for finding in report.findings:
        if finding.code not in before and finding.severity != "info":
            progress.warn(f"{finding.title}: {', '.join(finding.paths[:3])}{' ...' if len(finding.paths) > 3 else ''}")
    return report


def model_name(images: Path) -> str:
    """A registry name made from the name of the images' folder; of letters that no name can have, a digest tells them apart."""
    letters = unicodedata.normalize("NFKD", images.resolve().name.lower())
    given = "".join(letter for letter in letters if not unicodedata.combining(letter))  # accents go
    plain = re.sub(r"[^a-z0-9._-]+", "-", given).strip("-._")[:57].strip("-._") or "model"
    if any(letter.isalpha() and not letter.isascii() for letter in given):
        plain = f"{plain}-{sha256(given.encode()).hexdigest()[:6]}"
    return plain


@contextmanager
def _interruptible(state: str = "Nothing was published; features that were computed stay in the cache.") -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted(state) from error
