"""Facts about an image, computed by hand, and the cache."""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from automl_tl.data.facts import Facts, FactsCache, measure
from tests.data.sample_images import encoded


def test_measure_matches_manual_computation() -> None:
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    pixels[1, 1] = (200, 200, 200)
    pixels[2, 2] = (255, 0, 0)  # luma 76

    facts = measure(encoded(Image.fromarray(pixels), "PNG")).fields

    luma = np.zeros(16)
    luma[5], luma[10] = 200, 76
    assert facts["brightness"] == round(luma.mean() / 255, 4)
    assert facts["contrast"] == round(luma.std() / 255, 4)
    assert facts["color"] == round(1 / 16, 4)
    assert facts["sharpness"] == round(float(np.var([-800, 276, 276, -304])), 2)


def test_measure_gives_blank_image_zero_contrast() -> None:
    facts = measure(encoded(Image.new("RGB", (256, 255), (251, 251, 251)), "PNG")).fields

    assert (facts["contrast"], facts["sharpness"], facts["color"]) == (0.0, 0.0, 0.0)


# --------------------------------------------------------------------------------------------------------------- cache

FACTS = Facts({"num_bytes": 3, "remarks": (), "captured_at": None}, thumbnail=b"\7" * 1024)


def filled_cache(folder: Path) -> FactsCache:
    cache = FactsCache(folder)
    cache.add({"ab": FACTS})
    cache.add_stamps("place", [("a.jpg", "stamp", "ab")])
    return cache


def found(cache: FactsCache) -> Facts | None:
    with cache.lookup() as find:
        return find("ab")


def test_facts_cache_returns_what_was_added(tmp_path: Path) -> None:
    filled_cache(tmp_path)

    again = FactsCache(tmp_path)
    assert found(again) == FACTS
    assert again.stamps("place", ["a.jpg"]) == {"a.jpg": ("stamp", "ab")}


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"x" * len(data)])
def test_facts_cache_starts_again_after_damage(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    filled_cache(tmp_path)
    file = tmp_path / "images.sqlite"
    file.write_bytes(damage(file.read_bytes()))

    for cache in (FactsCache(tmp_path), FactsCache(tmp_path)):  # the first may only notice when it reads
        cache.stamps("place", ["a.jpg"])
        cache.add({"ab": FACTS})

    assert found(FactsCache(tmp_path)) == FACTS


def test_facts_cache_ignores_a_value_with_wrong_bytes(tmp_path: Path) -> None:
    cache = filled_cache(tmp_path)
    with closing(sqlite3.connect(tmp_path / "images.sqlite")) as database, database:
        database.execute("UPDATE facts SET thumbnail = zeroblob(1024)")

    assert found(cache) is None
    cache.add({"ab": FACTS})
    assert found(cache) == FACTS


def test_facts_cache_does_without_a_file_that_cannot_be_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cache").write_text("in the way")

    cache = filled_cache(tmp_path / "cache")

    assert found(cache) is None
    assert cache.stamps("place", ["a.jpg"]) == {}
    assert len(caplog.records) == 1
    assert found(pickle.loads(pickle.dumps(cache))) is None
