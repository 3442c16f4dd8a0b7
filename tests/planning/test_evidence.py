"""The sample that is probed, and the summary of a probe."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from automl_tl.planning import EvidenceCollector
from automl_tl.planning.decide import no_signal
from automl_tl.planning.evidence import MIN_SAMPLED, NEARLY_ALL, SAMPLED_PER_CLASS, source_similarity
from automl_tl.runtime.budget import Deadline
from automl_tl.runtime.progress import QUIET
from automl_tl.training import LabeledImages, Workspace
from automl_tl.values import Constraints, ImageRecord
from tests.planning.fake_candidates import PROBE
from tests.reports.example_facts import example_plan


def fake_evidence(num_train: int, num_validation: int, num_classes: int, *, first_share: float = 0.0) -> EvidenceCollector:
    """Return evidence on images of alternating classes; ``first_share`` of them are of the first class instead."""
    rng = np.random.default_rng(0)

    def images(count: int) -> LabeledImages:
        template = ImageRecord(
            path="a.png", label="a", digest="0" * 64, num_bytes=1, width_px=1, height_px=1, format="PNG", mode="RGB"
        )
        records = tuple(replace(template, digest=rng.bytes(32).hex()) for _ in range(count))
        labels = np.arange(count) % num_classes
        labels[: int(first_share * count)] = 0
        return LabeledImages(records, labels, np.arange(count), lambda path: b"")

    workspace = Workspace(Path("nowhere"), Path("nowhere"), Deadline(), QUIET)
    classes = tuple(f"class {number}" for number in range(num_classes))
    splits = {"train": images(num_train), "validation": images(num_validation)}
    return EvidenceCollector(example_plan().profile, splits, classes, workspace, Constraints())  # type: ignore[arg-type]


@pytest.mark.parametrize("num_classes", [2, 14])
def test_sample_takes_all_images_if_there_are_hardly_more(num_classes: int) -> None:
    most = int(NEARLY_ALL * max(MIN_SAMPLED, SAMPLED_PER_CLASS * num_classes))

    assert len(fake_evidence(most - 100, 100, num_classes).sample()) == most
    assert len(fake_evidence(most - 99, 100, num_classes).sample()) < most


def test_sample_of_many_images_is_balanced() -> None:
    sample = fake_evidence(3000, 600, 20).sample()

    assert set(Counter(sample.labels.tolist()).values()) == {SAMPLED_PER_CLASS}


def test_sample_changes_little_with_more_images() -> None:
    fewer, more = fake_evidence(3000, 600, 10).sample(), fake_evidence(3000, 660, 10).sample()

    same = {record.digest for record in fewer.records} & {record.digest for record in more.records}
    assert len(same) >= 0.9 * len(fewer)


def test_probe_accuracy_on_a_balanced_sample_is_weighted_by_class_frequency() -> None:
    """Nine of ten images are of the first class, and all are predicted to be."""
    evidence = fake_evidence(2000, 500, 2, first_share=0.8)
    sample = evidence.sample()
    probe = replace(
        PROBE,
        labels=sample.labels,
        weights=evidence.weights(sample),
        log_probabilities=np.log(np.tile([0.9, 0.1], (len(sample), 1))),
    )

    assert set(Counter(sample.labels.tolist()).values()) == {250}
    assert probe.accuracy == pytest.approx(0.9)
    assert "always predicting the most frequent class gives 90%" in str(no_signal(probe))


def test_source_similarity_is_relative_confidence() -> None:
    confident, uniform = np.eye(5)[[0, 1]] * 20, np.zeros((4, 5))

    assert source_similarity(confident) == 1.0
    assert source_similarity(uniform) == pytest.approx(0.2 / 0.7)
