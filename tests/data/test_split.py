"""The split: sizes, whole groups, and nothing moves once it is saved."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl_tl.data import assign_splits, audit_index, images_by_split, make_split, open_source, read_split, save_split, scan
from automl_tl.errors import BrokenSourceError
from automl_tl.values import DataReport, DatasetIndex, ImageRecord, LeftOut, SplitAssignment, SplitName
from tests.data.sample_images import index_of, record, write_tree

SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


def images_of(counts: dict[str, int], name: SplitName | None = None, start: int = 0) -> list[ImageRecord]:
    return [
        record(f"{name or 'all'}/{label}/{number:03}.jpg", label=label, split=name)
        for label, count in counts.items()
        for number in range(start, start + count)
    ]


def report_of(groups: list[tuple[str, ...]] | None = None, left_out: list[LeftOut] | None = None) -> DataReport:
    return DataReport(groups=tuple(groups or ()), left_out=tuple(left_out or ()), fingerprint="")


def sizes(index: DatasetIndex, report: DataReport, split: SplitAssignment, label: str) -> dict[SplitName, int]:
    splits = images_by_split(index, report, split)
    return {name: sum(image.label == label for image in splits[name]) for name in SPLITS}


def splits_of(index: DatasetIndex, split: SplitAssignment) -> dict[str, SplitName]:
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


@settings(max_examples=25, deadline=None)
@given(class_counts)
def test_make_split_draws_promised_fractions_per_class(counts: dict[str, int]) -> None:
    index = index_of(images_of(counts))

    split = make_split(index, report_of())

    for label, count in counts.items():
        test = max(1, int(0.2 * count + 0.5)) if count > 1 else 0
        validation = max(1, int(0.2 * (count - test) + 0.5)) if count > 2 else 0
        expected = {"train": count - test - validation, "validation": validation, "test": test}
        assert sizes(index, report_of(), split, label) == expected


@settings(max_examples=25, deadline=None)
@given(grouped(), st.integers(0, 5))
def test_make_split_keeps_groups_together(case: tuple[list[ImageRecord], list[tuple[str, ...]]], seed: int) -> None:
    images, groups = case
    index = index_of(images)

    splits = splits_of(index, make_split(index, report_of(groups), seed=seed))

    assert len(splits) == len(images)
    assert all(len({splits[path] for path in group}) == 1 for group in groups)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=3, max_size=12))
def test_make_split_puts_three_groups_in_every_split(group_sizes: list[int]) -> None:
    images = images_of({"ants": sum(group_sizes)})
    starts = [sum(group_sizes[:number]) for number in range(len(group_sizes))]
    groups = [
        tuple(image.path for image in images[start : start + size]) for start, size in zip(starts, group_sizes, strict=True)
    ]
    index = index_of(images)

    split = make_split(index, report_of(groups))

    assert all(sizes(index, report_of(), split, "ants").values())


@settings(max_examples=25, deadline=None)
@given(grouped(), st.randoms())
def test_make_split_does_not_depend_on_order(case: tuple[list[ImageRecord], list[tuple[str, ...]]], random: Random) -> None:
    images, groups = case
    before = make_split(index_of(images), report_of(groups), seed=3)

    random.shuffle(images)
    random.shuffle(groups)

    assert make_split(index_of(images), report_of(groups), seed=3) == before


@settings(max_examples=25, deadline=None)
@given(class_counts, class_counts, st.integers(0, 5))
def test_make_split_keeps_saved_images_in_place(old: dict[str, int], added: dict[str, int], seed: int) -> None:
    first = index_of(images_of(old))
    saved = make_split(first, report_of(), seed=seed)
    larger = index_of([*first.images, *images_of(added, start=100)])

    split = make_split(larger, report_of(), seed=seed + 1, saved=saved)

    assert {image.digest: split.splits[image.digest] for image in first.images} == saved.splits
    assert set(split.splits) == {image.digest for image in larger.images}


@settings(max_examples=25, deadline=None)
@given(class_counts, st.sampled_from(["test", "validation"]))
def test_make_split_keeps_given_splits(counts: dict[str, int], name: SplitName) -> None:
    given_images = images_of(counts, name)
    index = index_of([*images_of(counts, "train"), *given_images])

    split = make_split(index, report_of())

    assert list(images_by_split(index, report_of(), split)[name]) == sorted(given_images, key=lambda image: image.path)
    assert split.test_given == (name == "test")


def test_make_split_takes_validation_from_train_if_test_is_given() -> None:
    index = index_of([*images_of({"ants": 50}, "train"), *images_of({"ants": 30}, "test")])

    split = make_split(index, report_of())

    assert sizes(index, report_of(), split, "ants") == {"train": 40, "validation": 10, "test": 30}


def test_make_split_depends_on_seed() -> None:
    index = index_of(images_of({"ants": 50}))

    drawn = {tuple(make_split(index, report_of(), seed=seed).splits.values()) for seed in range(5)}

    assert len(drawn) == 5


def test_images_by_split_skips_left_out_images() -> None:
    index = index_of(images_of({"ants": 10}))
    out = LeftOut(path=index.images[0].path, reason="copy", detail="the same bytes")

    split = make_split(index, report_of(left_out=[out]))
    splits = images_by_split(index, report_of(left_out=[out]), split)

    assert out.path not in {image.path for images in splits.values() for image in images}
    assert sum(map(len, splits.values())) == 9


def test_make_split_puts_new_image_with_its_group() -> None:
    first = index_of(images_of({"ants": 20}))
    saved = make_split(first, report_of())
    new = record("all/ants/new.jpg")
    larger = index_of([*first.images, new])

    for old in first.images:
        split = make_split(larger, report_of([(old.path, new.path)]), saved=saved)
        assert split.splits[new.digest] == saved.splits[old.digest]


def test_make_split_leaves_out_new_image_between_saved_splits() -> None:
    first = index_of(images_of({"ants": 20}))
    saved = make_split(first, report_of())
    in_train = next(image for image in first.images if saved.splits[image.digest] == "train")
    in_test = next(image for image in first.images if saved.splits[image.digest] == "test")
    new = record("all/ants/new.jpg")

    split = make_split(index_of([*first.images, new]), report_of([(in_train.path, new.path, in_test.path)]), saved=saved)

    assert new.digest not in split.splits
    assert "1 new ones like them are left out" in split.notes[0]


def test_make_split_remembers_missing_images() -> None:
    everything = index_of(images_of({"ants": 20}))
    saved = make_split(everything, report_of())
    without = make_split(index_of(everything.images[:-1]), report_of(), saved=saved)

    again = make_split(everything, report_of(), saved=without)

    assert again.splits == saved.splits


def test_make_split_notes_small_class() -> None:
    index = index_of(images_of({"ants": 2, "bees": 20}))

    split = make_split(index, report_of())

    assert sizes(index, report_of(), split, "ants") == {"train": 1, "validation": 0, "test": 1}
    assert [note.split(":")[0] for note in split.notes] == ["ants"]


@pytest.mark.parametrize("seed", range(3))
def test_assignment_round_trips_through_json(seed: int) -> None:
    index = index_of(images_of({"ants": 20}))

    split = make_split(index, report_of(), seed=seed)

    assert SplitAssignment.model_validate_json(split.model_dump_json()) == split
    assert Counter(split.splits.values()) == {"train": 13, "validation": 3, "test": 4}


# saved splits


def two_classes(count: int) -> DatasetIndex:
    return index_of([record(f"{label}/{number:03}.jpg", label=label) for label in ("ants", "bees") for number in range(count)])


EMPTY_REPORT = DataReport(fingerprint="")


def test_assign_splits_keeps_saved_split(tmp_path: Path) -> None:
    old, _ = assign_splits(two_classes(50), EMPTY_REPORT, folder=tmp_path)
    save_split(tmp_path, two_classes(50), old)

    new, _ = assign_splits(two_classes(90), EMPTY_REPORT, folder=tmp_path)

    assert {digest: new.splits[digest] for digest in old.splits} == old.splits
    assert len(new.splits) == 180


def test_assign_splits_moves_images_without_saved_split() -> None:
    old, _ = assign_splits(two_classes(50), EMPTY_REPORT)

    new, _ = assign_splits(two_classes(90), EMPTY_REPORT)

    assert {digest: new.splits[digest] for digest in old.splits} != old.splits


def test_save_split_separates_seeds_and_sources(tmp_path: Path) -> None:
    one, other = two_classes(20), two_classes(20).model_copy(update={"root": "elsewhere"})
    split, _ = assign_splits(one, EMPTY_REPORT, seed=1)

    assert len({save_split(tmp_path, one, split), save_split(tmp_path, other, split)}) == 2
    assert assign_splits(one, EMPTY_REPORT, seed=2, folder=tmp_path) == assign_splits(one, EMPTY_REPORT, seed=2)


@pytest.mark.usefixtures("windows")
def test_save_split_replaces_the_earlier_one_and_leaves_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split, _ = assign_splits(two_classes(20), EMPTY_REPORT)
    first, second = (save_split(tmp_path, two_classes(20), split) for _ in range(2))
    assert first == second
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("the disk is gone")))

    with pytest.raises(OSError, match="the disk is gone"):
        save_split(tmp_path, two_classes(20), split)
    assert list(tmp_path.iterdir()) == [first]


def test_assign_splits_reports_damaged_file(tmp_path: Path) -> None:
    split, _ = assign_splits(two_classes(5), EMPTY_REPORT)
    file = save_split(tmp_path, two_classes(5), split)
    assert read_split(file) == split
    file.write_text("{}")

    with pytest.raises(BrokenSourceError, match="split the images again"):
        assign_splits(two_classes(5), EMPTY_REPORT, folder=tmp_path)


def test_assign_splits_leaves_out_image_between_splits(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "images", {"ants": 25, "bees": 25})
    index = scan(open_source(root))
    report = audit_index(index)
    saved, _ = assign_splits(index, report)
    of = {image.path: image for image in index.images}
    new = "ants/000.jpg"
    test, train = (
        next(path for path, image in of.items() if path != new and saved.splits[image.digest] == name)
        for name in ("test", "train")
    )
    without = {digest: name for digest, name in saved.splits.items() if digest != of[new].digest}
    joined = report.model_copy(update={"groups": ((new, test, train),)})

    split, extended = assign_splits(index, joined, saved=saved.model_copy(update={"splits": without}))

    assert [(row.path, row.reason) for row in extended.left_out] == [(new, "between_splits")]
    assert extended.fingerprint != joined.fingerprint
    assert sum(map(len, images_by_split(index, extended, split).values())) + len(extended.left_out) == len(index.images)


def test_make_split_of_large_groups_comes_near_the_promised_fraction() -> None:
    index = index_of(images_of({"ants": 72}))
    paths = [image.path for image in index.images]
    blocks = [tuple(paths[start : start + 14]) for start in range(0, 70, 14)]

    counts = sizes(index, report_of(blocks), make_split(index, report_of(blocks)), "ants")

    assert 14 <= counts["test"] <= 16
    assert 14 <= counts["validation"] <= 16
