from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("starlette")

from automl_tl.models.engines import BATCH_SIZE
from automl_tl.server import batcher as module
from automl_tl.server.batcher import Batcher, OverloadedError
from automl_tl.server.served_model import Answer, ServedModel
from tests.server.toy_server import SIDE_PX, toy_model

COLORS = np.zeros((2, SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
COLORS[0, ..., 0] = COLORS[1, ..., 2] = 230


def predict_all(batcher: Batcher, models: list[ServedModel], num_images: int) -> list[Answer]:
    """Predict images of alternating colors, all at once."""

    async def together() -> list[Answer]:
        with batcher.admit(num_images):
            jobs = (batcher.predict(models[one % len(models)], COLORS[one % 2]) for one in range(num_images))
            return await asyncio.gather(*jobs)

    batcher.start()
    try:
        return asyncio.run(together())
    finally:
        batcher.stop()


def test_batcher_predicts_concurrent_images_together() -> None:
    sizes: list[int] = []
    answers = predict_all(Batcher(sizes.append), [toy_model()], 2 * BATCH_SIZE)

    assert [answer.top(1)[0][0] for answer in answers] == ["red", "blue"] * BATCH_SIZE
    assert sum(sizes) == 2 * BATCH_SIZE
    assert max(sizes) > 1


def test_batcher_keeps_versions_apart() -> None:
    answers = predict_all(Batcher(), [toy_model(1), toy_model(2)], 6)

    assert [answer.served.ref for answer in answers] == ["colors@1", "colors@2"] * 3


def test_batcher_passes_errors_on_and_continues() -> None:
    broken = replace(toy_model(), predictor=None)  # type: ignore[arg-type] # fails when it is used
    batcher = Batcher()

    async def one_after_the_other() -> Answer:
        with pytest.raises(AttributeError):
            await batcher.predict(broken, COLORS[0])
        return await batcher.predict(toy_model(), COLORS[0])

    batcher.start()
    answer = asyncio.run(one_after_the_other())
    batcher.stop()

    assert answer.decision == "answered"
    assert not batcher.is_running


def test_batcher_refuses_more_than_its_queue_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_QUEUED", 3)
    batcher = Batcher()

    with batcher.admit(2):
        with pytest.raises(OverloadedError), batcher.admit(2):
            pass
        with batcher.admit(1):
            assert batcher.num_admitted == 3
    assert batcher.num_admitted == 0
