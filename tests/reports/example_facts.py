"""Example facts that fill every section of a report, with hostile names."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import numpy as np
from PIL import Image

from automl_tl.evaluation import evaluate
from automl_tl.evaluation.abstention import guarantee_error_rate
from automl_tl.evaluation.learning_curve import learning_curve
from automl_tl.reports import FitHistory, LabelIssue, ReportFacts, TestedImage
from automl_tl.values import (
    CandidateVerdict,
    DataReport,
    DatasetIndex,
    DatasetProfile,
    Estimate,
    Finding,
    ImageRecord,
    LeftOut,
    Plan,
    Preprocessing,
    Recipe,
    RejectedFile,
    SplitAssignment,
    SplitName,
)

HOSTILE = "<script>alert('x')</script>"
CLASSES = (HOSTILE, "crazing", "inclusion", "patches", "rolled-in scale", "scratches & dents")
NUM_IMAGES = 180
CREATED_AT = datetime(2026, 3, 5, 14, 30, tzinfo=UTC)


def example_facts() -> ReportFacts:
    """Facts of a fit on six classes; deterministic."""
    generator = np.random.default_rng(0)
    labels = np.arange(NUM_IMAGES) % 6
    logits = generator.normal(size=(NUM_IMAGES, 6)) * 1.2
    logits[np.arange(NUM_IMAGES), labels] += 3.5
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    predicted = probabilities.argmax(axis=1)
    paths = [f"test/{CLASSES[label]}/image {number:03}.jpg" for number, label in enumerate(labels)]
    features = generator.normal(size=(NUM_IMAGES, 64)) + 1.1 * np.eye(6, 64)[labels] * 4
    images, splits = example_images(paths, labels)
    return ReportFacts(
        model="steel-defects@3",
        created_at=CREATED_AT,
        index=DatasetIndex(
            root="steel",
            source="class_folders",
            classes=CLASSES,
            images=images,
            rejected=(RejectedFile(path="a.jpg", reason="truncated", detail="it ends too early"),),
            ignored={"hidden": 2},
            num_files=len(images) + 3,
        ),
        data=example_report(paths),
        split=SplitAssignment(seed=0, test_given=True, splits=splits),
        plan=example_plan(),
        fit=example_fit(paths),
        evaluation=evaluate(labels, probabilities, CLASSES),
        tested=tuple(
            TestedImage(
                path=path,
                label=CLASSES[label],
                predicted=CLASSES[best],
                probability=float(row[best]),
                true_probability=float(row[label]),
            )
            for path, label, best, row in zip(paths, labels, predicted, probabilities, strict=True)
        ),
        learning=learning_curve(features, labels, CLASSES),
        abstentions=tuple(guarantee_error_rate(labels, probabilities, rate) for rate in (0.1, 0.05, 0.01)),
        seconds=74.2,
        latency_ms=11.3,
        size_mib=13.1,
        provenance={"automl-tl": "0.1.0", "torch": "2.15.0", "machine": "x86_64, 2 cores"},
    )


def example_images(paths: list[str], labels: np.ndarray) -> tuple[tuple[ImageRecord, ...], dict[str, SplitName]]:
    """Records of the test images and of as many training images, with the split of each."""
    both: list[tuple[str, int, SplitName]] = [(path, int(label), "test") for path, label in zip(paths, labels, strict=True)]
    both += [(path.replace("test/", "train/", 1), label, "train") for path, label, _ in both]
    records = tuple(
        ImageRecord(
            path=path,
            label=CLASSES[label],
            digest=f"{number:064x}",
            num_bytes=9000,
            width_px=200,
            height_px=200,
            format="JPEG",
            mode="RGB",
        )
        for number, (path, label, _) in enumerate(both)
    )
    return records, {record.digest: split for record, (_, _, split) in zip(records, both, strict=True)}


def example_report(paths: list[str]) -> DataReport:
    """An audit with a finding of each severity."""
    return DataReport(
        findings=(
            Finding(code="dark", severity="info", title="3 very dark images", why="Dark images say little.", advice="Look."),
            Finding(
                code="near_duplicates",
                severity="warning",
                title="6 images are near-duplicates",
                why="Copies on both sides of a split make the figures too good.",
                advice="They are kept on one side.",
                paths=tuple(paths[:6]),
                groups=(tuple(paths[:3]), tuple(paths[3:6])),
            ),
            Finding(
                code="conflicting_labels",
                severity="error",
                title="2 images carry two labels",
                why="An image has one label.",
                advice="Decide which label is right.",
                paths=tuple(paths[6:8]),
            ),
        ),
        left_out=(LeftOut(path=paths[6], reason="conflicting_labels", detail="two labels"),),
        fingerprint="ab" * 32,
    )


def example_plan() -> Plan:
    """A plan with three candidates."""
    best = Estimate(accuracy=0.85, accuracy_interval=(0.79, 0.9), seconds=60, latency_ms=10, size_mib=13)
    worse = Estimate(accuracy=0.8, accuracy_interval=(0.73, 0.86), seconds=35)
    return Plan(
        backbone="lite/efficientnet_lite0",
        strategy="tail",
        recipe=Recipe(),
        preprocessing=Preprocessing(side_px=224),
        profile=DatasetProfile(
            num_images=180,
            num_test_images=180,
            num_classes=6,
            images_per_class=dict.fromkeys(CLASSES, 30),
            min_images_per_class=30,
            imbalance=1,
            median_side_px=200,
            max_side_px=200,
            gray_fraction=1,
            num_groups=174,
            num_duplicates=0,
            fingerprint="ab" * 32,
        ),
        expected=best,
        reasons=("the images are unlike photographs: features must move", "the cheapest within one standard error of the best"),
        candidates=(
            CandidateVerdict(
                backbone="lite/efficientnet_lite0", strategy="tail", estimate=best, verdict="chosen", reason="cheapest"
            ),
            CandidateVerdict(
                backbone="lite/efficientnet_lite2", strategy="tail", estimate=best, verdict="tied", reason="larger"
            ),
            CandidateVerdict(
                backbone="lite/efficientnet_lite0",
                strategy="linear_probe",
                estimate=worse,
                verdict="rejected",
                reason="-5 points",
            ),
        ),
        changes=("from 400 images on, fine-tuning everything would be tried",),
    )


def example_fit(paths: list[str]) -> FitHistory:
    """A fit of eight epochs."""
    return FitHistory(
        curves=tuple(
            {
                "phase": "tail",
                "epoch": epoch + 1,
                "loss": 1.7 * 0.7**epoch + 0.1,
                "validation_loss": 1.8 * 0.75**epoch + 0.3,
                "validation_accuracy": 0.9 - 0.5 * 0.6**epoch,
            }
            for epoch in range(8)
        ),
        seconds={"features": 12.5, "training": 55.0},
        notes=("no flips: mirrored images are not recognized as well",),
        findings=(
            Finding(code="outliers", severity="info", title="Like no other: 1", why="Odd.", advice="Look.", paths=(paths[3],)),
        ),
        label_issues=(LabelIssue(path=paths[1], label=CLASSES[1], suggested=CLASSES[2], probability=0.98),),
    )


def example_thumbnail(path: str) -> bytes:
    """A small image whose color depends on the path."""
    color = tuple(80 + (sum(path.encode()) * factor) % 120 for factor in (1, 7, 13))
    target = io.BytesIO()
    Image.new("RGB", (64, 64), color).save(target, "PNG")
    return target.getvalue()
