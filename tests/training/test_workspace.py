"""The time that publishing takes, and heads that are fitted once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from automl_tl.runtime.budget import Deadline
from automl_tl.runtime.progress import QUIET
from automl_tl.training import LabeledImages, Workspace
from automl_tl.training.workspace import PUBLISHING_S


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
