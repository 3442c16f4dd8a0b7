"""Engines agree with torch, or are not used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from automl_tl.inference import engines
from automl_tl.inference.engines import ComparedEngine, EagerEngine, fastest_engine
from automl_tl.story import SILENT
from tests.fakes import SIDE_PX, TinyBackbone

CPU = pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="engines for CPUs")


def tiny() -> tuple[torch.nn.Sequential, NDArray[np.uint8]]:
    backbone = TinyBackbone()
    blocks = torch.nn.Sequential(*backbone.cut(backbone.build(pretrained=True)))
    return blocks, np.random.default_rng(0).integers(0, 256, (9, SIDE_PX, SIDE_PX, 3), dtype=np.uint8)


class Wrong:
    """An engine that computes something else."""

    name = "wrong"

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.zeros((len(images), 12), dtype=np.float32)


@CPU
def test_openvino_gives_what_torch_gives_and_its_graph_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks, images = tiny()
    card = TinyBackbone().card
    expected = EagerEngine(blocks, card.preprocessing)(images)

    for num_images in (engines.WORTH_BUILDING, engines.WORTH_LOADING):
        engine = fastest_engine(blocks, card.preprocessing, cache_dir=tmp_path, num_images=num_images, story=SILENT)
        assert np.allclose(engine(images), expected, atol=1e-5)
        assert engine.name == "openvino"


@CPU
def test_few_images_are_not_worth_building_an_engine(tmp_path: Path) -> None:
    blocks, _ = tiny()

    engine = fastest_engine(blocks, TinyBackbone().card.preprocessing, cache_dir=tmp_path, num_images=5, story=SILENT)

    assert engine.name == "eager"
    assert not list(tmp_path.iterdir())


def test_an_engine_that_differs_is_given_up_and_its_rows_are_thrown_away() -> None:
    blocks, images = tiny()
    eager = EagerEngine(blocks, TinyBackbone().card.preprocessing)

    engine = ComparedEngine(Wrong(), eager, SILENT)

    assert np.array_equal(engine(images), eager(images))
    assert engine.name == "eager"


@CPU
def test_a_network_that_openvino_can_not_take_runs_in_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(engines, "OpenVinoEngine", refuse)
    blocks, images = tiny()

    engine = fastest_engine(blocks, TinyBackbone().card.preprocessing, cache_dir=tmp_path, num_images=1000, story=SILENT)

    assert engine.name == "eager"
    assert engine(images).shape == (9, 12)
