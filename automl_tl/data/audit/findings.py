"""Findings about files and folders, about classes, and about what the images look like."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from math import sqrt
from pathlib import PurePosixPath
from statistics import median
from typing import Final

from automl_tl.data.decode import DAMAGED
from automl_tl.data.index import exclude
from automl_tl.values import IMBALANCED, AppliedCorrections, DatasetIndex, Finding, ImageRecord, Severity, SplitName

SUFFIXES: Final = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".mpo"),
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "JPEG2000": (".jp2", ".j2k"),
}

FEW_IMAGES: Final = 10  # of a class: below, a second opinion on any of them changes the accuracy by 10 points
IMBALANCE_WARNING: Final = 10.0
SMALL_TEST: Final = 100  # images: below, the 95% interval of an accuracy of 90% is wider than 12 points
METADATA_GAIN: Final = 0.3  # share of the error of the majority class that size and format alone remove

TINY_PX: Final = 32  # shorter side; networks see such an image enlarged sevenfold
EXTREME_ASPECT: Final = 4.0  # longer by shorter side; the center square then shows less than a quarter
BLANK_CONTRAST: Final = 0.01  # standard deviation of luma; the darkest traffic signs of GTSRB have 0.015
DARK, BRIGHT = 0.06, 0.96  # mean luma
BLURRED_SHARE: Final = 0.05  # of the median sharpness of the dataset
BLURRED: Final = 20.0  # variance of the Laplacian; a photograph in focus has hundreds
UNUSUAL_SHARE: Final = 0.1  # of the images: drawings on white are all bright, which is normal there
GRAY: Final = 0.01


# --------------------------------------------------------------------------------------------------------- corrections


def correction_findings(corrections: AppliedCorrections | None, splits: Mapping[str, SplitName | None]) -> Iterator[Finding]:
    """Find what corrections changed, and those that changed nothing.

    Args:
        corrections: what was applied, if anything.
        splits: split of each image by digest, where it is known.

    Yields:
        Findings.
    """
    if corrections is None:
        return
    changed, unmatched = corrections.images, corrections.unmatched
    num_test = sum(splits.get(image.digest) == "test" for image in changed)
    yield Finding(
        code="corrections",
        severity="info",
        title=f"Corrections applied: {corrections.words}",
        why=f"They are decisions of a person in {corrections.file}."
        + (f" Test images among them: {num_test}; models are measured by the corrected labels." if num_test else ""),
        advice="The images themselves are unchanged; `tl data export` writes a corrected copy for other programs.",
        paths=tuple(image.path for image in changed) + corrections.excluded_files,
        facts={"num_test_images": num_test, "digest": corrections.digest},
    )
    if corrections.new_classes:
        named = (f"{name!r}" + (f" ({hint})" if hint else "") for name, hint in corrections.new_classes.items())
        yield Finding(
            code="new_classes",
            severity="warning",
            title=f"Classes that only corrections name: {', '.join(named)}",
            why="A misspelled class is learned as a class of its own.",
            advice="If it is misspelled, decide again in `tl review`; the last decision about an image counts.",
            paths=tuple(image.path for image in changed if image.after in corrections.new_classes),
        )
    if unmatched:
        yield Finding(
            code="unmatched_corrections",
            severity="info",
            title=f"Corrections of images that are not here: {len(unmatched)}",
            why="They are matched by the bytes of the image, so an image that was edited or deleted since has none.",
            advice="Nothing to do for deleted images; look at edited ones again.",
            paths=unmatched,
        )


# --------------------------------------------------------------------------------------------------------------- files


def file_findings(index: DatasetIndex) -> Iterator[Finding]:
    """Findings about the files, names and folders of ``index``."""
    yield from _rejected(index)
    yield from _empty_classes(index)
    yield from _similar_names(index.classes)
    yield from _nested_folders(index.images)
    yield from _wrong_suffixes(index.images)
    yield from _remarks(index.images)


def _rejected(index: DatasetIndex) -> Iterator[Finding]:
    if index.rejected:
        reasons = dict(sorted(Counter(row.reason for row in index.rejected).items()))
        yield Finding(
            code="rejected_files",
            severity="warning",
            title=f"Files that can't be used: {len(index.rejected)} ({_counted(reasons)})",
            why="They take no part in anything. Broken files often come from a download or copy that stopped midway.",
            advice="Fetch them again, repair them or delete them; every file is listed with its reason.",
            paths=tuple(row.path for row in index.rejected),
            facts=reasons,
        )
    if index.ignored:
        yield Finding(
            code="ignored_files",
            severity="info",
            title=f"Ignored files: {sum(index.ignored.values())} ({_counted(index.ignored)})",
            why="Hidden files, temporary files of editors and systems, and files of other kinds are not images.",
            advice="Nothing to do.",
            facts=dict(index.ignored),
        )


def _counted(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in reasons.items())


def _empty_classes(index: DatasetIndex) -> Iterator[Finding]:
    if index.empty_classes:
        yield Finding(
            code="empty_classes",
            severity="warning",
            title=f"Classes without a usable image: {', '.join(index.empty_classes)}",
            why="The model will not know these classes.",
            advice="Add images, or delete the folders if they are not classes.",
            facts={"num_classes": len(index.empty_classes)},
        )


def _similar_names(classes: Sequence[str]) -> Iterator[Finding]:
    by_letters: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        normalized = unicodedata.normalize("NFKC", name).casefold()
        by_letters["".join(character for character in normalized if character.isalnum())].append(name)
    similar = [names for names in by_letters.values() if len(names) > 1]
    if similar:
        listed = "; ".join(", ".join(names) for names in similar)
        yield Finding(
            code="similar_class_names",
            severity="warning",
            title=f"Classes whose names differ only by case, spaces or signs: {listed}",
            why="They are learned as different classes, and images of one are errors for the other.",
            advice="If they are one class, move the images into one folder.",
            facts={"num_classes": sum(map(len, similar))},
        )


def _nested_folders(images: Sequence[ImageRecord]) -> Iterator[Finding]:
    nested = [(image.path, image.label) for image in images if _is_nested(image.path, image.label)]
    if nested:
        labels = sorted({label for _, label in nested})
        yield Finding(
            code="nested_folders",
            severity="warning",
            title=f"Images in folders inside class folders: {len(nested)} ({', '.join(labels[:5])})",
            why="The first folder is the class; what is deeper belongs to it, whatever the inner folders are called.",
            advice="If the inner folders are the classes, move them up, or write a manifest with path and label.",
            paths=tuple(path for path, _ in nested),
            facts={"num_classes": len(labels)},
        )


def _is_nested(path: str, label: str) -> bool:
    """Whether an image lies in a subfolder of its class folder; false if the label is not a folder in the path."""
    folders = path.split("/")[:-1]
    return label in folders and folders.index(label) + 1 < len(folders)


def _wrong_suffixes(images: Sequence[ImageRecord]) -> Iterator[Finding]:
    known = [(image.path, SUFFIXES[image.format]) for image in images if image.format in SUFFIXES]
    wrong = tuple(path for path, expected in known if PurePosixPath(path).suffix.lower() not in (*expected, ""))
    if wrong:
        yield Finding(
            code="wrong_suffixes",
            severity="info",
            title=f"Files of another format than their name says: {len(wrong)}",
            why="They are read by their content; other programs may refuse them.",
            advice="Rename them when convenient.",
            paths=wrong,
        )


def _remarks(images: Sequence[ImageRecord]) -> Iterator[Finding]:
    by_remark: dict[str, list[str]] = defaultdict(list)
    for image in images:
        for remark in image.remarks:
            by_remark[remark.split(" (")[0]].append(image.path)
    if damaged := by_remark.pop(DAMAGED, None):
        yield Finding(
            code="damaged_images",
            severity="warning",
            title=f"Images that are damaged inside but can be decoded: {len(damaged)}",
            why="The decoder finished before the data ended, or a checksum is wrong; what it drew is probably noise in part.",
            advice="Review them; fetch the broken ones again or delete them. Until then they are used.",
            paths=tuple(damaged),
        )
    if by_remark:
        counts = {remark: len(paths) for remark, paths in sorted(by_remark.items())}
        yield Finding(
            code="converted_images",
            severity="info",
            title="Images that had to be converted: " + ", ".join(f"{remark} {count}" for remark, count in counts.items()),
            why="Training and prediction convert them in the same way. Stretched images lose their absolute brightness."
            if any(remark.startswith("stretched") for remark in counts)
            else "Training and prediction convert them in the same way.",
            advice="Review one of each kind; if the conversion is not what you want, convert them yourself.",
            paths=tuple(sorted({path for paths in by_remark.values() for path in paths})),
            facts=counts,
        )


# ------------------------------------------------------------------------------------------------------------- classes


def class_findings(used: Sequence[ImageRecord], classes: Sequence[str]) -> Iterator[Finding]:
    """Find problems of the classes: too few images, imbalance, splits that differ.

    Args:
        used: images that are not left out.
        classes: all classes, even those without an image in use.

    Yields:
        Findings.
    """
    if not used:
        return
    counts = Counter(dict.fromkeys(classes, 0))
    counts.update(sorted(image.label for image in used))
    yield from _few_images(used, counts)
    yield from _imbalance(used)
    yield from _splits_differ(used)
    yield from _small_test(used)
    yield from _metadata_leak(used, counts)


def _count(used: Sequence[ImageRecord], split: SplitName) -> Counter[str]:
    """Images per class in a given split; where none is given, all are training images."""
    return Counter(image.label for image in used if (image.split or "train") == split)


def _few_images(used: Sequence[ImageRecord], counts: Counter[str]) -> Iterator[Finding]:
    training_counts = Counter(image.label for image in used if image.split != "test")
    learned = _count(used, "train")
    unlearnable = sorted(name for name in counts if counts[name] < 2 or not training_counts[name])
    few = sorted(name for name in counts if name not in unlearnable and learned[name] < FEW_IMAGES)
    noun = "usable" if learned == counts else "training"
    if len(training_counts) < 2:
        yield Finding(
            code="one_class",
            severity="error",
            title="Fewer than two classes to learn from: " + (_listed(sorted(counts), counts) or "none"),
            why="A classifier distinguishes classes; with a single class there is nothing to learn.",
            advice="Add images of another class. Images without class folders need a table with path and label.",
            facts={"num_classes": len(training_counts)},
        )
    if unlearnable:
        yield Finding(
            code="unlearnable_classes",
            severity="error",
            title="Classes that can't be learned: " + _listed(unlearnable, counts),
            why="A class needs two usable images, one of them outside a given test split, to be learned and measured.",
            advice="Add images to these classes, or take their folders out; training refuses until then.",
            facts={name: counts[name] for name in unlearnable},
        )
    if few:
        yield Finding(
            code="few_images",
            severity="warning",
            title=f"Classes with fewer than {FEW_IMAGES} {noun} images: " + _listed(few, learned),
            why="With so few, both what is learned and what is measured of the class is mostly chance.",
            advice=f"Add images; {FEW_IMAGES} are a start, 50 or more are comfortable.",
            facts={name: learned[name] for name in few},
        )


def _imbalance(used: Sequence[ImageRecord]) -> Iterator[Finding]:
    """Imbalance of what is learned from, and of a given test split: either alone makes plain accuracy misleading."""
    is_given = any(image.split == "test" for image in used)
    splits: tuple[tuple[SplitName, str, str], ...] = (
        ("train", "", "training " if is_given else ""),
        ("test", "test_", "test "),
    )
    sentences, facts, worst = list[str](), dict[str, float | int | str](), 1.0
    for split, prefix, noun in splits:
        if not (counts := _count(used, split)):
            continue
        largest, smallest = (
            max(counts, key=lambda name: (counts[name], name)),
            min(counts, key=lambda name: (counts[name], name)),
        )
        ratio = counts[largest] / counts[smallest]
        worst = max(worst, ratio)
        facts |= {f"{prefix}imbalance": round(ratio, 2), f"{prefix}largest": largest, f"{prefix}smallest": smallest}
        if ratio > IMBALANCED:
            num_small = sum(count * IMBALANCE_WARNING < counts[largest] for count in counts.values())
            more = f"; {num_small} of {len(counts)} classes have less than a tenth of the largest" if num_small > 1 else ""
            figures = f"{largest} {counts[largest]}, {smallest} {counts[smallest]}{more}"
            sentences.append(f"{ratio:.0f} times the {noun}images of the smallest ({figures})")
    if sentences:
        yield Finding(
            code="imbalance",
            severity="warning" if worst > IMBALANCE_WARNING else "info",
            title="The largest class has " + ", and ".join(sentences),
            why="Plain accuracy then says little about the small classes: a model that never finds them can score well.",
            advice="Read balanced accuracy and the recall of each class; add images to the small classes.",
            facts=facts,
        )


def _splits_differ(used: Sequence[ImageRecord]) -> Iterator[Finding]:
    train = {image.label for image in used if image.split in (None, "train")}
    test = {image.label for image in used if image.split == "test"}
    only = {"train": ", ".join(sorted(train - test)), "test": ", ".join(sorted(test - train))}
    if test and train != test:
        yield Finding(
            code="splits_differ",
            severity="warning",
            title="Train and test don't have the same classes; "
            + "; ".join(f"only {split}: {names}" for split, names in only.items() if names),
            why="What only train has can't be measured; what only test has can't be learned.",
            advice="Add the missing images, or take the classes out.",
            facts={f"only_{split}": names for split, names in only.items() if names},
        )


def _small_test(used: Sequence[ImageRecord]) -> Iterator[Finding]:
    num_given = sum(image.split == "test" for image in used)
    num_images = num_given or round(0.2 * len(used))
    if 0 < num_images < SMALL_TEST:
        margin = 1.96 * sqrt(0.9 * 0.1 / num_images)
        yield Finding(
            code="small_test",
            severity="warning" if num_images < SMALL_TEST / 2 else "info",
            title=f"Images in the test split: {'' if num_given else 'about '}{num_images}",
            why=f"An accuracy of 90% on so few is known to ±{100 * margin:.0f} points; closer models cannot be distinguished.",
            advice=f"For ±5 points about 140 test images are needed{'' if num_given else ', that is 700 in all'}.",
            facts={"num_test_images": num_images, "margin_fraction": round(margin, 3)},
        )


def _metadata_leak(used: Sequence[ImageRecord], counts: Counter[str]) -> Iterator[Finding]:
    """Predict each label by a vote of the other images with the same width, height, format and mode."""
    labels_of: dict[tuple[int, int, str, str], Counter[str]] = defaultdict(Counter)
    for image in used:
        labels_of[image.width_px, image.height_px, image.format, image.mode][image.label] += 1
    right = sum(
        number
        for labels in labels_of.values()
        for label, number in labels.items()
        if (others := labels - Counter([label])) and others.most_common(1)[0][0] == label
    )
    accuracy, chance = right / len(used), max(counts.values()) / len(used)
    if len(counts) > 1 and accuracy - chance > METADATA_GAIN * (1 - chance):
        yield Finding(
            code="metadata_leak",
            severity="warning",
            title=f"Size and format alone predict the class of {accuracy:.0%} of the images (chance: {chance:.0%})",
            why="The classes seem to come from different sources; a model may learn the source instead of the subject.",
            advice="Collect all classes in the same way, or bring all images to one size and format, and test on new ones.",
            facts={"accuracy": round(accuracy, 3), "chance": round(chance, 3)},
        )


def _listed(names: Sequence[str], counts: Counter[str]) -> str:
    return ", ".join(f"{name} ({counts[name]})" for name in names[:8]) + (" ..." if len(names) > 8 else "")


# -------------------------------------------------------------------------------------------------------------- images


def image_findings(used: Sequence[ImageRecord]) -> Iterator[Finding]:
    """Findings about how the images ``used`` look."""
    if not used:
        return
    shorter = [min(image.width_px, image.height_px) for image in used]
    longer = [max(image.width_px, image.height_px) for image in used]
    yield _statistics(used, shorter, max(longer))
    tiny = tuple(image.path for image, side in zip(used, shorter, strict=True) if side < TINY_PX)
    yield from _listed_images(
        tiny,
        code="tiny_images",
        title=f"Images less than {TINY_PX} px high or wide",
        severity="info" if len(tiny) > len(used) / 2 else "warning",
        why="They are enlarged many times, and little detail is left.",
        advice="Use larger originals if there are any.",
    )
    sides = zip(used, shorter, longer, strict=True)
    yield from _listed_images(
        tuple(image.path for image, short, long in sides if long > EXTREME_ASPECT * short),
        code="extreme_aspect",
        title=f"Images more than {EXTREME_ASPECT:.0f} times as long as wide",
        severity="warning",
        why="The network sees only the center square.",
        advice="Crop them to what matters.",
    )
    blank = tuple(image.path for image in used if image.contrast < BLANK_CONTRAST)
    yield from _listed_images(
        blank,
        code="blank_images",
        title="Images with almost no contrast",
        severity="warning",
        why="An image without contrast teaches a class nothing, or something wrong.",
        advice="Review them, and delete those on which you can't tell the class.",
    )
    yield from _hard_to_see(exclude(used, blank))


def _hard_to_see(images: Sequence[ImageRecord]) -> Iterator[Finding]:
    blurred = min(BLURRED, BLURRED_SHARE * median(image.sharpness for image in images)) if images else 0.0
    for code, title, paths in (
        ("dark_images", "Very dark images", [image.path for image in images if image.brightness < DARK]),
        ("bright_images", "Very bright images", [image.path for image in images if image.brightness > BRIGHT]),
        ("blurred_images", "Images much less sharp than the rest", [i.path for i in images if i.sharpness < blurred]),
    ):
        yield from _listed_images(
            paths if len(paths) <= UNUSUAL_SHARE * len(images) else (),
            code=code,
            title=title,
            severity="info",
            why="Their content is hard to see, so their labels may be guesses.",
            advice="Review them, and delete those on which you can't tell the class.",
        )


def _statistics(used: Sequence[ImageRecord], shorter: Sequence[int], longest: int) -> Finding:
    gray = sum(image.color < GRAY for image in used) / len(used)
    formats = Counter(image.format for image in used).most_common(4)
    mixed = 0.02 < gray < 0.98
    return Finding(
        code="images",
        severity="info",
        title=f"Images in use: {len(used)}; shorter side {min(shorter)} to {max(shorter)} px (median {median(shorter):.0f}), "
        f"{gray:.0%} gray, " + ", ".join(f"{number} {name}" for name, number in formats),
        why="Gray and colored images are mixed; check that color doesn't follow the class." if mixed else "For the record.",
        advice="Nothing to do.",
        facts={
            "num_images": len(used),
            "min_side_px": min(shorter),
            "median_side_px": median(shorter),
            "max_side_px": longest,
            "gray_fraction": round(gray, 3),
            "median_brightness": round(median(image.brightness for image in used), 3),
            "median_sharpness": round(median(image.sharpness for image in used), 1),
        },
    )


def _listed_images(
    paths: Sequence[str], *, code: str, title: str, severity: Severity, why: str, advice: str
) -> Iterator[Finding]:
    if paths:
        title = f"{title}: {len(paths)}"
        yield Finding(code=code, severity=severity, title=title, why=why, advice=advice, paths=tuple(paths))
