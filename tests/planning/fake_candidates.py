"""Candidates for tests, without images or training."""

from __future__ import annotations

from typing import Final

import numpy as np

from automl_tl.planning.candidates import Candidate
from automl_tl.planning.evidence import Probe
from automl_tl.testing import ToyBackbone
from automl_tl.training.speed import Speed
from tests.planning.fake_plugins import catalog_of

PROBE: Final = Probe(
    backbone=catalog_of([ToyBackbone()], []).backbone("toy/three_blocks"),
    num_blocks=3,
    size_mib=1.0,
    speed=Speed(load_s=0.001, forward_s=0.001, latency_ms=1.0),
    labels=np.zeros(1, np.int64),
    weights=np.ones(1),
    features=np.zeros((1, 12), np.float32),
    log_probabilities=np.log([[0.5, 0.5]]),
    similarity=None,
)


def fake_candidate(
    accuracy: float = 0.9,
    *,
    seconds: float = 10,
    latency_ms: float = 20,
    size_mib: float = 18,
    strategy: str = "probe",
    given_up: str | None = None,
) -> Candidate:
    """Return a candidate on the backbone a/backbone.

    Args:
        accuracy: 0 to 1.
        seconds: to the published model.
        latency_ms: of one image.
        size_mib: of the model.
        strategy: name.
        given_up: why it dropped out.
    """
    return Candidate(
        probe=PROBE,
        backbone="a/backbone",
        accuracy=accuracy,
        accuracy_sd=0.02,
        accuracy_source="fixed",
        seconds=seconds,
        latency_ms=latency_ms,
        size_mib=size_mib,
        memory_mib=1000,
        reason="a reason",
        strategy=strategy,
        given_up=given_up,
    )
