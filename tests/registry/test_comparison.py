from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from automl_tl_registry import Metrics, Registry, write_tensors
from automl_tl_registry.comparison import changed_images, compare, mcnemar_p, paired_interval
from automl_tl_registry.contents import read_corrected_labels, read_predictions, write_corrected_labels
from automl_tl_registry.errors import InvalidBlobError
from tests.registry.registry_fakes import facts, image_digests, predictions, publish, publish_said


# Reference values by scipy 1.17: binomtest(k, n, 0.5).pvalue.
@pytest.mark.parametrize(
    ("gained", "lost", "expected"), [(0, 0, 1.0), (5, 0, 0.0625), (10, 2, 0.03857421875), (3, 4, 1.0), (60, 30, 0.00206027)]
)
def test_mcnemar_p_matches_scipy(gained: int, lost: int, expected: float) -> None:
    assert mcnemar_p(gained, lost) == pytest.approx(expected, rel=1e-3)
    assert mcnemar_p(lost, gained) == mcnemar_p(gained, lost)


def test_paired_interval_has_its_nominal_coverage() -> None:
    generator = np.random.default_rng(3)
    truth = 0.02
    draws = generator.multinomial(120, [0.06, 0.04, 0.9], size=4000)

    covered = [low <= truth <= high for low, high in (paired_interval(b, c, 120, confidence=0.9) for b, c, _ in draws)]

    assert 0.88 <= np.mean(covered) <= 0.96


def test_changed_images_list_both_predictions(work: Path) -> None:
    before = read_predictions(predictions(work / "a", [0, 1, 1, 2], [0, 1, 2, 0]), ["ant", "bee", "wasp"])
    after = read_predictions(predictions(work / "b", [0, 2, 2, 1], [0, 1, 2, 0]), ["ant", "bee", "wasp"])

    changed = changed_images(before, after)

    assert [(each.kind, each.label, each.before, each.after) for each in changed] == [
        ("gained", "wasp", "bee", "wasp"),
        ("lost", "bee", "bee", "wasp"),
        ("both wrong", "ant", "wasp", "bee"),
    ]
    assert compare(before, after).difference == 0
    assert all(len(each.digest) == 64 for each in changed)


def test_compare_with_itself_is_empty(work: Path) -> None:
    once = read_predictions(predictions(work / "a", [0, 1, 1, 2], [0, 1, 2, 0]), ["ant", "bee", "wasp"])

    found = compare(once, once)

    assert (found.gained, found.lost, found.log_loss_difference, found.p_value) == (0, 0, 0.0, 1.0)
    assert changed_images(once, once) == []


def test_diff_lists_settings_classes_data_and_metrics(registry: Registry, work: Path) -> None:
    publish(registry, work, plan={"epochs": 3}, data={"num_images": 10})
    worse = Metrics(accuracy=0.8, interval=(0.7, 0.9), num_images=100, calibration_error=0.02)
    publish(registry, work, plan={"epochs": 5}, data={"num_images": 12}, classes=["ant", "bee", "fly"], metrics=worse)

    found = registry.diff("insects@1", "insects@2")

    assert [(each.key, each.before, each.after) for each in found.settings] == [("plan.epochs", 3, 5)]
    assert (found.classes_added, found.classes_removed) == (("fly",), ("wasp",))
    assert [(each.key, each.before, each.after) for each in found.data] == [("num_images", 10, 12)]
    assert [each.key for each in found.metrics] == ["metrics.accuracy", "metrics.interval"]
    assert found.comparison is None


def test_diff_lists_each_changed_image(registry: Registry, work: Path) -> None:
    publish_said(registry, work, [0, 1, 2, 2], [0, 1, 2, 0])
    publish_said(registry, work, [0, 1, 1, 0], [0, 1, 2, 0])

    found = registry.diff("insects@1", "insects@2")

    assert found.comparison is not None
    assert (found.comparison.gained, found.comparison.lost, len(found.changed)) == (1, 1, 2)
    assert found.changed[0].digest == image_digests(1, first=3)[0].tobytes().hex()


def test_diff_lists_added_removed_relabeled_and_moved_images(registry: Registry, work: Path) -> None:
    import numpy as np

    for first, label, part in ((0, [0, 1, 2], [0, 1, 2]), (1, [2, 2, 0], [1, 0, 0])):
        tensors = {"image_digest": image_digests(3, first), "label": np.array(label), "part": np.array(part, np.uint8)}
        registry.publish("insects", {"images": write_tensors(work / "images", tensors)}, facts())
    digests = [row.tobytes().hex() for row in image_digests(4)]

    found = registry.diff("insects@1", "insects@2").images

    assert found is not None
    assert (found.added, found.removed) == ({"train": (digests[3],)}, {"train": (digests[0],)})
    assert (found.relabeled, found.moved) == ((digests[1],), (digests[2],))


def test_diff_lists_what_corrections_changed(registry: Registry, work: Path) -> None:
    digests = [row.tobytes().hex() for row in image_digests(5)]
    ants = [(digest, f"ant/{at}.jpg", "ant") for at, digest in enumerate(digests)]
    versions = (  # of five images of ants: labels and numbers of the images in use, and corrections
        ([1, 0, 0, 0, 0], [0, 1, 2, 3, 4], [(*ants[0], "bee")]),
        ([0, 2, 0], [0, 2, 4], [(*ants[2], "wasp"), (*ants[3], None), (digests[1], "gone.jpg", "ant", None)]),
    )
    for label, images, corrections in versions:
        tensors = {
            "image_digest": image_digests(5)[images],
            "label": np.array(label),
            "part": np.zeros(len(images), np.uint8),
        }
        blobs = {
            "images": write_tensors(work / "images", tensors),
            "corrections": write_corrected_labels(work / "corrections", corrections),
        }
        registry.publish("insects", blobs, facts())

    found = registry.diff("insects@1", "insects@2").corrected

    assert [(each.kind, each.path, each.before, each.after) for each in found] == [
        ("corrected", "ant/2.jpg", "ant", "wasp"),
        ("excluded", "ant/3.jpg", "ant", None),
        ("excluded", "gone.jpg", "ant", None),
        ("undone", "ant/0.jpg", "bee", "ant"),
    ]
    assert registry.diff("insects@1", "insects@1").corrected == ()


def test_publish_refuses_malformed_corrections(registry: Registry, work: Path) -> None:
    file = write_corrected_labels(work / "corrections", [("0" * 64, "a.jpg", "ant", "bee")])
    file.write_bytes(file.read_bytes().replace(b'\\"ant\\", ', b"         "))

    with pytest.raises(InvalidBlobError, match="expected corrections"):
        registry.publish("insects", {"corrections": file}, facts())
    with pytest.raises(InvalidBlobError, match="expected corrections"):
        read_corrected_labels(write_tensors(work / "images", {"label": np.zeros(1)}))
