"""What a probe is made on: all images, or of many the same number of each class."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from automl_tl.planning.explain import no_signal
from automl_tl.planning.probes import FEWEST_SAMPLED, NEARLY_ALL, SAMPLED_PER_CLASS, Lab, Probe
from automl_tl.runtime.budget import Deadline
from automl_tl.runtime.progress import QUIET
from automl_tl.training import LabeledImages, Workspace
from automl_tl.training.speed import Speed
from automl_tl.values import Constraints, ImageRecord
from tests.fakes import TinyBackbone
from tests.planning.test_planner import catalog_of


def lab_of(num_train: int, num_validation: int, num_classes: int, *, of_first: float = 0.0) -> Lab:
    """Classes in turn; of a share of the images, the first class."""
    rng = np.random.default_rng(0)

    def images(count: int) -> LabeledImages:
        template = ImageRecord(
            path="a.png", label="a", digest="0" * 64, num_bytes=1, width_px=1, height_px=1, format="PNG", mode="RGB"
        )
        records = tuple(template.model_copy(update={"digest": rng.bytes(32).hex()}) for _ in range(count))
        labels = np.arange(count) % num_classes
        labels[: int(of_first * count)] = 0
        return LabeledImages(records, labels, np.arange(count), lambda path: b"")

    workspace = Workspace(Path("nowhere"), Path("nowhere"), Deadline(), QUIET)
    classes = tuple(f"class {number}" for number in range(num_classes))
    return Lab({"train": images(num_train), "validation": images(num_validation)}, classes, workspace, Constraints())


@pytest.mark.parametrize("num_classes", [2, 14])
def test_not_much_more_than_a_sample_is_taken_whole(num_classes: int) -> None:
    most = int(NEARLY_ALL * max(FEWEST_SAMPLED, SAMPLED_PER_CLASS * num_classes))

    assert len(lab_of(most - 100, 100, num_classes).sample()) == most
    assert len(lab_of(most - 99, 100, num_classes).sample()) < most


def test_of_many_images_as_many_of_each_class() -> None:
    sample = lab_of(3000, 600, 20).sample()

    assert set(Counter(sample.labels.tolist()).values()) == {SAMPLED_PER_CLASS}


def test_more_images_change_a_sample_little() -> None:
    few, more = lab_of(3000, 600, 10).sample(), lab_of(3000, 660, 10).sample()

    same = {record.digest for record in few.records} & {record.digest for record in more.records}
    assert len(same) >= 0.9 * len(few)


def test_accuracy_on_a_balanced_sample_is_that_of_the_images_as_they_are() -> None:
    """Nine of ten images are of the first class, of which all are recognized; of the second none is."""
    lab = lab_of(2000, 500, 2, of_first=0.8)
    sample = lab.sample()
    says_first = np.log(np.tile([0.9, 0.1], (len(sample), 1)))
    probe = Probe(
        backbone=catalog_of([TinyBackbone()], []).backbone("tiny/three_blocks"),
        num_blocks=3,
        size_mib=1.0,
        speed=Speed(load_s=0.001, forward_s=0.001, latency_ms=1.0),
        labels=sample.labels,
        weights=lab.weights(sample),
        features=np.zeros((len(sample), 1), np.float32),
        log_probabilities=says_first,
        similarity=None,
    )

    assert set(Counter(sample.labels.tolist()).values()) == {250}
    assert probe.accuracy == pytest.approx(0.9)
    assert "always predicting the most frequent class gives 90%" in str(no_signal(probe))
