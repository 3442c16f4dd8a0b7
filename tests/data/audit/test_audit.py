"""Findings of the audit, what it leaves out, and proposed fixes."""

from __future__ import annotations

import csv
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from automl_tl.data import audit_index, check_learnable, propose_fixes, write_fixes
from automl_tl.errors import TooFewImagesError
from automl_tl.values import DataReport, DatasetIndex, Finding, ImageRecord, RejectedFile, SplitName
from tests.data.sample_images import index_of, record

NOON = datetime(2024, 5, 6, 12)


def finding(report: DataReport, code: str) -> Finding:
    (match,) = [one for one in report.findings if one.code == code]
    return match


def codes(report: DataReport) -> set[str]:
    return {one.code for one in report.findings}


def many(
    label: str,
    count: int,
    *,
    split: SplitName | None = None,
    **facts: Any,  # noqa: ANN401
) -> list[ImageRecord]:
    names = [f"{label}/{chr(97 + number % 26)}{number}x.jpg" for number in range(count)]
    return [record(name, label=label, split=split, digest="", **facts) for name in names]


def left_out(report: DataReport) -> dict[str, str]:
    return {row.path: row.reason for row in report.left_out}


def copies(*given: tuple[str, str, SplitName | None]) -> DatasetIndex:
    return index_of([record(path, label=label, split=split, digest="same") for path, label, split in given])


def test_audit_of_clean_dataset_has_statistics_and_no_warning() -> None:
    report = audit_index(index_of([*many("ants", 300), *many("bees", 300)]))

    assert codes(report) == {"images"}
    assert (report.num_warnings, report.left_out, report.groups) == (0, (), ())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([("a", "ants", None), ("b", "ants", None), ("c", "ants", None)], {"b": "copy", "c": "copy"}),
        ([("a", "ants", None), ("b", "bees", None)], {"a": "conflicting_label", "b": "conflicting_label"}),
        ([("a", "ants", "train"), ("t", "ants", "test")], {"a": "leak"}),
        ([("a", "ants", "train"), ("v", "ants", "validation"), ("t", "ants", "test")], {"a": "leak", "v": "leak"}),
        ([("a", "ants", "train"), ("v", "ants", "validation")], {"a": "leak"}),
        ([("a", "ants", None), ("t", "bees", "test")], {"a": "leak"}),
        ([("t", "ants", "test"), ("u", "ants", "test")], {"u": "copy"}),
        ([("t", "ants", "test"), ("u", "bees", "test")], {"t": "conflicting_label", "u": "conflicting_label"}),
        (
            [("a", "ants", "train"), ("b", "bees", "train"), ("t", "ants", "test")],
            {"a": "conflicting_label", "b": "conflicting_label", "t": "conflicting_label"},
        ),
    ],
)
def test_audit_leaves_out_byte_copies_by_precedence(
    given: list[tuple[str, str, SplitName | None]], expected: dict[str, str]
) -> None:
    assert left_out(audit_index(copies(*given))) == expected
    assert left_out(audit_index(copies(*reversed(given)))) == expected


def test_audit_lists_copies_conflicts_and_leaks() -> None:
    images = [
        *copies(("ants/1", "ants", "train"), ("ants/2", "ants", "train")).images,
        record("ants/3", digest="b"),
        record("bees/3", label="bees", digest="b"),
        record("train/x", split="train", digest="c"),
        record("test/x", split="test", digest="c"),
    ]

    report = audit_index(index_of(images))

    assert finding(report, "exact_copies").groups == (("ants/1", "ants/2"),)
    assert finding(report, "conflicting_labels").paths == ("ants/3", "bees/3")
    assert finding(report, "leaks").facts == {"exact": 1, "near": 0}


def test_fingerprint_depends_on_images_in_use_only() -> None:
    images = many("ants", 5)
    copied = record("zzz.jpg", digest=images[0].digest)

    plain = audit_index(index_of(images)).fingerprint

    assert audit_index(index_of(list(reversed(images)))).fingerprint == plain
    assert audit_index(index_of([*images, copied])).fingerprint == plain
    assert audit_index(index_of(images[1:])).fingerprint != plain


def test_check_learnable_refuses_unlearnable_classes() -> None:
    index = index_of([*many("ants", 20), *many("bees", 1), *many("cats", 3, split="test"), *many("dogs", 5)])
    report = audit_index(index)

    assert finding(report, "unlearnable_classes").facts == {"bees": 1, "cats": 3}
    assert finding(report, "unlearnable_classes").severity == "error"
    assert finding(report, "few_images").facts == {"dogs": 5}
    with pytest.raises(TooFewImagesError, match=r"bees: 1, cats: 3"):
        check_learnable(index, report)


def test_check_learnable_refuses_class_left_out_entirely() -> None:
    conflict = [record("ants/c", digest="x"), record("bees/c", label="bees", digest="x")]
    index = index_of([conflict[0], conflict[1], *many("ants", 20), *many("cats", 20)])

    with pytest.raises(TooFewImagesError, match="bees: 0"):
        check_learnable(index, audit_index(index))


def test_check_learnable_refuses_single_class() -> None:
    index = index_of(many("ants", 20))

    assert finding(audit_index(index), "one_class").severity == "error"
    with pytest.raises(TooFewImagesError, match="two classes"):
        check_learnable(index, audit_index(index))


@pytest.mark.parametrize(("small", "severity"), [(40, None), (15, "info"), (5, "warning")])
def test_imbalance_severity_grows_with_ratio(small: int, severity: str | None) -> None:
    report = audit_index(index_of([*many("ants", 100), *many("bees", small)]))

    assert [one.severity for one in report.findings if one.code == "imbalance"] == ([severity] if severity else [])


def test_imbalance_counts_training_images_only() -> None:
    images = [*many("ants", 60, split="train"), *many("bees", 5, split="train")]
    images += [record(f"test/{label}/{n}", label=label, split="test") for label in ("ants", "bees") for n in range(24)]

    report = audit_index(index_of(images))

    assert finding(report, "imbalance").severity == "warning"
    assert "12 times the training images of the smallest (ants 60, bees 5)" in finding(report, "imbalance").title
    assert finding(report, "few_images").facts == {"bees": 5}


def test_imbalance_of_the_test_split_alone_is_reported() -> None:
    images = [*many("ants", 50, split="train"), *many("bees", 50, split="train")]
    images += [
        record(f"test/{label}/{n}", label=label, split="test") for label, num in (("ants", 80), ("bees", 4)) for n in range(num)
    ]

    imbalance = finding(audit_index(index_of(images)), "imbalance")

    assert imbalance.severity == "warning"
    assert "20 times the test images of the smallest (ants 80, bees 4)" in imbalance.title
    assert (imbalance.facts["imbalance"], imbalance.facts["test_imbalance"]) == (1.0, 20.0)


def test_imbalance_counts_images_that_are_left() -> None:
    copied = [record(f"bees/{n}", label="bees", digest=f"{n % 5}") for n in range(60)]

    report = audit_index(index_of([*many("ants", 60), *copied]))

    assert "(ants 60, bees 5)" in finding(report, "imbalance").title


def test_imbalance_counts_the_classes_of_a_long_tail() -> None:
    images = [*many("ants", 200), *(image for number in range(9) for image in many(f"rare{number}", 12))]

    assert "9 of 10 classes have less than a tenth of the largest" in finding(audit_index(index_of(images)), "imbalance").title


def test_splits_differ_lists_classes_of_one_split_only() -> None:
    images = [record(f"{split}/{label}{n}", label=label, split=split) for split, label in SPLIT_LABELS for n in range(3)]

    difference = finding(audit_index(index_of(images)), "splits_differ")

    assert difference.facts == {"only_train": "bees", "only_test": "cats"}


SPLIT_LABELS: tuple[tuple[SplitName, str], ...] = (("train", "ants"), ("train", "bees"), ("test", "ants"), ("test", "cats"))


def test_small_test_gives_margin_of_error() -> None:
    small_test = finding(audit_index(index_of([*many("ants", 50), *many("bees", 50)])), "small_test")

    assert (small_test.severity, small_test.facts) == ("warning", {"num_test_images": 20, "margin_fraction": 0.131})


def test_metadata_leak_reports_accuracy_of_size_and_format() -> None:
    same = [*many("ants", 50), *many("bees", 50)]
    leaking = [*many("ants", 50), *many("bees", 45, width_px=300), *many("bees", 50)[45:]]

    assert "metadata_leak" not in codes(audit_index(index_of(same)))
    assert finding(audit_index(index_of(leaking)), "metadata_leak").facts == {"accuracy": 0.95, "chance": 0.5}


@pytest.mark.parametrize(
    ("code", "facts"),
    [
        ("tiny_images", {"width_px": 8}),
        ("extreme_aspect", {"width_px": 500}),
        ("blank_images", {"contrast": 0.0}),
        ("dark_images", {"brightness": 0.01}),
        ("bright_images", {"brightness": 0.99}),
        ("blurred_images", {"sharpness": 0.5}),
        ("wrong_suffixes", {"format": "PNG"}),
        ("converted_images", {"remarks": ("transparency on white",)}),
    ],
)
def test_audit_lists_unusual_images(code: str, facts: dict[str, Any]) -> None:
    odd = record("ants/odd.jpg", split=None, label="ants", digest="", **facts)

    report = audit_index(index_of([odd, *many("ants", 30, sharpness=500.0), *many("bees", 30, sharpness=500.0)]))

    assert finding(report, code).paths == ("ants/odd.jpg",)


def test_audit_ignores_what_is_common_in_dataset() -> None:
    report = audit_index(index_of([*many("ants", 300, brightness=0.99), *many("bees", 300, brightness=0.99)]))

    assert codes(report) == {"images"}


def test_audit_reports_rejected_ignored_and_empty() -> None:
    rejected = RejectedFile(path="ants/bad.jpg", label="ants", reason="truncated", detail="it ends too early")
    index = index_of(many("ants", 5), rejected=[rejected], ignored={"hidden": 2}, empty_classes=("cats",), num_files=8)

    report = audit_index(index)

    assert finding(report, "rejected_files").paths == ("ants/bad.jpg",)
    assert finding(report, "ignored_files").facts == {"hidden": 2}
    assert "cats" in finding(report, "empty_classes").title


def test_similar_class_names_differ_by_case_or_spaces() -> None:
    report = audit_index(index_of([*many("Polar Bear", 5), *many("polar_bear", 5), *many("ants", 5)]))

    assert "Polar Bear, polar_bear" in finding(report, "similar_class_names").title


def test_nested_folders_lists_images_below_class_folders() -> None:
    report = audit_index(index_of([record("ants/north/a.jpg"), *many("ants", 5)]))

    assert finding(report, "nested_folders").paths == ("ants/north/a.jpg",)


def taken(path: str, seconds: float, camera: str = "Maker 1") -> ImageRecord:
    return record(path, captured_at=NOON + timedelta(seconds=seconds), camera=camera)


def test_bursts_are_grouped_and_reported() -> None:
    images = [taken("a", 0), taken("b", 2), taken("c", 4), taken("d", 7), taken("e", 1, camera="Maker 2")]

    report = audit_index(index_of(images))

    assert report.groups == (("a", "b", "c"),)
    assert finding(report, "bursts").paths == ("a", "b", "c")


def test_bursts_exclude_cameras_on_a_timer() -> None:
    report = audit_index(index_of([taken(f"{number:02}", number) for number in range(21)]))

    assert report.groups == ()


def test_given_groups_join_bursts() -> None:
    images = [record("a", group="g"), record("b", group="g"), record("c", group="h"), taken("d", 0), taken("e", 1)]
    joined = replace(images[3], group="g")

    report = audit_index(index_of([*images[:3], joined, images[4]]))

    assert report.groups == (("a", "b", "d", "e"),)


def test_groups_across_splits_are_reported() -> None:
    images = [record("a", group="g", split="train"), record("b", group="g", split="test"), record("c", group="h", split="test")]

    assert finding(audit_index(index_of(images)), "groups_across_splits").groups == (("a", "b"),)


def test_name_groups_are_proposed_only() -> None:
    frames = [record(f"ants/{track:05}_{frame:05}.png") for track in range(8) for frame in range(3)]

    report = audit_index(index_of(frames))

    assert len(finding(report, "name_groups").groups) == 8
    assert finding(report, "name_groups").groups[0] == tuple(f"ants/00000_0000{frame}.png" for frame in range(3))
    assert report.groups == ()


@pytest.mark.parametrize("pattern", ["image_{:04}.jpg", "IMG {:04}.jpg", "{:04}.jpg", "x{:04}.jpg", "cat ({}).jpg"])
def test_name_groups_ignore_plain_numbering(pattern: str) -> None:
    report = audit_index(index_of([record(f"ants/{pattern.format(number)}") for number in range(40)]))

    assert "name_groups" not in codes(report)


def test_name_groups_warn_if_images_are_similar() -> None:
    generator = np.random.default_rng(0)
    looks = [generator.integers(0, 256, 1024, dtype=np.uint8) for _ in range(8)]
    frames = [record(f"ants/{track:05}_{frame:05}.png", digest=f"{track} {frame}") for track in range(8) for frame in range(3)]
    thumbnails = {image.digest: looks[int(image.digest[0])].tobytes() for image in frames}

    assert finding(audit_index(index_of(frames), thumbnails), "name_groups").severity == "warning"


def test_audit_sorts_findings_by_severity() -> None:
    severities = [one.severity for one in audit_index(index_of([*many("ants", 60), *many("bees", 1)])).findings]

    assert severities == sorted(severities, key=["error", "warning", "info"].index)


def test_write_fixes_keeps_any_file_name(tmp_path: Path) -> None:
    odd_name = 'ants/semi;colon,"quote"\nline.jpg'
    images = [record("ants/a", digest="x"), record("ants/b", digest="x"), record(odd_name, contrast=0.0), *many("bees", 20)]
    rejected = RejectedFile(path="ants/bad.jpg", label="ants", reason="truncated", detail="it ends too early")
    index = index_of(images, rejected=[rejected])

    write_fixes(tmp_path / "fixes.csv", propose_fixes(index, audit_index(index)))

    with (tmp_path / "fixes.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["path"], row["action"]) for row in rows] == [
        ("ants/b", "delete"),
        ("ants/bad.jpg", "replace"),
        (odd_name, "review"),
    ]


def test_report_round_trips_through_json() -> None:
    report = audit_index(index_of([*copies(("a", "ants", None), ("b", "ants", None)).images, *many("bees", 3)]))

    assert DataReport.model_validate_json(report.model_dump_json()) == report
