"""Engines agree with PyTorch, or PyTorch takes over."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from automl_tl.models import engines
from automl_tl.models.engines import (
    EagerEngine,
    OpenVinoEngine,
    VerifiedEngine,
    _create_once,
    best_device,
    blocks_digest,
    fastest_engine,
    latency_ms,
    layout_on,
)
from automl_tl.runtime.progress import QUIET
from automl_tl.testing import ToyBackbone
from automl_tl.testing.toy_task import SIDE_PX

needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
on_cpu = pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="engines for CPUs")


def tiny() -> tuple[torch.nn.Sequential, NDArray[np.uint8]]:
    backbone = ToyBackbone()
    blocks = torch.nn.Sequential(*backbone.cut(backbone.build(pretrained=True)))
    return blocks, np.random.default_rng(0).integers(0, 256, (9, SIDE_PX, SIDE_PX, 3), dtype=np.uint8)


class Wrong(OpenVinoEngine):
    """An engine with other results."""

    name = "wrong"

    def __init__(self, *_: object) -> None:
        pass

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.zeros((len(images), 32), dtype=np.float32)


class Failing(Wrong):
    """An engine that fails on the first images."""

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise RuntimeError("out of registers")


@pytest.mark.parametrize(
    ("device", "layout"), [("cuda", torch.contiguous_format), ("mps", torch.channels_last), ("cpu", torch.channels_last)]
)
def test_layout_is_channels_last_except_on_cuda(device: str, layout: torch.memory_format) -> None:
    assert layout_on(torch.device(device)) is layout


@on_cpu
@needs_openvino
def test_openvino_engine_equals_eager_and_is_cached(tmp_path: Path) -> None:
    blocks, images = tiny()
    preprocessing = ToyBackbone().card.preprocessing
    expected = EagerEngine(blocks, preprocessing)(images)

    for num_images in (10_000, 9_000):  # built, then loaded from the cache
        engine = fastest_engine(blocks, preprocessing, cache_dir=tmp_path, num_images=num_images, progress=QUIET)
        assert np.allclose(engine(images), expected, atol=1e-5)
        assert np.allclose(engine(images[:1]), expected[:1], atol=1e-5)
        assert engine.name == "openvino"
    assert len(list((tmp_path / "engines").iterdir())) == 1


@on_cpu
@needs_openvino
@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: bytes(len(data))])
def test_openvino_engine_builds_a_half_written_graph_again(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    blocks, images = tiny()
    preprocessing = ToyBackbone().card.preprocessing
    fastest_engine(blocks, preprocessing, cache_dir=tmp_path, num_images=10_000, progress=QUIET)
    weights = next(tmp_path.rglob("graph.bin"))
    whole = weights.read_bytes()
    weights.write_bytes(damage(whole))

    engine = fastest_engine(blocks, preprocessing, cache_dir=tmp_path, num_images=10_000, progress=QUIET)

    assert np.allclose(engine(images), EagerEngine(blocks, preprocessing)(images), atol=1e-5)
    assert engine.name == "openvino"
    assert next(tmp_path.rglob("graph.bin")).read_bytes() == whole


@on_cpu
@needs_openvino
def test_fastest_engine_keeps_the_last_graph_compiled(tmp_path: Path) -> None:
    blocks, images = tiny()
    preprocessing, compiled = ToyBackbone().card.preprocessing, dict[Path, OpenVinoEngine]()

    def engine(blocks: torch.nn.Module) -> VerifiedEngine:
        built = fastest_engine(blocks, preprocessing, cache_dir=tmp_path, num_images=10_000, progress=QUIET, compiled=compiled)
        assert isinstance(built, VerifiedEngine)
        return built

    expected = engine(blocks)(images)
    (kept,) = compiled.values()
    assert kept.is_verified
    assert np.array_equal(engine(copy.deepcopy(blocks))(images), expected)
    assert list(compiled.values()) == [kept]

    engine(torch.nn.Sequential(blocks[0]))
    assert kept not in compiled.values()
    assert len(compiled) == 1


@on_cpu
@needs_openvino
def test_openvino_engine_does_without_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    blocks, images = tiny()
    preprocessing = ToyBackbone().card.preprocessing
    (tmp_path / "engines").write_text("in the way")

    engine = fastest_engine(blocks, preprocessing, cache_dir=tmp_path, num_images=10_000, progress=QUIET)

    assert np.allclose(engine(images), EagerEngine(blocks, preprocessing)(images), atol=1e-5)
    assert engine.name == "openvino"


def test_fastest_engine_is_eager_for_few_images(tmp_path: Path) -> None:
    blocks, _ = tiny()

    engine = fastest_engine(
        blocks, ToyBackbone().card.preprocessing, cache_dir=tmp_path, num_images=engines.BREAK_EVEN_IMAGES, progress=QUIET
    )

    assert engine.name == "eager"
    assert not list(tmp_path.iterdir())


def test_fastest_engine_is_eager_if_conversion_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unconvertible(Wrong):
        def __init__(self, *_: object) -> None:
            raise RuntimeError("no such operator")

    monkeypatch.setattr(engines, "OpenVinoEngine", Unconvertible)
    blocks, images = tiny()

    engine = fastest_engine(blocks, ToyBackbone().card.preprocessing, cache_dir=tmp_path, num_images=1000, progress=QUIET)

    assert isinstance(engine, EagerEngine)
    assert engine(images).shape == (9, 32)


@pytest.mark.parametrize("fast", [Wrong(), Failing()], ids=["wrong", "failing"])
def test_verified_engine_falls_back_to_eager(fast: OpenVinoEngine) -> None:
    blocks, images = tiny()
    eager = EagerEngine(blocks, ToyBackbone().card.preprocessing)

    engine = VerifiedEngine(fast, eager, QUIET)

    assert np.array_equal(engine(images), eager(images))
    assert engine.name == "eager"


@pytest.mark.parametrize(("accelerator", "expected"), [("mps", "mps"), ("cuda", "cuda"), (None, "cpu")])
def test_best_device_is_the_accelerator_if_there_is_one(
    accelerator: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: accelerator is not None)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(accelerator or "cpu"))

    assert best_device().type == expected


def test_create_once_creates_whole_folder_or_nothing(tmp_path: Path) -> None:
    def half(draft: Path) -> None:
        (draft / "file").write_text("half")
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        _create_once(tmp_path / "graph", half)
    assert not list(tmp_path.iterdir())

    _create_once(tmp_path / "graph", lambda draft: (draft / "file").write_text("first"))
    _create_once(tmp_path / "graph", lambda draft: (draft / "file").write_text("second"))
    assert (tmp_path / "graph" / "file").read_text() == "first"
    assert len(list(tmp_path.iterdir())) == 1


def test_blocks_digest_hashes_unchanged_weights_once(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks, _ = tiny()
    hashed: list[bytes] = []
    sha256 = hashlib.sha256

    def count(data: bytes) -> object:
        hashed.append(data)
        return sha256(data)

    monkeypatch.setattr("hashlib.sha256", count)

    digests = {blocks_digest(blocks), blocks_digest(blocks), blocks_digest(torch.nn.Sequential(*blocks))}

    assert (len(digests), len(hashed)) == (1, 1)


def train_one_step(blocks: torch.nn.Sequential) -> None:
    optimizer = torch.optim.AdamW(blocks.parameters(), lr=0.1)
    sum(parameter.sum() for parameter in blocks.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step()


def load_other_weights(blocks: torch.nn.Sequential) -> None:
    blocks.load_state_dict({name: tensor + 1 for name, tensor in blocks.state_dict().items()})


def replace_a_tensor(blocks: torch.nn.Sequential) -> None:
    (name, parameter), *_ = blocks.named_parameters()
    owner, _, attribute = name.rpartition(".")
    setattr(blocks.get_submodule(owner), attribute, torch.nn.Parameter(torch.zeros_like(parameter)))


def set_data(blocks: torch.nn.Sequential) -> None:
    next(blocks.parameters()).data = torch.zeros_like(next(blocks.parameters()))


@pytest.mark.parametrize("change", [train_one_step, load_other_weights, replace_a_tensor, set_data, torch.nn.Module.half])
def test_blocks_digest_sees_changed_weights(change: Callable[[torch.nn.Sequential], object]) -> None:
    blocks, _ = tiny()
    before = blocks_digest(blocks)

    change(blocks)

    assert blocks_digest(blocks) != before
    assert blocks_digest(blocks) == blocks_digest(copy.deepcopy(blocks))


@torch.inference_mode()
def test_blocks_digest_sees_changes_in_inference_mode() -> None:
    blocks = copy.deepcopy(torch.nn.Sequential(torch.nn.Linear(2, 2)))
    before = blocks_digest(blocks)

    blocks[0].weight.zero_()  # type: ignore[operator]

    assert blocks_digest(blocks) != before


def test_latency_ms_times_the_shortest_run_of_one_batch() -> None:
    shapes = []

    assert latency_ms(lambda images: shapes.append(images.shape), 16, num_images=4) >= 0
    assert set(shapes) == {(4, 16, 16, 3)}
    assert len(shapes) == engines.NUM_TIMED + 1  # and a warm-up
