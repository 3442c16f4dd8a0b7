"""Results on a GPU agree with the CPU within half precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from automl_tl.models.engines import EagerEngine, best_device
from automl_tl.testing import ToyBackbone
from automl_tl.training.loop import train
from automl_tl.values import Phase
from tests.training.test_loop import EVERYTHING, TOP, make_run

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")]


def test_engine_on_gpu_agrees_with_cpu() -> None:
    backbone = ToyBackbone()
    blocks = nn.Sequential(*backbone.cut(backbone.build(pretrained=True)))
    images = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)

    on_gpu = EagerEngine(blocks, backbone.card.preprocessing)(images)
    on_cpu = EagerEngine(blocks.cpu(), backbone.card.preprocessing, torch.device("cpu"))(images)

    assert best_device().type == "cuda"
    assert np.allclose(on_gpu, on_cpu, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("phase", [EVERYTHING, TOP], ids=lambda phase: phase.name)
def test_train_on_gpu_learns_and_returns_to_the_cpu(tmp_path: Path, phase: Phase) -> None:
    run = make_run(tmp_path, phase.model_copy(update={"epochs": 8}))

    progress = train(run)

    assert progress.logits is not None
    assert run.validation is not None
    assert (progress.logits.argmax(axis=1) == run.validation.labels).mean() >= 0.9
    assert {parameter.device.type for parameter in run.blocks.parameters()} == {"cpu"}
