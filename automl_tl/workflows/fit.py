"""Fit: from a folder of images to a registered model, one step after another."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Unpack

import numpy as np

from automl_tl import data
from automl_tl.errors import PluginError
from automl_tl.evaluation import evaluate
from automl_tl.executors.opening import open_executor
from automl_tl.planning import make_plan, read_plan
from automl_tl.plugin_host import discover
from automl_tl.runtime.budget import Deadline
from automl_tl.runtime.paths import cache_dir, splits_dir, trim_cache
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.runtime.threads import peak_mib
from automl_tl.trackers import Listener, Listeners, open_trackers
from automl_tl.training import Evidence, Fitted, TrainingTask, Workspace
from automl_tl.training import fit as train
from automl_tl.training.distributed import reject_launcher
from automl_tl.values import Constraints, DataReport, Estimate, Evaluation, FitOutcome, Plan
from automl_tl.workflows.constraints import ConstraintOptions, make_constraints
from automl_tl.workflows.dataset import Dataset, load_dataset
from automl_tl.workflows.model import open_registry
from automl_tl.workflows.plan import evidence_collector, interruptible, open_workspace
from automl_tl.workflows.publish import Measurement, publish
from automl_tl.workflows.report import report_of_fit
from automl_tl_registry import ModelVersion, Registry
from automl_tl_registry.storage import check_writable
from automl_tl_registry.values import checked_name


def fit(
    images: str | Path | data.Source,
    *,
    name: str | None = None,
    constraints: Constraints | None = None,
    plan: Plan | str | Path | None = None,
    corrections: str | Path | None = None,
    classes_are_folders: bool = False,
    registry: str | Path | None = None,
    track: str | Listener | Sequence[str | Listener] = (),
    on: str | None = None,
    progress: Progress = QUIET,
    deadline: Deadline | None = None,
    **options: Unpack[ConstraintOptions],
) -> FitOutcome:
    """Choose, train, evaluate and register a classifier for ``images``.

    Args:
        images: folder of class folders, or any other source that ``tl data check`` reads.
        name: model name in the registry; by default the name of the folder.
        constraints: limits and preferences of the plan; absent: the planner decides everything.
        plan: a plan, or the file of one, to run instead of planning; only its budget may be overridden.
        corrections: file of decisions about single images, as `tl review` writes it; applied by image digest.
        classes_are_folders: every folder at the top is a class, even if it is called like a split.
        registry: folder of the registry; by default the user's.
        track: experiment trackers that receive parameters, curves, metrics and the report: ``tensorboard``, ``mlflow``,
            ``trackio``, ``wandb``, or an object of your own.
        on: executor that reads the images and extracts their features: ``"ray"``, ``"ray://HOST:PORT"``, or a name of the
            configuration file. Default: this process.
        progress: receives progress and warnings.
        deadline: started with the command, and gets the budget of the constraints; by default it starts now.
        options: constraints by the names of the command line, such as ``budget="5m"``; see ``ConstraintOptions``.

    Raises:
        DataError: the images cannot be used.
        PlanError: no candidate satisfies the constraints, or a launcher such as torchrun started several processes.
        TrackerError: a tracker cannot start.
        ExecutorError: the executor cannot be used.
        PluginError: the requested backbone or strategy is unknown or fails.
        Interrupted: Ctrl-C before anything was published.
    """
    reject_launcher()
    saved, constraints = _reuse_plan(plan, constraints, options)
    listeners = open_trackers(track, progress)
    deadline = deadline or Deadline()
    deadline.budget_s = constraints.budget_s
    name = checked_name(name) if name else model_name(images.name if isinstance(images, data.Source) else images)
    store = _open_writable(registry)
    with open_executor(on, deadline, progress) as executor:
        dataset = load_dataset(
            images,
            seed=constraints.seed,
            corrections=corrections,
            classes_are_folders=classes_are_folders,
            group_by=constraints.group_by,
            executor=executor,
            progress=progress,
            deadline=deadline,
        )
        if not isinstance(images, data.Source):
            _save_split(dataset, progress)
        with listeners:
            with open_workspace(deadline, progress) as workspace:
                plan, fitted = _plan_and_train(saved, dataset, constraints, workspace, name, listeners)
                trained_at_s = deadline.spent_s
                report = _add_label_issues(dataset, fitted.evidence, progress)
                measurement = _evaluate_on_test(dataset, plan, fitted, report)
                version = publish(store, name, plan, fitted, dataset, measurement)
                fit_s = plan.trained_s + sum(fitted.result.seconds.values()) + deadline.spent_s - trained_at_s
            place = f"{images} --corrections {corrections}" if corrections else images
            kept = f"{version.ref} is published; `tl report {version.ref} --images {place}` writes its report."
            with interruptible(deadline, kept):
                fitted.forget_checkpoints()
                page = report_of_fit(store, version, fitted.classifier, dataset, deadline, progress)
            trim_cache(cache_dir())
            outcome = FitOutcome(
                model=version.ref,
                model_digest=fitted.result.model_digest,
                report=page,
                plan=plan,
                test=measurement.evaluation,
                measured=_measured(measurement.evaluation, version, fit_s),
                validation_accuracy=fitted.result.validation_accuracy,
                validation_interval=fitted.result.validation_interval,
                num_images=dataset.counts,
                findings=report.findings,
                seconds=round(deadline.spent_s, 3),
                seconds_by_step=fitted.result.seconds,
                notes=fitted.result.notes,
            )
            listeners.finished(outcome)
            return outcome


def _open_writable(folder: str | Path | None) -> Registry:
    """Open the registry to publish in; refuse a folder that cannot be written, before anything is trained."""
    registry = open_registry(folder)
    with suppress(OSError):  # so that its own file system is tried, and not the one above
        registry.root.parent.mkdir(parents=True, exist_ok=True)
    check_writable(registry.root)
    return registry


def _save_split(dataset: Dataset, progress: Progress) -> None:
    """Save the split, so that later fits of the same folder keep it."""
    try:
        data.save_split(splits_dir(), dataset.index, dataset.split)
    except OSError as error:
        progress.warn(f"Cannot save the split in {splits_dir()} ({error.strerror}): later fits may split differently.")


def model_name(images: str | Path) -> str:
    """Return a registry name made from the last name of a path or URL.

    Accents are dropped. Letters without an ASCII form are replaced by a short digest, so that different folders keep
    different names.
    """
    name = data.file_name_of(images) if data.is_url(images) else Path(images).resolve().name
    letters = unicodedata.normalize("NFKD", name.lower())
    unaccented = "".join(letter for letter in letters if not unicodedata.combining(letter))
    plain = re.sub(r"[^a-z0-9._-]+", "-", unaccented).strip("-._")[:57].strip("-._") or "model"
    if any(letter.isalpha() and not letter.isascii() for letter in unaccented):
        plain = f"{plain}-{sha256(unaccented.encode(errors='surrogatepass')).hexdigest()[:6]}"
    return plain


def _reuse_plan(
    plan: Plan | str | Path | None, constraints: Constraints | None, options: ConstraintOptions
) -> tuple[Plan | None, Constraints]:
    """Return a saved plan, if one is given, with its own constraints and the new budget; and the constraints."""
    new = make_constraints(constraints, options)
    if plan is None:
        return None, new
    if fixed := options.keys() - {"budget"}:
        raise ValueError(f"A saved plan has its own constraints; {', '.join(sorted(fixed))} would change it. Make a new plan.")
    plan = plan if isinstance(plan, Plan) else read_plan(Path(plan))
    new = plan.constraints.model_copy(update={"budget_s": new.budget_s or plan.constraints.budget_s})
    return plan.model_copy(update={"constraints": new, "trained_s": 0.0}), new


def _plan_and_train(
    saved: Plan | None, dataset: Dataset, constraints: Constraints, workspace: Workspace, name: str, listeners: Listeners
) -> tuple[Plan, Fitted]:
    """Plan and train. If a backbone fails that the user did not ask for, plan again without it."""
    catalog, progress = discover(), workspace.progress
    if saved is None:
        for problem in catalog.problems:
            progress.warn(problem)
    elif saved.profile.fingerprint != dataset.report.fingerprint:
        progress.warn("This plan was made for a different dataset; its estimates do not apply.")
    evidence = evidence_collector(dataset, constraints, workspace)
    while True:
        plan = saved or make_plan(catalog, evidence)
        progress.info(f"plan: {plan.strategy} on {plan.backbone}. " + ". ".join(plan.reasons))
        backbone = catalog.backbone(plan.backbone)
        listeners.started(name, plan)
        task = TrainingTask(plan, backbone, dataset.index.classes, dataset.images, workspace, on_epoch=listeners.epoch)
        try:
            with backbone.error_boundary("was fitted"):
                return plan, train(task)
        except PluginError as error:
            if saved or plan.backbone in constraints.backbones:
                raise
            listeners.failed(error)
            progress.warn(f"{error} Planning again without {plan.backbone}.")
            catalog = catalog.without(plan.backbone)


def _add_label_issues(dataset: Dataset, evidence: Evidence | None, progress: Progress) -> DataReport:
    """Return the data report with likely label errors and outliers, judged out of fold on the features."""
    if evidence is None:
        return dataset.report
    report = data.audit_features(
        dataset.index,
        dataset.report,
        paths=[record.path for record in evidence.images.records],
        features=evidence.features,
        probabilities=np.exp(evidence.out_of_fold),
    )
    known = {finding.code for finding in dataset.report.findings}
    for finding in report.findings:
        if finding.code not in known and finding.severity != "info":
            progress.warn(f"{finding.title}: {', '.join(finding.paths[:3])}{' ...' if len(finding.paths) > 3 else ''}")
    return report


def _evaluate_on_test(dataset: Dataset, plan: Plan, fitted: Fitted, report: DataReport) -> Measurement:
    """Evaluate on the test split, once."""
    test = dataset.images["test"]
    probabilities = fitted.probabilities(test)
    evaluation = evaluate(
        test.labels,
        probabilities,
        dataset.index.classes,
        training_imbalance=plan.profile.imbalance,
        metric=plan.constraints.metric,
    )
    findings = tuple(finding for finding in report.findings if finding not in dataset.report.findings)
    return Measurement(probabilities, evaluation, findings)


def _measured(evaluation: Evaluation, version: ModelVersion, seconds: float) -> Estimate:
    """Return the measured counterpart of the plan's estimate."""
    metric = evaluation.metric or "accuracy"
    value, value_interval = (None, None) if metric == "accuracy" else evaluation.measured(metric)
    return Estimate(
        accuracy=evaluation.accuracy,
        accuracy_interval=evaluation.interval,
        accuracy_source=f"{evaluation.num_images} test images",
        seconds=round(seconds, 1),
        latency_ms=version.facts.latency_ms,
        size_mib=round(version.size_bytes / 2**20, 2),
        memory_mib=peak_mib(),
        metric=metric,
        value=value,
        value_interval=value_interval,
    )
