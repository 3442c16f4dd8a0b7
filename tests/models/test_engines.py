"""Engines agree with torch, or are not used."""

from __future__ import annotations

from importlib.util import find_spec
from math import ceil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from automl_tl.models.engines import (
    ENGINES,
    ComparedEngine,
    Cost,
    EagerEngine,
    EngineKind,
    choosing,
    fastest_engine,
    layout_on,
)
from automl_tl.models.engines.kept import put_in_place
from automl_tl.runtime.progress import QUIET
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


@pytest.mark.parametrize(
    ("device", "layout"), [("cuda", torch.contiguous_format), ("mps", torch.channels_last), ("cpu", torch.channels_last)]
)
def test_nothing_is_channels_last_where_cudnn_would_compile_it(device: str, layout: torch.memory_format) -> None:
    assert layout_on(torch.device(device)) is layout


@CPU
@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=pytest.mark.slow if kind.name == "compile" else ()) for kind in ENGINES],
    ids=lambda k: k.name,
)
def test_an_engine_gives_what_torch_gives_and_what_it_built_is_found_again(
    kind: EngineKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing := [package for package in kind.needs if find_spec(package) is None]:
        pytest.skip(f"{', '.join(missing)} not installed: they come with an extra")
    blocks, images = tiny()
    preprocessing = TinyBackbone().card.preprocessing
    expected = EagerEngine(blocks, preprocessing)(images)
    monkeypatch.setattr(choosing, "ENGINES", (kind,))

    for num_images in (10_000, 9_000):  # built, and found again
        engine = fastest_engine(blocks, preprocessing, cache_dir=tmp_path, num_images=num_images, progress=QUIET)
        assert np.allclose(engine(images), expected, atol=1e-5)
        assert np.allclose(engine(images[:1]), expected[:1], atol=1e-5)
        assert engine.name == kind.name
    assert len(list((tmp_path / "engines").iterdir())) == 1


@CPU
def test_few_images_are_not_worth_building_an_engine(tmp_path: Path) -> None:
    blocks, _ = tiny()

    engine = fastest_engine(blocks, TinyBackbone().card.preprocessing, cache_dir=tmp_path, num_images=5, progress=QUIET)

    assert engine.name == "eager"
    assert not list(tmp_path.iterdir())


def test_an_engine_that_differs_is_given_up_and_its_rows_are_thrown_away() -> None:
    blocks, images = tiny()
    eager = EagerEngine(blocks, TinyBackbone().card.preprocessing)

    engine = ComparedEngine(Wrong(), eager, QUIET)

    assert np.array_equal(engine(images), eager(images))
    assert engine.name == "eager"


def refuse(*arguments: object) -> EagerEngine:
    raise RuntimeError("no such operator")


def cheap(name: str, build: choosing.Build, *, speedup: float) -> EngineKind:
    return EngineKind(name, (), Cost(build_s=1.0, speedup=speedup), build)


@CPU
def test_the_next_best_engine_runs_what_the_best_can_not_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks, images = tiny()
    preprocessing = TinyBackbone().card.preprocessing
    eager = EagerEngine(blocks, preprocessing)
    monkeypatch.setattr(choosing, "ENGINES", (cheap("slower", lambda *_: eager, speedup=2), cheap("best", refuse, speedup=4)))

    engine = fastest_engine(blocks, preprocessing, cache_dir=tmp_path, num_images=1000, progress=QUIET)

    assert engine.name == "eager"
    assert isinstance(engine, ComparedEngine)  # the slower one, which is eager in disguise
    assert engine(images).shape == (9, 12)


@CPU
def test_torch_runs_what_no_engine_can_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks, images = tiny()
    monkeypatch.setattr(choosing, "ENGINES", (cheap("best", refuse, speedup=4),))

    engine = fastest_engine(blocks, TinyBackbone().card.preprocessing, cache_dir=tmp_path, num_images=1000, progress=QUIET)

    assert isinstance(engine, EagerEngine)
    assert engine(images).shape == (9, 12)


def test_an_engine_that_fails_on_the_first_images_is_given_up() -> None:
    blocks, images = tiny()
    eager = EagerEngine(blocks, TinyBackbone().card.preprocessing)

    class Failing(Wrong):
        def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
            raise RuntimeError("out of registers")

    assert np.array_equal(ComparedEngine(Failing(), eager, QUIET)(images), eager(images))


def test_building_is_worth_it_for_many_images() -> None:
    cost = Cost(build_s=2.0, speedup=4.0)
    enough = ceil(2.0 / (choosing.EAGER_S * (1 - 1 / 4)))

    assert cost.seconds(enough + 1) < (enough + 1) * choosing.EAGER_S
    assert cost.seconds(enough - 1) > (enough - 1) * choosing.EAGER_S


def test_a_graph_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    def half(draft: Path) -> None:
        (draft / "graph").write_text("half")
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        put_in_place(tmp_path / "kept", half)
    assert not list(tmp_path.iterdir())

    put_in_place(tmp_path / "kept", lambda draft: (draft / "graph").write_text("first"))
    put_in_place(tmp_path / "kept", lambda draft: (draft / "graph").write_text("second"))
    assert (tmp_path / "kept" / "graph").read_text() == "first"
    assert len(list(tmp_path.iterdir())) == 1
