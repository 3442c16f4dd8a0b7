"""Near-duplicates are found, and images that only look similar are not."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from automl_tl.data import Thumbnails, audit_index, images_by_split, make_split, open_source, scan
from automl_tl.data.audit.groups import join_groups
from automl_tl.data.audit.near_duplicates import NeighborSearch, find_near_duplicates
from automl_tl.data.audit.registration import register
from automl_tl.values import DataReport, DatasetIndex
from tests.data.sample_images import encoded, write_tree


def scene(seed: int, width: int = 160, height: int = 120) -> Image.Image:
    """Detail at all scales, as photographs have: noise whose amplitude falls with its frequency."""
    generator = np.random.default_rng(seed)
    rows, columns = np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij")
    amplitude = 1 / np.maximum(np.hypot(rows, columns), 1 / width)
    planes = [np.fft.ifft2(np.fft.fft2(generator.normal(size=(height, width))) * amplitude).real for _ in range(3)]
    pixels = np.stack(planes, axis=2)
    pixels = 128 + 50 * (pixels - pixels.mean()) / pixels.std()
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def resized(image: Image.Image) -> Image.Image:
    return image.resize((image.width * 6 // 10, image.height * 6 // 10), Image.Resampling.LANCZOS)


def recompressed(image: Image.Image) -> Image.Image:
    return Image.open(BytesIO(encoded(image, quality=30)))


def cropped(image: Image.Image) -> Image.Image:
    return image.crop((image.width // 12, image.height // 15, image.width * 19 // 20, image.height))


def brightened(image: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(1.25)


CHANGES = (resized, recompressed, cropped, brightened)


def scan_and_audit(root: Path) -> tuple[DatasetIndex, DataReport]:
    with Thumbnails() as thumbnails:
        index = scan(open_source(root), thumbnails=thumbnails)
        return index, audit_index(index, thumbnails)


def pairs_of(levels: Sequence[bytes]) -> list[tuple[int, int, float]]:
    return find_near_duplicates(len(levels), levels.__getitem__)


def thumbnails(images: list[Image.Image]) -> list[bytes]:
    return [image.convert("L").resize((32, 32), Image.Resampling.LANCZOS).tobytes() for image in images]


def test_find_near_duplicates_finds_planted_copies_only() -> None:
    scenes = [scene(seed) for seed in range(60)]
    planted = [CHANGES[number % 4](scenes[number]) for number in range(20)]

    pairs = pairs_of(thumbnails([*scenes, *planted]))

    assert {(i, j) for i, j, _ in pairs} == {(number, 60 + number) for number in range(20)}
    assert all(0.95 <= agreement <= 1 for _, _, agreement in pairs)


def test_find_near_duplicates_does_not_depend_on_order() -> None:
    images = [*(scene(seed) for seed in range(20)), *(cropped(scene(seed)) for seed in range(5))]
    order = np.random.default_rng(0).permutation(25)

    plain = {frozenset(pair[:2]) for pair in pairs_of(thumbnails(images))}
    shuffled = pairs_of(thumbnails([images[at] for at in order]))

    assert {frozenset((int(order[i]), int(order[j]))) for i, j, _ in shuffled} == plain


def test_find_near_duplicates_ignores_datasets_of_similar_images() -> None:
    generator = np.random.default_rng(0)
    bars = np.zeros((200, 32, 32))
    for bar in bars:  # a bright bar on black with uneven edges: trousers, digits
        left, right = (np.cumsum(generator.normal(0, 0.4, 32)) + generator.uniform(*span) for span in ((6, 12), (20, 26)))
        at = np.arange(32)
        bar[3:29] = (200 * np.clip(np.minimum(at - left[:, None], right[:, None] - at), 0, 1))[3:29]

    assert len(pairs_of([bar.astype(np.uint8).tobytes() for bar in np.clip(bars, 0, 255)])) <= 1  # of 19,900 pairs


@pytest.mark.parametrize("count", [0, 1, 50])
def test_find_near_duplicates_ignores_blank_images(count: int) -> None:
    assert pairs_of([bytes([7]) * 1024] * count) == []


@pytest.mark.parametrize("number", [2, 10, 30])
def test_join_groups_joins_all_copies_of_one_image(number: int) -> None:
    copies = thumbnails([CHANGES[at % 2](scene(1)) for at in range(number)])

    pairs = pairs_of([*copies, *thumbnails([scene(seed) for seed in range(2, 12)])])

    names = [str(at) for at in range(number + 10)]
    joined = join_groups(names, [(str(i), str(j)) for i, j, _ in pairs])
    assert [len(group) for group in joined if len(group) > 1] == [number]


def test_register_finds_scale_and_shift() -> None:
    small = thumbnails([scene(3), scene(3).crop((8, 6, 152, 114))])
    whole, inside = (np.frombuffer(levels, np.uint8).reshape(1, 32, 32).astype(np.float32) for levels in small)
    start = np.array([[0.85, 0, 0.85, 0]], dtype=np.float32)

    correlation, place = register(inside, whole, start, iterations=12)

    assert correlation[0] > 0.95
    assert np.allclose(place[0], [0.9, 0, 0.9, 0], atol=0.03)


def test_neighbor_search_in_cells_misses_few_neighbors() -> None:
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(3000, 32)).astype(np.float32)
    queries = rows[:500] + generator.normal(0, 0.2, (500, 32)).astype(np.float32)
    rows, queries = (some / np.linalg.norm(some, axis=1, keepdims=True) for some in (rows, queries))

    exact, products = NeighborSearch(rows).nearest(queries, 3)
    in_cells, _ = NeighborSearch(rows, exact_up_to=100).nearest(queries, 3)

    assert (exact[:, 0] == np.arange(500)).all()
    assert (np.diff(products, axis=1) <= 0).all()
    assert (in_cells[:, 0] == np.arange(500)).mean() > 0.97
    assert all(len(set(line)) == 3 for line in in_cells.tolist())


def test_find_near_duplicates_does_not_depend_on_block_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    images = thumbnails([*(scene(seed) for seed in range(40)), *(cropped(scene(seed)) for seed in range(0, 40, 3))])
    pairs = pairs_of(images)

    for name, number in (("BATCH", 7), ("SPREAD_BATCH", 5), ("PAIR_BATCH", 3), ("QUERY_BLOCK", 2)):
        monkeypatch.setattr(f"{find_near_duplicates.__module__}.{name}", number)

    assert [pair[:2] for pair in pairs_of(images)] == [pair[:2] for pair in pairs]
    assert len(pairs) == 14


def plant(root: Path) -> list[tuple[str, str]]:
    """Class folders with 30 scenes each and, in both, ten changed copies; gives the pairs."""
    pairs = []
    for at, label in enumerate(("ants", "bees")):
        (root / label).mkdir(parents=True)
        for number in range(30):
            (root / label / f"{number:03}.jpg").write_bytes(encoded(scene(100 * at + number), quality=90))
        for number in range(10):
            changed = CHANGES[number % 4](scene(100 * at + number))
            (root / label / f"x{number:03}.jpg").write_bytes(encoded(changed, quality=85))
            pairs.append((f"{label}/{number:03}.jpg", f"{label}/x{number:03}.jpg"))
    return pairs


def test_make_split_keeps_near_duplicates_together(tmp_path: Path) -> None:
    pairs = plant(tmp_path / "images")
    index, report = scan_and_audit(tmp_path / "images")

    splits = images_by_split(index, report, make_split(index, report))

    split_of = {image.path: split for split, images in splits.items() for image in images}
    assert [split_of[one] for one, _ in pairs] == [split_of[other] for _, other in pairs]
    assert report.groups == tuple(pairs)


def test_audit_leaves_out_near_duplicate_of_given_test_image(tmp_path: Path) -> None:
    tree = write_tree(tmp_path, {"train/ants": 4, "train/bees": 4, "test/ants": 4, "test/bees": 4})
    (tree / "test" / "ants" / "copy.jpg").write_bytes(encoded(scene(1)))
    (tree / "train" / "bees" / "copy.jpg").write_bytes(encoded(recompressed(scene(1))))
    _, report = scan_and_audit(tree)

    assert [(row.path, row.reason) for row in report.left_out] == [("train/bees/copy.jpg", "leak")]
    assert "test/ants/copy.jpg (agreement 1.00), where it is labeled ants" in report.left_out[0].detail
    assert "near_duplicates_of_two_classes" in {finding.code for finding in report.findings}
