"""Images that a budget allows to learn from, and the time for publishing."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from automl_tl.runtime.budget import Deadline
from automl_tl.training.budget import NUM_TIMED_IMAGES, PUBLISHING_S, RemainingWork, affordable_images, publishing_s
from automl_tl.training.images import LabeledImages
from automl_tl.values import ImageRecord


class TimedSource:
    """A feature source on which each uncached image takes one second."""

    def __init__(self) -> None:
        self.now_s, self.seen = 0.0, set[str]()

    def clock(self) -> float:
        return self.now_s

    def missing(self, images: LabeledImages) -> list[int]:
        return [position for position, record in enumerate(images.records) if record.digest not in self.seen]

    def plain(self, images: LabeledImages) -> None:
        new = {record.digest for record in images.records} - self.seen
        self.seen |= new
        self.now_s += len(new)


def images_of(count: int, template: ImageRecord) -> LabeledImages:
    rng = np.random.default_rng(0)
    records = tuple(template.model_copy(update={"digest": rng.bytes(32).hex()}) for _ in range(count))
    return LabeledImages(records, np.arange(count) % 3, np.arange(count), lambda path: b"")


@pytest.fixture
def template() -> ImageRecord:
    return ImageRecord(path="a.png", label="a", digest="0" * 64, num_bytes=1, width_px=1, height_px=1, format="PNG", mode="RGB")


def test_affordable_images_takes_all_with_enough_time(template: ImageRecord) -> None:
    look = TimedSource()
    images = images_of(1000, template)

    for budget_s in (None, 2000.0):
        assert affordable_images(images, look, Deadline(budget_s, look.clock), RemainingWork(5, num_test=10)) is images


def test_affordable_images_balances_classes_under_a_budget(template: ImageRecord) -> None:
    look = TimedSource()
    images = images_of(3000, template)

    used = affordable_images(images, look, Deadline(1000.0, look.clock), RemainingWork(50, num_test=100))

    assert len(used) == 1000 - 100 - 50
    counts = Counter(used.labels.tolist()).values()
    assert max(counts) - min(counts) <= 1
    look.plain(used)
    assert look.now_s + 100 + 50 <= 1000


def test_affordable_images_counts_cached_features_as_free(template: ImageRecord) -> None:
    look = TimedSource()
    images = images_of(2000, template)
    look.plain(images)
    deadline = Deadline(10.0, look.clock)

    assert affordable_images(images, look, deadline, RemainingWork(5, num_test=100)) is images


def test_affordable_images_times_uncached_images(template: ImageRecord) -> None:
    look = TimedSource()
    images = images_of(5000, template)
    look.plain(images.at(range(500)))

    used = affordable_images(images, look, Deadline(1000.0, look.clock), RemainingWork(0))

    assert len(used) == 500 + 1000
    assert {record.digest for record in images.records[:500]} <= {record.digest for record in used.records}


def test_affordable_images_takes_at_least_the_timed_images(template: ImageRecord) -> None:
    look = TimedSource()

    used = affordable_images(images_of(2000, template), look, Deadline(1.0, look.clock), RemainingWork(0))

    assert len(used) == NUM_TIMED_IMAGES


def test_affordable_images_uses_cached_images_without_time_to_measure(template: ImageRecord) -> None:
    look = TimedSource()
    images = images_of(2000, template)
    look.plain(images.at(range(500)))
    deadline = Deadline(500.0 + 100 + NUM_TIMED_IMAGES - 1, look.clock, started_s=0.0)

    used = affordable_images(images, look, deadline, RemainingWork(0, num_test=100), extraction_s=1.0)

    assert {record.digest for record in used.records} == {record.digest for record in images.records[:500]}
    assert look.now_s == 500  # nothing more was looked at


def test_affordable_images_extracts_more_if_cached_images_lack_a_class(template: ImageRecord) -> None:
    look = TimedSource()
    images = images_of(2000, template)
    look.plain(images.at([position for position in range(900) if position % 3]))  # none of the first class

    used = affordable_images(
        images, look, Deadline(700.0, look.clock, started_s=0.0), RemainingWork(0, num_test=100), extraction_s=1.0
    )

    assert set(used.labels.tolist()) == {0, 1, 2}


def test_affordable_images_leaves_time_for_the_remaining_work(template: ImageRecord) -> None:
    look = TimedSource()
    images = images_of(5000, template)
    look.plain(images.at(range(500)))

    used = affordable_images(images, look, Deadline(1000.0, look.clock), RemainingWork(100, 0.5))

    look.plain(used)
    assert look.now_s + 100 + 0.5 * len(used) == pytest.approx(500 + 1000, abs=2)  # the first 500 were seen before its time


def test_publishing_s_scales_with_the_import_time() -> None:
    assert publishing_s(0, 1.0) == 2 * publishing_s(0, 0.5)
    assert publishing_s(0, None) == PUBLISHING_S
    assert publishing_s(100, 1.0) - publishing_s(0, 1.0) == pytest.approx(publishing_s(100, None) - publishing_s(0, None))
