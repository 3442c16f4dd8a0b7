"""What a split promises: sizes, whole groups, nothing moves."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl_tl.data import images_by_split, make_split
from automl_tl.values import DataReport, DatasetIndex, ImageRecord, LeftOut, SplitAssignment, SplitName
from tests.data.pictures import index_of, record

PARTS: tuple[SplitName, ...] = ("train", "validation", "test")


def images_of(counts: dict[str, int], part: SplitName | None = None, start: int = 0) -> list[ImageRecord]:
    return [
        record(f"{part or 'all'}/{label}/{number:03}.jpg", label=label, split=part)
        for label, count in counts.items()
        for number in range(start, start + count)
    ]


def report_of(groups: list[tuple[str, ...]] | None = None, left_out: list[LeftOut] | None = None) -> DataReport:
    return DataReport(groups=tuple(groups or ()), left_out=tuple(left_out or ()), fingerprint="")


def sizes(index: DatasetIndex, report: DataReport, split: SplitAssignment, label: str) -> dict[SplitName, int]:
    parts = images_by_split(index, report, split)
    return {part: sum(image.label == label for image in parts[part]) for part in PARTS}


def part_of(index: DatasetIndex, split: SplitAssignment) -> dict[str, SplitName]:
    return {image.path: split.splits[image.digest] for image in index.images}


class_counts = st.dictionaries(st.sampled_from(["ants", "bees", "cats", "dogs"]), st.integers(1, 60), min_size=1)


@st.composite
def grouped(draw: st.DrawFn) -> tuple[list[ImageRecord], list[tuple[str, ...]]]:
    """Images of some classes, and groups of them, some across classes."""
    images = images_of(draw(class_counts))
    number = draw(st.integers(1, len(images)))
    named = draw(st.lists(st.integers(0, number), min_size=len(images), max_size=len(images)))
    groups = [tuple(image.path for image, name in zip(images, named, strict=True) if name == wanted) for wanted in set(named)]
    return images, [group for group in groups if len(group) > 1]


@settings(max_examples=40, deadline=None)
@given(class_counts)
def test_parts_have_the_promised_sizes_per_class(counts: dict[str, int]) -> None:
    index = index_of(images_of(counts))

    split = make_split(index, report_of())

    for label, count in counts.items():
        test = max(1, int(0.2 * count + 0.5)) if count > 1 else 0
        validation = max(1, int(0.2 * (count - test) + 0.5)) if count > 2 else 0
        expected = {"train": count - test - validation, "validation": validation, "test": test}
        assert sizes(index, report_of(), split, label) == expected


@settings(max_examples=40, deadline=None)
@given(grouped(), st.integers(0, 5))
def test_no_group_straddles_and_every_image_has_a_part(
    case: tuple[list[ImageRecord], list[tuple[str, ...]]], seed: int
) -> None:
    images, groups = case
    index = index_of(images)

    parts = part_of(index, make_split(index, report_of(groups), seed=seed))

    assert len(parts) == len(images)
    assert all(len({parts[path] for path in group}) == 1 for group in groups)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=3, max_size=12))
def test_a_class_with_three_groups_is_in_every_part(group_sizes: list[int]) -> None:
    images = images_of({"ants": sum(group_sizes)})
    starts = [sum(group_sizes[:number]) for number in range(len(group_sizes))]
    groups = [
        tuple(image.path for image in images[start : start + size]) for start, size in zip(starts, group_sizes, strict=True)
    ]
    index = index_of(images)

    split = make_split(index, report_of(groups))

    assert all(sizes(index, report_of(), split, "ants").values())


@settings(max_examples=40, deadline=None)
@given(grouped(), st.randoms())
def test_the_order_of_files_and_groups_changes_nothing(
    case: tuple[list[ImageRecord], list[tuple[str, ...]]], random: Random
) -> None:
    images, groups = case
    before = make_split(index_of(images), report_of(groups), seed=3)

    random.shuffle(images)
    random.shuffle(groups)

    assert make_split(index_of(images), report_of(groups), seed=3) == before


@settings(max_examples=40, deadline=None)
@given(class_counts, class_counts, st.integers(0, 5))
def test_adding_images_moves_no_old_one(old: dict[str, int], added: dict[str, int], seed: int) -> None:
    first = index_of(images_of(old))
    saved = make_split(first, report_of(), seed=seed)
    larger = index_of([*first.images, *images_of(added, start=100)])

    split = make_split(larger, report_of(), seed=seed + 1, saved=saved)

    assert {image.digest: split.splits[image.digest] for image in first.images} == saved.splits
    assert set(split.splits) == {image.digest for image in larger.images}


@settings(max_examples=40, deadline=None)
@given(class_counts, st.sampled_from(["test", "validation"]))
def test_a_given_part_stays_as_it_is(counts: dict[str, int], part: SplitName) -> None:
    given_images = images_of(counts, part)
    index = index_of([*images_of(counts, "train"), *given_images])

    split = make_split(index, report_of())

    assert list(images_by_split(index, report_of(), split)[part]) == sorted(given_images, key=lambda image: image.path)
    assert split.test_given == (part == "test")


def test_with_a_given_test_part_a_fifth_of_train_is_validation() -> None:
    index = index_of([*images_of({"ants": 50}, "train"), *images_of({"ants": 30}, "test")])

    split = make_split(index, report_of())

    assert sizes(index, report_of(), split, "ants") == {"train": 40, "validation": 10, "test": 30}


def test_seeds_draw_differently() -> None:
    index = index_of(images_of({"ants": 50}))

    drawn = {tuple(make_split(index, report_of(), seed=seed).splits.values()) for seed in range(5)}

    assert len(drawn) == 5


def test_left_out_images_are_in_no_part() -> None:
    index = index_of(images_of({"ants": 10}))
    out = LeftOut(path=index.images[0].path, reason="copy", detail="the same bytes")

    split = make_split(index, report_of(left_out=[out]))
    parts = images_by_split(index, report_of(left_out=[out]), split)

    assert out.path not in {image.path for images in parts.values() for image in images}
    assert sum(map(len, parts.values())) == 9


def test_a_new_image_follows_the_group_that_it_joins() -> None:
    first = index_of(images_of({"ants": 20}))
    saved = make_split(first, report_of())
    new = record("all/ants/new.jpg")
    larger = index_of([*first.images, new])

    for old in first.images:
        split = make_split(larger, report_of([(old.path, new.path)]), saved=saved)
        assert split.splits[new.digest] == saved.splits[old.digest]


def test_a_new_image_like_images_on_both_sides_stays_out_with_a_note() -> None:
    first = index_of(images_of({"ants": 20}))
    saved = make_split(first, report_of())
    in_train = next(image for image in first.images if saved.splits[image.digest] == "train")
    in_test = next(image for image in first.images if saved.splits[image.digest] == "test")
    new = record("all/ants/new.jpg")

    split = make_split(index_of([*first.images, new]), report_of([(in_train.path, new.path, in_test.path)]), saved=saved)

    assert new.digest not in split.splits
    assert "1 new ones like them stay out" in split.notes[0]


def test_a_saved_place_is_remembered_while_the_image_is_away() -> None:
    everything = index_of(images_of({"ants": 20}))
    saved = make_split(everything, report_of())
    without = make_split(index_of(everything.images[:-1]), report_of(), saved=saved)

    again = make_split(everything, report_of(), saved=without)

    assert again.splits == saved.splits


def test_a_class_too_small_for_all_parts_is_noted() -> None:
    index = index_of(images_of({"ants": 2, "bees": 20}))

    split = make_split(index, report_of())

    assert sizes(index, report_of(), split, "ants") == {"train": 1, "validation": 0, "test": 1}
    assert [note.split(":")[0] for note in split.notes] == ["ants"]


@pytest.mark.parametrize("seed", range(3))
def test_the_split_survives_json(seed: int) -> None:
    index = index_of(images_of({"ants": 20}))

    split = make_split(index, report_of(), seed=seed)

    assert SplitAssignment.model_validate_json(split.model_dump_json()) == split
    assert Counter(split.splits.values()) == {"train": 13, "validation": 3, "test": 4}
