"""Findings about classes: too few images, imbalance, parts that differ, and what gives a class away without looking."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from math import sqrt
from typing import Final

from automl_tl.values import Finding, ImageRecord

__all__ = ["class_findings"]

FEW: Final = 10  # images of a class: below, a second opinion on any of them changes the accuracy by 10 points
IMBALANCE_TOLD, IMBALANCE_WARNED = 3.0, 10.0
SMALL_TEST: Final = 100  # images: below, the 95% interval of an accuracy of 90% is wider than 12 points
TELLING: Final = 0.3  # share of the classes' uncertainty that size and format alone take away


def class_findings(used: Sequence[ImageRecord], classes: Sequence[str]) -> Iterator[Finding]:
    """What is worth saying about ``classes``, of which the images ``used`` are left."""
    counts = _counts(used, classes)
    if not used:
        return
    yield from _few(used, counts)
    yield from _imbalance(counts)
    yield from _parts(used)
    yield from _small_test(used)
    yield from _telling_files(used, counts)


def _counts(used: Iterable[ImageRecord], classes: Iterable[str]) -> Counter[str]:
    """Images of each class, in the order of ``classes``."""
    counts = Counter(dict.fromkeys(classes, 0))
    counts.update(sorted(image.label for image in used))
    return counts


def _few(used: Sequence[ImageRecord], counts: Counter[str]) -> Iterator[Finding]:
    learnable = _counts((image for image in used if image.split != "test"), counts)
    impossible = sorted(name for name in counts if counts[name] < 2 or not learnable[name])
    few = sorted(name for name in counts if name not in impossible and counts[name] < FEW)
    if sum(count > 0 for count in learnable.values()) < 2:
        yield Finding(
            code="one_class",
            severity="error",
            title="Fewer than two classes to learn from: " + (_listed(sorted(counts), counts) or "none"),
            why="A classifier tells classes apart; of one there is nothing to tell.",
            advice="Add images of another class. Images without class folders need a table with path and label.",
            facts={"num_classes": sum(count > 0 for count in learnable.values())},
        )
    if impossible:
        yield Finding(
            code="unlearnable_classes",
            severity="error",
            title="Classes that can't be learned: " + _listed(impossible, counts),
            why="A class needs two usable images, one of them outside a given test part, to be learned and measured.",
            advice="Add images to these classes, or take their folders out; training refuses until then.",
            facts={name: counts[name] for name in impossible},
        )
    if few:
        yield Finding(
            code="few_images",
            severity="warning",
            title=f"Classes with fewer than {FEW} usable images: " + _listed(few, counts),
            why="With so few, both what is learned and what is measured of the class is mostly chance.",
            advice=f"Add images; {FEW} are a start, 50 or more are comfortable.",
            facts={name: counts[name] for name in few},
        )


def _imbalance(counts: Counter[str]) -> Iterator[Finding]:
    (most, largest), (least, smallest) = counts.most_common()[0], (+counts).most_common()[-1]
    ratio = largest / smallest
    if ratio > IMBALANCE_TOLD:
        yield Finding(
            code="imbalance",
            severity="warning" if ratio > IMBALANCE_WARNED else "info",
            title=f"The largest class has {ratio:.0f} times the images of the smallest ({most} {largest}, {least} {smallest})",
            why="Plain accuracy then says little about the small classes.",
            advice="Read balanced accuracy and the recall of each class; add images to the small classes.",
            facts={"imbalance": round(ratio, 2), "largest": most, "smallest": least},
        )


def _parts(used: Sequence[ImageRecord]) -> Iterator[Finding]:
    placed = {(image.label, image.split or "train") for image in used}
    classes = {part: {label for label, where in placed if where == part} for part in ("train", "test")}
    only = {"train": sorted(classes["train"] - classes["test"]), "test": sorted(classes["test"] - classes["train"])}
    if not classes["test"] or not any(only.values()):
        return
    said = [f"only {part}: {', '.join(names)}" for part, names in only.items() if names]
    yield Finding(
        code="parts_differ",
        severity="warning",
        title="Train and test don't have the same classes; " + "; ".join(said),
        why="What only train has can't be measured; what only test has can't be learned.",
        advice="Add the missing images, or take the classes out.",
        facts={f"only_{part}": ", ".join(names) for part, names in only.items() if names},
    )


def _small_test(used: Sequence[ImageRecord]) -> Iterator[Finding]:
    given = sum(image.split == "test" for image in used)
    number = given or round(0.2 * len(used))
    if number >= SMALL_TEST or number == 0:
        return
    margin = 1.96 * sqrt(0.9 * 0.1 / number)
    yield Finding(
        code="small_test",
        severity="warning" if number < SMALL_TEST / 2 else "info",
        title=f"Images in the test part: {'' if given else 'about '}{number}",
        why=f"An accuracy of 90% on so few is known to ±{100 * margin:.0f} points; closer models cannot be distinguished.",
        advice=f"For ±5 points about 140 test images are needed{'' if given else ', that is 700 in all'}.",
        facts={"num_test_images": number, "margin_fraction": round(margin, 3)},
    )


def _telling_files(used: Sequence[ImageRecord], counts: Counter[str]) -> Iterator[Finding]:
    """Classes that width, height, format and mode give away: every image is judged by the others that are like it."""
    labels_of: dict[tuple[int, int, str, str], Counter[str]] = defaultdict(Counter)
    for image in used:
        labels_of[image.width_px, image.height_px, image.format, image.mode][image.label] += 1
    right = sum(number for labels in labels_of.values() for label, number in labels.items() if _is_told(label, labels))
    accuracy, chance = right / len(used), max(counts.values()) / len(used)
    if len(counts) > 1 and accuracy - chance > TELLING * (1 - chance):
        yield Finding(
            code="telling_files",
            severity="warning",
            title=f"Size and format of the files alone tell the class in {accuracy:.0%} of the images (guessing: {chance:.0%})",
            why="The classes seem to come from different sources; a model may learn the source instead of the subject.",
            advice="Collect all classes in the same way, or bring all images to one size and format, and test on new ones.",
            facts={"accuracy": round(accuracy, 3), "chance": round(chance, 3)},
        )


def _is_told(label: str, labels: Counter[str]) -> bool:
    """Whether most of the other images that look like one of ``label`` have its label."""
    others = labels - Counter([label])
    return bool(others) and others.most_common(1)[0][0] == label


def _listed(names: Sequence[str], counts: Counter[str]) -> str:
    return ", ".join(f"{name} ({counts[name]})" for name in names[:8]) + (" ..." if len(names) > 8 else "")
