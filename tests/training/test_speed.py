"""Cached speed measurements, and the number of images that a budget has time for."""

from __future__ import annotations

import io
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from automl_tl.runtime.budget import Deadline
from automl_tl.runtime.progress import QUIET
from automl_tl.testing import ToyBackbone
from automl_tl.training import speed
from automl_tl.training.images import LabeledImages
from automl_tl.training.speed import NUM_TIMED_IMAGES, Speed, TrainingSpeed, affordable_images
from automl_tl.training.views import Prefix
from automl_tl.training.workspace import ActivationCache
from automl_tl.values import ImageRecord


@pytest.mark.parametrize(
    ("load_then", "load_now", "times"),
    [
        (0.5, 0.1, 1),  # it was not busy
        (3.0, 0.1, 2),
        (3.0, 4.0, 1),  # it is no less busy
    ],
)
def test_speed_measured_under_load_is_measured_again_with_less_load(
    load_then: float, load_now: float, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, measured = tmp_path / "speed.json", []

    def measure() -> TrainingSpeed:
        measured.append(1)
        return TrainingSpeed(forward_s=(1.0,), step_s=(2.0,), activations_mib=(3.0,))

    monkeypatch.setattr(speed, "num_cores", lambda: 1)
    for load in (load_then, load_now):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        result = speed._cached(TrainingSpeed, file, measure)

    assert result.forward_s == (1.0,)
    assert len(measured) == times


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
    records = tuple(replace(template, digest=rng.bytes(32).hex()) for _ in range(count))
    return LabeledImages(records, np.arange(count) % 3, np.arange(count), lambda path: b"")


@pytest.fixture
def template() -> ImageRecord:
    return ImageRecord(path="a.png", label="a", digest="0" * 64, num_bytes=1, width_px=1, height_px=1, format="PNG", mode="RGB")


def test_affordable_images_takes_all_with_enough_time(template: ImageRecord) -> None:
    source: Any = TimedSource()
    images = images_of(1000, template)

    for budget_s in (None, 2000.0):
        assert (
            affordable_images(images, source, Deadline(budget_s, source.clock), reserve_s=5, num_test=10).records
            == images.records
        )


def test_affordable_images_balances_classes_under_a_budget(template: ImageRecord) -> None:
    source: Any = TimedSource()
    images = images_of(3000, template)

    used = affordable_images(images, source, Deadline(1000.0, source.clock), reserve_s=50, num_test=100)

    assert len(used) == 1000 - 100 - 50
    counts = Counter(used.labels.tolist()).values()
    assert max(counts) - min(counts) <= 1
    source.plain(used)
    assert source.now_s + 100 + 50 <= 1000


def test_affordable_images_counts_cached_features_as_free(template: ImageRecord) -> None:
    source: Any = TimedSource()
    images = images_of(2000, template)
    source.plain(images)
    deadline = Deadline(10.0, source.clock)

    assert affordable_images(images, source, deadline, reserve_s=5, num_test=100) is images


def test_affordable_images_times_uncached_images(template: ImageRecord) -> None:
    source: Any = TimedSource()
    images = images_of(5000, template)
    source.plain(images.at(range(500)))

    used = affordable_images(images, source, Deadline(1000.0, source.clock), reserve_s=0)

    assert len(used) == 500 + 1000
    assert {record.digest for record in images.records[:500]} <= {record.digest for record in used.records}


def test_affordable_images_takes_at_least_the_timed_images(template: ImageRecord) -> None:
    source: Any = TimedSource()

    used = affordable_images(images_of(2000, template), source, Deadline(1.0, source.clock), reserve_s=0)

    assert len(used) == NUM_TIMED_IMAGES


def test_affordable_images_uses_cached_images_without_time_to_measure(template: ImageRecord) -> None:
    source: Any = TimedSource()
    images = images_of(2000, template)
    deadline = Deadline(500.0 + 100 + NUM_TIMED_IMAGES - 1, source.clock)
    source.plain(images.at(range(500)))

    used = affordable_images(images, source, deadline, reserve_s=0, num_test=100, extraction_s=lambda: 1.0)

    assert {record.digest for record in used.records} == {record.digest for record in images.records[:500]}
    assert source.now_s == 500  # nothing more was extracted


def test_affordable_images_extracts_more_if_cached_images_lack_a_class(template: ImageRecord) -> None:
    source: Any = TimedSource()
    images = images_of(2000, template)
    deadline = Deadline(700.0, source.clock)
    source.plain(images.at([position for position in range(900) if position % 3]))  # none of the first class

    used = affordable_images(images, source, deadline, reserve_s=0, num_test=100, extraction_s=lambda: 1.0)

    assert set(used.labels.tolist()) == {0, 1, 2}


def test_affordable_images_leaves_time_for_the_remaining_work(template: ImageRecord) -> None:
    source: Any = TimedSource()
    images = images_of(5000, template)
    source.plain(images.at(range(500)))

    used = affordable_images(images, source, Deadline(1000.0, source.clock), reserve_s=100, per_image_s=0.5)

    source.plain(used)
    assert source.now_s + 100 + 0.5 * len(used) == pytest.approx(500 + 1000, abs=2)  # the first 500 were seen before its time


def test_affordable_images_does_not_measure_what_it_does_not_need(template: ImageRecord) -> None:
    source: Any = TimedSource()
    images = images_of(2000, template)
    source.plain(images)

    def extraction_s() -> float:
        raise AssertionError("all features are cached")

    deadline = Deadline(3000.0, source.clock)
    assert affordable_images(images, source, deadline, reserve_s=5, extraction_s=extraction_s) is images


@pytest.mark.parametrize(("device", "image_s"), [("cpu", 5.0), ("cuda", 3.0), ("mps", 3.0)])
def test_images_are_read_beside_an_accelerator_and_in_turn_on_a_cpu(
    device: str, image_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "best_device", lambda: torch.device(device))

    assert Speed(load_s=2.0, forward_s=3.0, latency_ms=1.0).image_s == image_s


def test_forward_speed_is_measured_for_each_dataset(template: ImageRecord, tmp_path: Path) -> None:
    """Photographs take longer to read than icons."""
    backbone, png = ToyBackbone(), io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(png, "png")
    images = replace(images_of(40, template), read=lambda path: png.getvalue())
    encoder = nn.Sequential(*backbone.cut(backbone.build(pretrained=True)))
    prefix = Prefix(encoder, backbone.card.preprocessing, ActivationCache(tmp_path, QUIET), gives_features=True)

    for positions, num_measured in ((range(20), 1), (range(20), 1), (range(20, 40), 2)):
        speed.forward_speed(prefix, images.at(positions))
        assert len(list((tmp_path / "speed").iterdir())) == num_measured


def test_training_speed_waits_for_the_accelerator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Apple's and Intel's devices queue work as CUDA does: without waiting, queuing would be timed."""
    now_s, queued = [0.0], []

    def synchronize() -> None:
        now_s[0] += 0.5
        queued.append(1)

    backbone = ToyBackbone()
    encoder = nn.Sequential(*backbone.cut(backbone.build(pretrained=True)))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "synchronize", synchronize)
    monkeypatch.setattr(speed, "best_device", lambda: torch.device("cpu"))
    monkeypatch.setattr("time.perf_counter", lambda: now_s[0])

    measured = speed.training_speed(encoder, backbone.card.preprocessing, cache_dir=tmp_path)

    assert queued
    assert measured.step_s == pytest.approx((0.5 / speed.STEP_IMAGES,) * 3)
