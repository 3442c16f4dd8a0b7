"""From a registered version, and the images it was fitted on if they are at hand, to the facts of its report."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from automl_tl import data
from automl_tl.evaluation.abstention import keep_error_below
from automl_tl.evaluation.learning import learning_curve
from automl_tl.evaluation.measure import evaluate
from automl_tl.evaluation.report import ReportFacts, Suspect, TestedImage
from automl_tl.home import cache_dir, registry_dir, splits_dir
from automl_tl.story import SILENT, Story
from automl_tl.values import DatasetIndex, Plan
from automl_tl_registry import ModelVersion, Registry

if TYPE_CHECKING:
    from automl_tl.trust import Trusted

__all__ = ["facts_of_version", "suspects_among", "tested_images"]

PROMISES: Final = (0.1, 0.05, 0.02, 0.01)
SURE: Final = 0.9  # of another class than the label: cleanlab's self-confidence, one-sided and strict
MAX_SUSPECTS: Final = 18


def facts_of_version(trusted: Trusted, registry: Path | None, images: Path | None, story: Story = SILENT) -> ReportFacts:
    """Facts of a version; with ``images``, its source, also findings, class counts and pictures."""
    version = Registry(registry or registry_dir()).resolve(f"{trusted.view.name}@{trusted.view.version}")
    labels, probabilities = trusted.tested
    classes, memory = tuple(version.facts.classes), trusted.memory
    index = report = split = None
    if images is not None:
        index = data.scan(data.open_source(images), cache_dir=cache_dir(), story=story)
        report = data.audit(index)
        split, report = data.divide(index, report, seed=_seed(version), folder=splits_dir())
    return ReportFacts(
        model=version.ref,
        created_at=version.created_at,
        index=index,
        data=report,
        split=split,
        plan=Plan.model_validate(version.facts.plan) if version.facts.plan else None,
        evaluation=evaluate(labels, probabilities, classes) if len(labels) else None,
        tested=tested_images(labels, probabilities, classes, _paths(trusted, index)),
        suspects=_suspects(trusted, classes),
        learning=learning_curve(memory.features, memory.labels, classes) if memory is not None else None,
        abstentions=tuple(keep_error_below(*trusted.held_out, rate) for rate in PROMISES) if len(trusted.held_out[0]) else (),
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


def suspects_among(
    labels: NDArray[np.int64], probabilities: NDArray[np.float32], classes: tuple[str, ...], paths: tuple[str, ...]
) -> tuple[Suspect, ...]:
    """Images of which a model that didn't learn from them is at least 90 % sure that the label is wrong, surest first."""
    said, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
    rows = np.flatnonzero((said != labels) & (sure >= SURE))
    rows = rows[np.argsort(-sure[rows], kind="stable")][:MAX_SUSPECTS]
    return tuple(
        Suspect(
            path=paths[row], label=classes[labels[row]], suggested=classes[said[row]], probability=min(1.0, float(sure[row]))
        )
        for row in rows
    )


def _suspects(trusted: Trusted, classes: tuple[str, ...]) -> tuple[Suspect, ...]:
    """Among the training images, where the version remembers what was said of every one of them out of fold."""
    memory = trusted.memory
    if memory is None or not np.array_equal(memory.held_out_labels, memory.labels):
        return ()
    return suspects_among(memory.held_out_labels, memory.held_out_probabilities, classes, memory.paths)


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
        **{f"data {name}": str(value) for name, value in version.facts.data.items()},
        **({name: str(value) for name, value in packages.items()} if isinstance(packages, dict) else {}),
        **{name: str(value) for name, value in environment.items() if name != "packages"},
    }
