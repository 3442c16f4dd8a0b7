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
from automl_tl.catalog import Catalog, discover
from automl_tl.clock import Deadline
from automl_tl.errors import Interrupted, PluginError
from automl_tl.home import cache_dir, registry_dir, splits_dir
from automl_tl.storage import trim_cache
from automl_tl.story import SILENT, Story
from automl_tl.values import DataReport, DatasetIndex, Estimate, Evaluation, FitOutcome, ImageRecord, Part, Plan, Split, Wishes

if TYPE_CHECKING:
    from automl_tl.publishing import Measured
    from automl_tl.training import Bench, Evidence, Fitted, LabelledImages
    from automl_tl_registry import ModelVersion

__all__ = ["ImageData", "auto_fit", "auto_plan", "model_name", "read_images"]


@dataclass(frozen=True)
class ImageData:
    """A source that was read, checked and split."""

    source: data.Source
    index: DatasetIndex
    report: DataReport
    split: Split

    @cached_property
    def parts(self) -> dict[Part, tuple[ImageRecord, ...]]:
        """The images of each part."""
        return data.images_by_part(self.index, self.report, self.split)

    @cached_property
    def images(self) -> dict[Part, LabelledImages]:
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
    wishes: Wishes = Wishes(),
    plan: Plan | None = None,
    registry: Path | None = None,
    story: Story = SILENT,
) -> FitOutcome:
    """Choose, train, measure and register a classifier for ``images``."""
    if plan:
        wishes = plan.wishes.model_copy(update={"budget_s": wishes.budget_s or plan.wishes.budget_s})
        plan = plan.model_copy(update={"wishes": wishes, "trained_s": 0.0})
    deadline = Deadline(wishes.budget_s)
    starting_s = _import_training(deadline)
    from automl_tl.publishing import check_writable, publish
    from automl_tl.reporting import Origin, report_of_fit
    from automl_tl.training import Bench
    from automl_tl_registry import Registry
    from automl_tl_registry.names import checked_name

    catalog, home = discover(), registry or registry_dir()
    name = checked_name(name or model_name(images))
    check_writable(home)
    found = read_images(images, seed=wishes.seed, story=story)
    data.keep_split(splits_dir(), found.index, found.split)
    with tempfile.TemporaryDirectory(prefix="tl-fit-") as folder, _interruptible():
        bench = Bench(Path(folder), cache_dir(), deadline, story, starting_s)
        plan, fitted = _plan_and_fit(plan, found, catalog, wishes, bench)
        fitted_s = deadline.spent_s
        report = _with_suspects(found, fitted.evidence, story)
        measured = _measured(found, fitted, report)
        version = publish(Registry(home), name, plan, fitted, measured, found.facts)
        seconds = plan.trained_s + sum(fitted.result.seconds.values()) + deadline.spent_s - fitted_s
        came_to = _came_to(measured.evaluation, version, seconds)
    origin = Origin(found.source, found.index, found.report, found.split)
    with _interruptible(f"{version.ref} is published; `tl report {version.ref} --images {images}` writes its report."):
        fitted.forget_checkpoints()
        page = report_of_fit(home, version, fitted.classifier, origin, deadline, story)
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
    import automl_tl.publishing  # noqa: F401

    return None if was_there else deadline.spent_s


def _measured(found: ImageData, fitted: Fitted, report: DataReport) -> Measured:
    """On the test part, once; with what features told of the images that were learned from."""
    from automl_tl.evaluation import evaluate
    from automl_tl.publishing import Measured

    test = found.images["test"]
    probabilities = fitted.probabilities(test)
    evaluation = evaluate(test.labels, probabilities, found.index.classes)
    told = tuple(finding for finding in report.findings if finding not in found.report.findings)
    return Measured(found.images, probabilities, evaluation, told)


def _came_to(evaluation: Evaluation, version: ModelVersion, seconds: float) -> Estimate:
    """What was planned, as it was measured then."""
    from automl_tl.training.memory import peak_mib

    return Estimate(
        accuracy=evaluation.accuracy,
        accuracy_interval=evaluation.interval,
        accuracy_source=f"{evaluation.num_images} test images",
        seconds=round(seconds, 1),
        latency_ms=version.facts.latency_ms,
        size_mib=round(version.size_bytes / 2**20, 2),
        memory_mib=peak_mib(),
    )


def _plan_and_fit(given: Plan | None, found: ImageData, catalog: Catalog, wishes: Wishes, bench: Bench) -> tuple[Plan, Fitted]:
    """A plan and what came of it. A backbone that fails is left out and the plan made again, unless the user asked for it."""
    from automl_tl.planning import Lab, make_plan, make_profile
    from automl_tl.training import fit

    if given is None:
        _warn_of_plugins(catalog, bench.story)
    elif given.profile.fingerprint != found.report.fingerprint:
        bench.story.warn("the plan was made for other images: what it expects is not for these")
    lab = Lab(found.images, found.index.classes, bench, wishes)
    while True:
        plan = given or make_plan(make_profile(found.parts, found.report), catalog, wishes, lab)
        bench.story.say(f"plan: {plan.strategy} on {plan.backbone}. " + ". ".join(plan.reasons))
        backbone = catalog.backbone(plan.backbone)
        try:
            with backbone.fence("was fitted"):
                return plan, fit(plan, backbone, found.index.classes, found.images, bench)
        except PluginError as error:
            if given or plan.backbone in wishes.backbones:
                raise
            bench.story.warn(f"{error} The plan is made again without {plan.backbone}.")
            catalog = catalog.without(plan.backbone)


def _warn_of_plugins(catalog: Catalog, story: Story) -> None:
    for problem in catalog.problems:
        story.warn(problem)


def auto_plan(images: Path, *, wishes: Wishes = Wishes(), story: Story = SILENT) -> Plan:
    """The plan that ``auto_fit`` would start with for ``images``; nothing is trained for it."""
    deadline = Deadline(wishes.budget_s)
    starting_s = _import_training(deadline)
    from automl_tl.planning import Lab, make_plan, make_profile
    from automl_tl.training import Bench

    catalog = discover()
    found = read_images(images, seed=wishes.seed, story=story)
    _warn_of_plugins(catalog, story)
    with tempfile.TemporaryDirectory(prefix="tl-plan-") as folder, _interruptible():
        bench = Bench(Path(folder), cache_dir(), deadline, story, starting_s)
        lab = Lab(found.images, found.index.classes, bench, wishes)
        return make_plan(make_profile(found.parts, found.report), catalog, wishes, lab, races=False)


def read_images(images: Path, *, seed: int, story: Story) -> ImageData:
    """Read, check and split the images at ``images``; every problem is in the report.

    Raises:
        DataError: there is nothing to learn from.
    """
    source = data.open_source(images)
    index = data.scan(source, cache_dir=cache_dir(), story=story)
    report = data.audit(index)
    data.check_learnable(index, report)
    split, report = data.divide(index, report, seed=seed, folder=splits_dir())
    found = ImageData(source, index, report, split)
    data.check_measurable(found.parts)
    counts = ", ".join(f"{number} {part}" for part, number in found.counts.items() if number)
    story.say(f"data: {index.num_files} files, {len(index.classes)} classes: {counts}")
    for finding in report.findings:
        if finding.severity != "info":
            story.warn(finding.title)
    return found


def _with_suspects(found: ImageData, evidence: Evidence | None, story: Story) -> DataReport:
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
            story.warn(f"{finding.title}: {', '.join(finding.paths[:3])}{' ...' if len(finding.paths) > 3 else ''}")
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
