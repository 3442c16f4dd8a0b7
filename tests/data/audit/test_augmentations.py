"""Exported augmentations: grouped by certain names, left out across given splits, proposed by likely names that look alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import md5
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from numpy.typing import NDArray

from automl_tl.data import audit_index, images_by_split, make_split, propose_fixes
from automl_tl.values import DataReport, Finding, ImageRecord, SplitName
from automl_tl.workflows.check import check
from tests.data.sample_images import encoded, index_of, record, sample_image


def roboflow(source: str, number: int) -> str:
    """The name that Roboflow gives to export ``number`` of an image."""
    return f"{source}_jpg.rf.{md5(f'{source} {number}'.encode()).hexdigest()}.jpg"


def augmentor(source: str, number: int) -> str:
    """The name that Augmentor gives to augmentation ``number`` of an image of the class ants."""
    return f"ants_original_{source}.jpg_{UUID(md5(f'{source} {number}'.encode()).hexdigest())}.JPEG"


def finding(report: DataReport, code: str) -> Finding:
    (match,) = [one for one in report.findings if one.code == code]
    return match


def codes(report: DataReport) -> set[str]:
    return {one.code for one in report.findings}


def look(seed: int) -> NDArray[np.uint8]:
    """A thumbnail that no other seed resembles."""
    return np.random.default_rng(seed).integers(0, 256, (32, 32), dtype=np.uint8)


def thumbnails_of(images: Sequence[ImageRecord], looks: Sequence[NDArray[np.uint8]]) -> dict[str, bytes]:
    return {image.digest: np.ascontiguousarray(pixels).tobytes() for image, pixels in zip(images, looks, strict=True)}


@pytest.mark.parametrize("name", [roboflow, augmentor])
def test_augmentations_of_certain_names_stay_together(name: object) -> None:
    assert callable(name)
    images = [record(f"ants/{name(f'IMG_{source}', number)}") for source in range(12) for number in range(3)]
    images += [record(f"bees/{number}b.jpg", label="bees") for number in range(30)]
    index = index_of(images)

    report = audit_index(index)

    assert [len(group) for group in report.groups] == [3] * 12
    assert finding(report, "augmentations").severity == "info"
    splits = images_by_split(index, report, make_split(index, report))
    sources = [
        {re.findall(r"IMG_\d+", image.path)[0] for image in records if image.label == "ants"} for records in splits.values()
    ]
    assert sum(map(len, sources)) == len(set.union(*sources)) == 12


def test_augmentations_include_the_original_that_augmentor_names() -> None:
    images = [record("ants/a.jpg"), record("ants/b.jpg"), record(f"ants/output/{augmentor('a', 0)}")]

    assert audit_index(index_of(images)).groups == (("ants/a.jpg", f"ants/output/{augmentor('a', 0)}"),)


def test_augmentations_skip_originals_whose_name_occurs_twice() -> None:
    images = [record("ants/1/a.jpg"), record("ants/2/a.jpg"), record(f"ants/output/{augmentor('a', 0)}")]

    assert audit_index(index_of(images)).groups == ()


def test_augmentations_of_augmentations_lead_to_the_first_image() -> None:
    twice = augmentor("a", 0).removeprefix("ants_original_")
    again = f"ants_original_ants_original_{twice}_{UUID(int=7)}.JPEG"
    images = [record(f"ants/{augmentor('a', 1)}"), record(f"ants/{again}")]

    assert len(audit_index(index_of(images)).groups) == 1


def test_augmentations_across_given_splits_are_left_out_of_training() -> None:
    names: list[tuple[SplitName, int, int]] = [("train", 0, 0), ("train", 0, 1), ("train", 1, 0), ("validation", 2, 0)]
    names += [("test", 0, 2), ("test", 2, 1), ("test", 3, 0)]
    images = [record(f"{split}/ants/{roboflow(f'p{source}', number)}", split=split) for split, source, number in names]

    report = audit_index(index_of(images))

    assert {row.path for row in report.left_out} == {images[0].path, images[1].path, images[3].path}
    assert {row.reason for row in report.left_out} == {"leak"}
    assert "is in the test split: test/ants/p0_jpg.rf." in report.left_out[0].detail
    assert finding(report, "leaks").facts == {"exact": 0, "near": 0, "augmented": 3}
    assert finding(report, "augmentations").severity == "warning"
    assert finding(report, "augmentations").facts["num_across_splits"] == 2
    assert {fix.action for fix in propose_fixes(index_of(images), report) if fix.path == images[0].path} == {"delete", "group"}


def test_augmentations_are_separate_per_class() -> None:
    images = [
        record(f"train/ants/{roboflow('1', 0)}", split="train"),
        record(f"test/bees/{roboflow('1', 1)}", label="bees", split="test"),
    ]

    assert audit_index(index_of(images)).left_out == ()


@pytest.mark.parametrize("is_same", [True, False])
def test_names_that_restart_in_every_split_are_no_leak(is_same: bool) -> None:
    splits: tuple[SplitName, ...] = ("train", "test")
    images = [record(f"{split}/ants/{roboflow(str(n), len(split))}", split=split) for n in range(40) for split in splits]
    looks = [np.rot90(look(at // 2), at % 4) if is_same else look(at) for at in range(80)]

    report = audit_index(index_of(images), thumbnails_of(images, looks))

    assert len(report.left_out) == (40 if is_same else 0)
    assert finding(report, "augmentations").severity == "warning"
    assert ("different images" in finding(report, "augmentations").title) == (not is_same)


@pytest.mark.parametrize(
    "pattern",
    [
        *("{}_aug_3", "{}_flip", "{}_rot90", "{}-hflip", "{} - Copy", "{} - Copy (2)", "{}_copy", "{} (1)", "aug_2_{}"),
        *("Copy of {}", "{}_flip_lr_rot_90", "{}_0_8374", "flipped_{}", "{}_brightness_1"),
    ],
)
@pytest.mark.parametrize("is_alike", [True, False])
def test_likely_names_are_proposed_if_the_images_look_alike(pattern: str, is_alike: bool) -> None:
    images = [record(f"ants/{name}.jpg") for n in range(6) for name in (f"bug{n}x", pattern.format(f"bug{n}x"))]
    looks = [np.fliplr(look(at // 2)) if is_alike and at % 2 else look(at // 2 if is_alike else at) for at in range(12)]

    report = audit_index(index_of(images), thumbnails_of(images, looks))

    assert report.groups == ()
    assert report.left_out == ()
    assert ("augmented_names" in codes(report)) == is_alike
    if is_alike:
        assert finding(report, "augmented_names").groups == tuple(
            tuple(sorted((images[at].path, images[at + 1].path))) for at in _order(images)
        )
        assert finding(report, "augmented_names").severity == "warning"


def _order(images: Sequence[ImageRecord]) -> list[int]:
    """Places of the first of every two images, as the groups are sorted."""
    return sorted(range(0, len(images), 2), key=lambda at: min(images[at].path, images[at + 1].path))


def test_likely_names_across_given_splits_are_counted() -> None:
    images = [record(f"train/ants/bug{n}x.jpg", split="train") for n in range(6)]
    images += [record(f"test/ants/bug{n}x_flip.jpg", split="test") for n in range(6)]
    looks = [look(n) for n in range(6)] + [np.fliplr(look(n)) for n in range(6)]

    report = audit_index(index_of(images), thumbnails_of(images, looks))

    assert report.left_out == ()
    assert finding(report, "augmented_names").facts == {"num_groups": 6, "num_across_splits": 6}


def test_generated_names_without_an_original_are_proposed() -> None:
    images = [record(f"ants/cat{source}_0_{1000 + number}.jpeg") for source in range(5) for number in range(0, 90, 30)]
    looks = [np.rot90(look(at // 3), at % 3) for at in range(15)]

    report = audit_index(index_of(images), thumbnails_of(images, looks))

    assert finding(report, "augmented_names").facts["num_groups"] == 5
    assert "name_groups" not in codes(report)


@pytest.mark.parametrize(
    "pattern",
    [
        *("IMG_{:04}.jpg", "rose_{}.jpg", "rose ({}).jpg", "2021_03_{:04}.jpg", "DSC_1_{}.jpg", "frame_{}_dark.jpg"),
        *("crop_{}.jpg", "a.rf.{:04}.jpg", "my_original_{}.jpg", "photo_aug_{}.jpg", "{}_jpg.rf.jpg", "copy ({}).jpg"),
    ],
)
def test_ordinary_names_are_not_grouped(pattern: str) -> None:
    images = [record(f"ants/{pattern.format(number)}") for number in range(40)]

    report = audit_index(index_of(images), thumbnails_of(images, [look(at) for at in range(40)]))

    assert report.groups == ()
    assert codes(report).isdisjoint({"augmentations", "augmented_names", "name_groups"})


def test_check_leaves_out_rotated_exports_of_test_images(tmp_path: Path) -> None:
    for split, labels in {"train": ("ants", "bees"), "test": ("ants", "bees")}.items():
        for place, label in enumerate(labels):
            folder = tmp_path / split / label
            folder.mkdir(parents=True)
            for number in range(6):
                image = sample_image(100 * place + number).rotate(17 if split == "train" else 0)
                (folder / roboflow(f"{label}{number}", len(split))).write_bytes(encoded(image))
            (folder / "own.jpg").write_bytes(encoded(sample_image(50 + 100 * place + len(split))))
            (folder / "own2.jpg").write_bytes(encoded(sample_image(60 + 100 * place + len(split))))

    result = check(tmp_path)

    assert len(result.report.left_out) == 12
    assert {row.path.split("/")[0] for row in result.report.left_out} == {"train"}
