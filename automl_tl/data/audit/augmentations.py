"""Augmentations that a tool wrote to files: which images come from one source image, by their names.

Names that only one tool writes are acted upon: drawn splits keep such images together, and training images whose source image
is in a given test split are left out. Names that people also give to other images are only proposed, and only if the images
look alike.
"""

from __future__ import annotations

import posixpath
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import inf
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from automl_tl.data.audit.groups import precedence
from automl_tl.values import Finding, ImageRecord, LeftOut

ImageGroups = tuple[tuple[ImageRecord, ...], ...]

# Roboflow: photo_jpg.rf.<32 hexadecimal digits>.jpg. Augmentor: <class>_original_<file name>_<uuid>.<format>.
_UUID: Final = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
EXPORTED: Final = (
    re.compile(r"(?P<source>.+?)\.rf\.[0-9a-f]{32}(?![0-9a-f])", re.IGNORECASE),
    re.compile(rf".*?_original_(?P<source>.+)_{_UUID}", re.IGNORECASE),
)
ENCODED_SUFFIX: Final = re.compile(r"_(?:jpe?g|png|bmp|webp|tiff?|gif|heic|avif)$", re.IGNORECASE)  # photo_jpg.rf....

_OPERATION: Final = (
    r"(?:aug(?:ment(?:ed|ation)?)?|[hv]?flip(?:ped|lr|ud|[hv])?|mirror(?:ed)?|rot(?:at(?:e|ed|ion))?|crop(?:ped)?|blur(?:red)?"
    r"|nois[ey]|bright(?:er|ness)?|dark(?:er)?|contrast|zoom(?:ed)?|shear(?:ed)?|shift(?:ed)?|translat(?:ed?|ion)|scaled?"
    r"|jitter|gr[ae]y(?:scale)?|hue|saturat(?:ed|ion)|gamma|clahe|sharp(?:en(?:ed)?)?|elastic|cutout|distort(?:ed|ion)?"
    r"|transform(?:ed)?|copy)\d*"
)
_DETAIL: Final = r"(?:\d+|[hvxy]|lr|ud|left|right|up|down|hor(?:iz(?:ontal)?)?|vert?(?:ical)?)"
APPENDED: Final = re.compile(
    rf"(?P<source>.+?)(?:[ _.\-]+{_OPERATION}(?:[ _.\-(]+{_DETAIL}\)?)*)+", re.IGNORECASE
)  # photo_aug_3, photo_flip_lr, photo - Copy (2)
PREPENDED: Final = re.compile(
    rf"(?:{_OPERATION}(?:[ _.\-]+\d+)?[ _.\-]+)+(?:of )?(?P<source>.+)", re.IGNORECASE
)  # aug_3_photo, Copy of photo
BRACKETED: Final = re.compile(r"(?P<source>.+?) ?\(\d{1,3}\)")  # photo (1), where there is also a photo
KERAS: Final = re.compile(r"(?P<source>.*_\d+)_\d{1,7}")  # <prefix>_<index>_<random number> of ImageDataGenerator

# Rank of an image's namesake among the other images of its class, by likeness and by brightness, contrast and color: 0.5 if the
# name means nothing. Pairs of augmentations on 14 datasets: 0.60 to 0.86 with the usual settings of Keras, 0.54 to 0.91 with
# flips, quarter turns and crops, 0.52 to 0.74 with turns by any angle (lowest: drawings and digits). So a likely name needs
# likeness beyond chance, and only clear unlikeness counts against a certain one.
MIN_RANK_PROPOSED: Final = 0.6
MAX_RANK_UNLIKE: Final = 0.6
RANK_DEVIATION: Final = 0.25  # of one rank by chance: the mean of two that are partly dependent
ERRORS_PROPOSED, ERRORS_UNLIKE = 2.0, 1.64  # standard errors
MAX_COMPARED: Final = 500  # groups
MAX_OTHERS: Final = 24  # images of the class, for each group
SIDE_PX: Final = 32
AUGMENTED: Final = "an augmentation of the same image"  # begins the detail of a row


class Exports(NamedTuple):
    """Images of one source image each, by names that only one tool writes."""

    groups: ImageGroups
    unlike: ImageGroups  # the names say one source image in two given splits, the images say otherwise


def find_exports(images: Sequence[ImageRecord], thumbnails: Mapping[str, bytes]) -> Exports:
    """Group exported augmentations by class and source image.

    Names that restart in every split are no leak: if images of one name in two given splits are no more alike than others of
    their class, they are grouped within each split only.

    Args:
        images: sorted by path.
        thumbnails: of the images, by digest; without them, names are trusted.
    """
    groups = _export_groups(images)
    across = tuple(group for group in groups if is_across_splits(group))
    rank, error = _mean_rank(across, images, thumbnails)
    is_unlike = rank + ERRORS_UNLIKE * error < MAX_RANK_UNLIKE
    return Exports(_within_splits(groups), across) if is_unlike else Exports(groups, ())


def _export_groups(images: Sequence[ImageRecord]) -> ImageGroups:
    by_source: dict[tuple[str, str], list[ImageRecord]] = defaultdict(list)
    for image in images:
        if (source := _source_of_export(posixpath.basename(image.path))) is not None:
            by_source[image.label, source].append(image)
    # Augmentor keeps the file name of the source image, which is often there as well.
    originals: dict[tuple[str, str], list[ImageRecord]] = defaultdict(list)
    for image in images:
        if (key := (image.label, posixpath.basename(image.path))) in by_source:
            originals[key].append(image)
    for key, candidates in originals.items():
        if len(candidates) == 1:
            by_source[key] += candidates
    return _sorted_groups(by_source.values())


def _source_of_export(name: str) -> str | None:
    """Name of the image that ``name`` was made from, ``None`` if it is not an export; exports of exports are followed back."""
    source = None
    while match := EXPORTED[0].match(source or name) or EXPORTED[1].match(source or name):
        source = match["source"]
    return source


def leave_out_exports(exports: Exports) -> Iterator[LeftOut]:
    """Images whose source image is in a given test or validation split as well."""
    for group in exports.groups:
        stays = min(group, key=lambda image: precedence(image.split))
        detail = f"{AUGMENTED} is in the {stays.split} split: {stays.path}"
        for image in group:
            if precedence(image.split) != precedence(stays.split):
                yield LeftOut(path=image.path, reason="leak", detail=detail)


def propose_augmentations(images: Sequence[ImageRecord], thumbnails: Mapping[str, bytes]) -> ImageGroups:
    """Groups of images that are augmentations or copies of one image by common names, and that look alike.

    Args:
        images: sorted by path.
        thumbnails: of the images, by digest; without them, nothing is proposed.
    """
    by_kind = (_named_groups(images, source_of) for source_of in (_source_of_operation, _source_of_generator))
    return _sorted_groups(group for groups in by_kind for group in _alike(groups, images, thumbnails))


def _named_groups(images: Sequence[ImageRecord], source_of: Callable[[str], str | None]) -> ImageGroups:
    """Groups of two or more images per class and source, the source image itself included."""
    by_source: dict[tuple[str, str], list[ImageRecord]] = defaultdict(list)
    plain: dict[tuple[str, str], list[ImageRecord]] = defaultdict(list)
    for image in images:
        stem = _stem(image.path)
        source = source_of(stem)
        (plain[image.label, stem] if source is None else by_source[image.label, source]).append(image)
    groups = []
    for (label, source), derived in by_source.items():
        group = [*derived, *(plain[label, source] or plain[label, source.removesuffix("_0")])]
        if not all(BRACKETED.fullmatch(_stem(image.path)) for image in group):  # photo (1), photo (2): numbers only
            groups.append(group)
    return _sorted_groups(groups)


def _stem(path: str) -> str:
    name = posixpath.basename(path)
    source = _source_of_export(name)
    return posixpath.splitext(name)[0] if source is None else ENCODED_SUFFIX.sub("", source)


def _source_of_operation(stem: str) -> str | None:
    match = APPENDED.fullmatch(stem) or PREPENDED.fullmatch(stem) or BRACKETED.fullmatch(stem)
    return match["source"] if match else None


def _source_of_generator(stem: str) -> str | None:
    match = KERAS.fullmatch(stem)
    return match["source"] if match else None


def _alike(groups: ImageGroups, images: Sequence[ImageRecord], thumbnails: Mapping[str, bytes]) -> ImageGroups:
    """``groups`` if their images look alike; those within each split if only these do; otherwise none."""
    across = tuple(group for group in groups if is_across_splits(group))
    within = _within_splits(groups)
    for candidates, compared in ((groups, across or groups), (within, within)):
        rank, error = _mean_rank(compared, images, thumbnails)
        if rank >= MIN_RANK_PROPOSED and rank - ERRORS_PROPOSED * error > 0.5:
            return candidates
    return ()


def is_across_splits(group: Iterable[ImageRecord]) -> bool:
    """Whether the source itself puts images of ``group`` into several splits."""
    return len({precedence(image.split) for image in group}) > 1


def _within_splits(groups: ImageGroups) -> ImageGroups:
    """``groups``, divided by split."""
    by_split: dict[tuple[int, int], list[ImageRecord]] = defaultdict(list)
    for number, group in enumerate(groups):
        for image in group:
            by_split[number, precedence(image.split)].append(image)
    return _sorted_groups(by_split.values())


def _sorted_groups(groups: Iterable[Sequence[ImageRecord]]) -> ImageGroups:
    inside = (tuple(sorted(group, key=lambda image: image.path)) for group in groups if len(group) > 1)
    return tuple(sorted(inside, key=lambda group: group[0].path))


# ---------------------------------------------------------------------------------------------------------------- looks


def _mean_rank(groups: ImageGroups, images: Sequence[ImageRecord], thumbnails: Mapping[str, bytes]) -> tuple[float, float]:
    """How often an image is more like one of its group than like others of its class and split, and the standard error.

    Args:
        groups: of the images.
        images: to compare with.
        thumbnails: by digest.

    Returns:
        Mean over the groups, 0 to 1, 0.5 by chance; the error is infinite without anything to compare.
    """
    peers: dict[tuple[str, int], list[ImageRecord]] = defaultdict(list)
    for image in images if groups else ():
        peers[image.label, precedence(image.split)].append(image)
    sampled = {key: few[:: max(1, len(few) // MAX_OTHERS)] for key, few in peers.items()}
    ranks = []
    for group in groups[:: max(1, len(groups) // MAX_COMPARED)]:
        first, second = _pair(group)
        members = {image.path for image in group}
        peers_of_second = sampled[second.label, precedence(second.split)]
        others = [image for image in peers_of_second if image.path not in members and image.digest in thumbnails]
        if others and first.digest in thumbnails and second.digest in thumbnails:
            compared = (first, second, *others)
            distances = (1 - _likeness(*(thumbnails[image.digest] for image in compared)), _tone_distances(compared))
            ranks += [
                float((farther[1:] > farther[0]).mean() + (farther[1:] == farther[0]).mean() / 2) for farther in distances
            ]
    return (float(np.mean(ranks)), RANK_DEVIATION / (len(ranks) / 2) ** 0.5) if ranks else (0.5, inf)


def _pair(group: Sequence[ImageRecord]) -> tuple[ImageRecord, ImageRecord]:
    """Two images of ``group``, of different splits if there are such."""
    ranked = sorted(group, key=lambda image: (precedence(image.split), image.path))
    return ranked[0], ranked[-1]


def _likeness(image: bytes, *others: bytes) -> NDArray[np.float32]:
    """Correlation of the thumbnail ``image`` with each of ``others``, the best of the eight flips and quarter turns."""
    pixels = np.frombuffer(b"".join((image, *others)), dtype=np.uint8).reshape(-1, SIDE_PX, SIDE_PX).astype(np.float32)
    pixels -= pixels.mean(axis=(1, 2), keepdims=True)
    pixels /= np.maximum(np.linalg.norm(pixels, axis=(1, 2), keepdims=True), 1e-6)
    turned = np.stack([np.rot90(side, quarter) for side in (pixels[0], pixels[0].T) for quarter in range(4)])
    return np.asarray((pixels[1:].reshape(len(others), -1) @ turned.reshape(len(turned), -1).T).max(axis=1))


def _tone_distances(images: Sequence[ImageRecord]) -> NDArray[np.float64]:
    """Distance of the first image from each of the others in brightness, contrast and color, which flips and turns keep."""
    tones = np.array([(image.brightness, image.contrast, image.color) for image in images])
    deviations = tones.std(axis=0)
    return np.asarray(np.linalg.norm((tones[1:] - tones[0]) / np.where(deviations > 0, deviations, 1.0), axis=1))


# ------------------------------------------------------------------------------------------------------------- findings


def augmentation_findings(exports: Exports, proposed: ImageGroups) -> Iterator[Finding]:
    """Findings about exported augmentations.

    Args:
        exports: by certain names.
        proposed: by likely names and looks.
    """
    yield from _exported(exports)
    if proposed:
        num_across = sum(map(is_across_splits, proposed))
        yield Finding(
            code="augmented_names",
            severity="warning",
            title=f"Images that seem to come from one image or scene, by name and look: {_sizes(proposed)}"
            + (f", {num_across} of them in more than one given split" if num_across else ""),
            why="Augmentations of one image on both sides of a split make a number too good.",
            advice="They may be split. If they belong together, write a manifest with path,label,group (see `--fix`).",
            paths=_paths(proposed),
            groups=tuple(tuple(image.path for image in group) for group in proposed),
            facts={"num_groups": len(proposed), "num_across_splits": num_across},
        )


def _exported(exports: Exports) -> Iterator[Finding]:
    across = tuple(group for group in exports.groups if is_across_splits(group))
    if across:
        pair = _pair(across[0])
        title = (
            f"Augmentations of one image in more than one given split: {_sizes(across)}, such as {pair[0].path}, {pair[1].path}"
        )
        advice = "The copies in training are left out, and the test split stays whole. Split the images before augmenting them."
    elif exports.unlike:
        title = f"Names of one image in more than one given split, but different images: {_sizes(exports.unlike)}"
        advice = "Nothing is left out: the names seem to restart in every split. Check that the images are different."
    elif exports.groups:
        title = f"Exported augmentations: {_sizes(exports.groups)}"
        advice = "They are kept on one side of the split. All images of a group count little more than one."
    else:
        return
    shown = across or exports.unlike or exports.groups
    yield Finding(
        code="augmentations",
        severity="warning" if across or exports.unlike else "info",
        title=title,
        why="Augmentations of one image on both sides of a split make a number too good.",
        advice=advice,
        paths=_paths(shown),
        groups=() if shown is exports.unlike else tuple(tuple(image.path for image in group) for group in shown),
        facts={"num_groups": len(exports.groups), "num_across_splits": len(across)},
    )


def _paths(groups: ImageGroups) -> tuple[str, ...]:
    return tuple(image.path for group in groups for image in group)


def _sizes(groups: ImageGroups) -> str:
    return f"{sum(map(len, groups))} images in {len(groups)} group{'s' * (len(groups) > 1)}"
