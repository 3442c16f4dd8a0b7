"""Findings about files and folders: what could not be read, what was left aside, what names and folders suggest."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Final

from automl_tl.data.decoding import DAMAGED
from automl_tl.values import DatasetIndex, Finding, ImageRecord

__all__ = ["file_findings"]

SUFFIXES: Final = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".mpo"),
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
}


def file_findings(index: DatasetIndex, images: Sequence[ImageRecord]) -> Iterator[Finding]:
    """What is worth saying about the files of ``index``, which holds ``images``."""
    yield from _rejected(index)
    yield from _ignored(index)
    yield from _empty_classes(index)
    yield from _similar_names(index.classes)
    yield from _deep_folders(images)
    yield from _wrong_suffixes(images)
    yield from _remarks(images)


def _rejected(index: DatasetIndex) -> Iterator[Finding]:
    if not index.rejected:
        return
    reasons = Counter(row.reason for row in index.rejected)
    yield Finding(
        code="rejected_files",
        severity="warning",
        title=f"Files that can't be used: {len(index.rejected)} ("
        + ", ".join(f"{number} {reason.replace('_', ' ')}" for reason, number in sorted(reasons.items()))
        + ")",
        why="They take no part in anything. Broken files often come from a download or copy that stopped midway.",
        advice="Fetch them again, repair them or delete them; every file is listed with its reason.",
        paths=tuple(row.path for row in index.rejected),
        facts=dict(sorted(reasons.items())),
    )


def _ignored(index: DatasetIndex) -> Iterator[Finding]:
    if index.ignored:
        yield Finding(
            code="ignored_files",
            severity="info",
            title=f"Files left aside: {sum(index.ignored.values())} ("
            + ", ".join(f"{count} {why.replace('_', ' ')}" for why, count in index.ignored.items())
            + ")",
            why="Hidden files, litter of editors and systems, and files of other kinds are no images.",
            advice="Nothing to do.",
            facts=dict(index.ignored),
        )


def _empty_classes(index: DatasetIndex) -> Iterator[Finding]:
    if index.empty_classes:
        yield Finding(
            code="empty_classes",
            severity="warning",
            title=f"Classes without a usable image: {', '.join(index.empty_classes)}",
            why="The model will not know these classes.",
            advice="Add images, or delete the folders if they are no classes.",
            facts={"num_classes": len(index.empty_classes)},
        )


def _similar_names(classes: Sequence[str]) -> Iterator[Finding]:
    by_plain: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        plain = unicodedata.normalize("NFKC", name).casefold()
        by_plain["".join(character for character in plain if character.isalnum())].append(name)
    alike = [names for names in by_plain.values() if len(names) > 1]
    if alike:
        yield Finding(
            code="similar_class_names",
            severity="warning",
            title="Classes whose names differ only by case, spaces or signs: " + "; ".join(", ".join(names) for names in alike),
            why="They are learned as different classes, and images of one are errors for the other.",
            advice="If they are one class, move the images into one folder.",
            facts={"num_classes": sum(map(len, alike))},
        )


def _deep_folders(images: Sequence[ImageRecord]) -> Iterator[Finding]:
    deep = [(image.path, image.label) for image in images if _is_deep(image.path, image.label)]
    if deep:
        labels = sorted({label for _, label in deep})
        yield Finding(
            code="nested_folders",
            severity="warning",
            title=f"Images in folders inside class folders: {len(deep)} ({', '.join(labels[:5])})",
            why="The first folder is the class; what lies deeper belongs to it, whatever the inner folders are called.",
            advice="If the inner folders are the classes, move them up, or write a manifest with path and label.",
            paths=tuple(path for path, _ in deep),
            facts={"num_classes": len(labels)},
        )


def _is_deep(path: str, label: str) -> bool:
    """Whether an image lies further below its class folder; not if the label is no folder of the path."""
    folders = PurePosixPath(path).parts[:-1]
    return label in folders and folders.index(label) + 1 < len(folders)


def _wrong_suffixes(images: Sequence[ImageRecord]) -> Iterator[Finding]:
    known = [image for image in images if image.format in SUFFIXES]
    wrong = tuple(image.path for image in known if _suffix(image.path) not in (*SUFFIXES[image.format], ""))
    if wrong:
        yield Finding(
            code="wrong_suffixes",
            severity="info",
            title=f"Files of another format than their name says: {len(wrong)}",
            why="They are read by their content; other programs may refuse them.",
            advice="Rename them when convenient.",
            paths=wrong,
        )


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


def _remarks(images: Sequence[ImageRecord]) -> Iterator[Finding]:
    by_remark: dict[str, list[str]] = defaultdict(list)
    for image in images:
        for remark in image.remarks:
            by_remark[remark.split(" (")[0]].append(image.path)
    damaged = by_remark.pop(DAMAGED, None)
    if damaged:
        yield Finding(
            code="damaged_images",
            severity="warning",
            title=f"JPEGs that are damaged inside but can be decoded: {len(damaged)}",
            why="The decoder had its image before the data was at an end; most of what it drew is probably noise.",
            advice="Look at them; fetch the broken ones again or delete them. Until then they are used.",
            paths=tuple(damaged),
        )
    if by_remark:
        yield Finding(
            code="converted_images",
            severity="info",
            title="Images that had to be converted: "
            + ", ".join(f"{remark} {len(paths)}" for remark, paths in sorted(by_remark.items())),
            why="Training and prediction convert them in the same way.",
            advice="Look at one of each kind; if the conversion is not what you want, convert them yourself.",
            paths=tuple(sorted({path for paths in by_remark.values() for path in paths})),
            facts={remark: len(paths) for remark, paths in sorted(by_remark.items())},
        )
