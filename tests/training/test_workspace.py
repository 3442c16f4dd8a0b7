"""The workspace: what is computed once, and the time that publishing takes."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from automl_tl.runtime.budget import Deadline, OutOfTime
from automl_tl.runtime.progress import QUIET
from automl_tl.training import Workspace, views
from automl_tl.training.images import LabeledImages
from automl_tl.training.views import Prefix
from automl_tl.training.workspace import PUBLISHING_S, ActivationCache
from automl_tl.values import Preprocessing
from tests.fakes import write_colors
from tests.training.colors import labeled_colors


def workspace(startup_s: float | None = None) -> Workspace:
    return Workspace(Path("nowhere"), Path("nowhere"), Deadline(startup_s=startup_s), QUIET)


def test_publishing_s_scales_with_the_import_time() -> None:
    slow, fast, unknown = workspace(1.0), workspace(0.5), workspace(None)

    assert slow.publishing_s(0) == 2 * fast.publishing_s(0)
    assert unknown.publishing_s(0) == PUBLISHING_S
    assert slow.publishing_s(100) - slow.publishing_s(0) == pytest.approx(unknown.publishing_s(100) - unknown.publishing_s(0))


def test_solve_fits_the_same_features_once() -> None:
    rng, labels = np.random.default_rng(0), np.arange(20) % 2
    features, images = rng.normal(size=(20, 30)).astype(np.float32), LabeledImages((), labels, np.arange(20), lambda _: b"")
    space = workspace()

    first, again = (space.solve(features.copy(), images, solver="ridge", num_classes=2, seed=0) for _ in range(2))
    other = space.solve(features + 1, images, solver="ridge", num_classes=2, seed=0)

    assert first is again
    assert first is not other


class Counting:
    """Computes a row per image and counts them."""

    def __init__(self) -> None:
        self.num_images = 0

    def __call__(self, images: LabeledImages) -> Iterator[NDArray[np.float32]]:
        self.num_images += len(images)
        for record in images.records:
            yield np.full((1, 4), int(record.digest[:6], 16), dtype=np.float32)


def test_cache_computes_added_images_only(tmp_path: Path) -> None:
    cache, count = ActivationCache(tmp_path / "cache", QUIET), Counting()
    before = labeled_colors(write_colors(tmp_path / "images", 4))
    cache.rows(before, ["key"], count, description="")

    after = labeled_colors(write_colors(tmp_path / "images", 6))
    rows = cache.rows(after, ["key"], count, description="")

    assert count.num_images == 12
    assert rows.all()[:, 0].tolist() == [int(record.digest[:6], 16) for record in after.records]


def test_cache_separates_keys(tmp_path: Path) -> None:
    cache, count = ActivationCache(tmp_path / "cache", QUIET), Counting()
    images = labeled_colors(write_colors(tmp_path / "images", 3))

    cache.rows(images, ["key"], count, description="")
    cache.rows(images, ["ke", "y"], count, description="")

    assert count.num_images == 12


def test_cache_stops_at_the_deadline_and_keeps_computed_rows(tmp_path: Path) -> None:
    cache, count = ActivationCache(tmp_path / "cache", QUIET), Counting()
    images = labeled_colors(write_colors(tmp_path / "images", 12))

    with pytest.raises(OutOfTime):
        cache.within(Deadline(budget_s=1.0), reserve_s=2.0).rows(images, ["key"], count, description="")

    num_left = len(cache.store(["key"]).missing(images.digests))
    assert 0 < num_left < 24
    cache.rows(images, ["key"], count := Counting(), description="")
    assert count.num_images == num_left


def test_cached_rows_stay_readable_after_the_cache_is_cleared(tmp_path: Path) -> None:
    cache = ActivationCache(tmp_path / "cache", QUIET)
    images = labeled_colors(write_colors(tmp_path / "images", 3))
    rows = cache.rows(images, ["key"], Counting(), description="")
    before = rows.all()

    shutil.rmtree(tmp_path / "cache")

    assert np.array_equal(rows.all(), before)


@pytest.mark.parametrize("damage", [lambda data: data[:-8], lambda data: data[:-8] + bytes(8), lambda data: b""])
def test_cache_recomputes_a_half_written_segment(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    cache, count = ActivationCache(tmp_path / "cache", QUIET), Counting()
    images = labeled_colors(write_colors(tmp_path / "images", 3))
    before = cache.rows(images, ["key"], count, description="").all()
    segment = next((tmp_path / "cache").rglob("*.rows.npy"))
    segment.write_bytes(damage(segment.read_bytes()))

    assert np.array_equal(cache.rows(images, ["key"], count, description="").all(), before)
    assert count.num_images == 12


def test_cache_keeps_segments_finished_before_a_crash(tmp_path: Path) -> None:
    cache, count = ActivationCache(tmp_path / "cache", QUIET), Counting()
    images = labeled_colors(write_colors(tmp_path / "images", 12))

    def crashing(missing: LabeledImages) -> Iterator[NDArray[np.float32]]:
        for number, row in enumerate(Counting()(missing)):
            if number == 20:
                raise KeyboardInterrupt
            yield row

    with contextlib.suppress(KeyboardInterrupt):
        cache.rows(images, ["key"], crashing, description="")
    cache.rows(images, ["key"], count, description="")

    assert count.num_images == 24 - 16


def test_cache_ignores_a_segment_without_digests(tmp_path: Path) -> None:
    cache, count = ActivationCache(tmp_path / "cache", QUIET), Counting()
    images = labeled_colors(write_colors(tmp_path / "images", 3))
    cache.rows(images, ["key"], count, description="")
    for digests in (tmp_path / "cache").rglob("*.digests.npy"):
        digests.unlink()

    cache.rows(images, ["key"], count, description="")

    assert count.num_images == 12


def test_cache_recomputes_rows_of_another_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, count = ActivationCache(tmp_path / "cache", QUIET), Counting()
    images = labeled_colors(write_colors(tmp_path / "images", 3))
    cache.rows(images, ["key"], count, description="")

    monkeypatch.setattr("automl_tl.training.workspace.DECODER", "pillow 99.0")

    assert len(cache.store(["key"]).missing(images.digests)) == len(images)


def test_prefix_key_depends_on_the_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = Prefix(nn.Sequential(), Preprocessing(side_px=32), ActivationCache(tmp_path, QUIET), gives_features=True)
    key = prefix.key()

    monkeypatch.setattr(views, "precision_on", lambda device: torch.bfloat16)

    assert prefix.key() != key


@pytest.mark.parametrize("change", ["device", "library"])
def test_prefix_key_depends_on_the_device_and_the_library(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = Prefix(nn.Sequential(nn.ReLU()), Preprocessing(side_px=32), ActivationCache(tmp_path, QUIET), gives_features=True)
    key = prefix.key()

    if change == "device":
        monkeypatch.setattr(views, "best_device", lambda: torch.device("mps"))  # float32, as on a CPU, but other kernels
    else:
        monkeypatch.setattr(torch, "__version__", "99.0")

    assert prefix.key() != key
