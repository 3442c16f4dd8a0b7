"""The layout of a tree: which folders are classes, which are splits, and when that cannot be told.

Names of folders and files decide, on disk and in archives alike; no image is opened. A folder called like a split is never
a class. Where two readings are equally likely, the tree is refused. docs/decisions/0048 has the rules and their reasons.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple, Protocol, final

from automl_tl.data.image_formats import IMAGE_SUFFIXES, RAW_SUFFIXES, has_image_suffix, looks_like_image, other_kind
from automl_tl.data.sources.source import SPLIT_NAMES, Entry
from automl_tl.errors import LayoutError
from automl_tl.values import SplitName

LITTER_NAMES: Final = frozenset(
    ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "__pycache__", "@eadir", "lost+found")
) | {"$recycle.bin", "system volume information"}
LITTER_SUFFIXES: Final = (".tmp", ".part", ".crdownload", "~")
MAX_WRAPPERS: Final = 5
MAX_DEPTH: Final = 12  # in which images are looked for by name
MAX_NAMED: Final = 4  # folders in a message


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words that say nothing about the class in the name of a split folder: train_images, test-set, val2017.
FILLERS: Final = _words(
    "set sets data dataset images image imgs img pics pictures photos split part folder dir files jpg jpeg png raw unlabeled"
)
CONTAINERS: Final = _words("images image imgs img pictures pics photos jpegimages data dataset jpg jpeg png")
ANNOTATIONS: Final = _words(
    "labels label masks mask annotations annotation annots ground_truth groundtruth gt xml xmls bboxes boxes lists imagesets "
    "segmentationclass segmentationobject trimaps attributes metadata"
)
CHUNKS: Final = _words("part parts batch chunk shard fold folds split images image imgs img data folder disk archive")

DATE_OR_CAMERA: Final = r"(19|20)\d\d[-_.]?[01]\d[-_.]?[0-3]\d\b|\d{3}[A-Z_]{5}$"

EXPECTED: Final = "one folder of images per class, or train/ and test/ with one folder per class in each"
FORCE: Final = "If these folders are the classes all the same, add --classes-are-folders"


def ignore_reason(path: str) -> str | None:
    """Why a file at ``path`` is ignored because of a name in it, if so."""
    for name in path.split("/"):
        if name.startswith(".") and name != ".":
            return "hidden"
        if name.lower() in LITTER_NAMES or name.lower().endswith(LITTER_SUFFIXES):
            return "litter"
    return None


# ------------------------------------------------------------------------------------------------------------ listings


class Content(NamedTuple):
    """What is directly inside a folder: names of folders and of files that are not images, and whether images are."""

    folders: list[str]
    has_images: bool
    others: list[str]


class Listing(Protocol):
    """The folders of a tree, named by their paths relative to its root, ``""``."""

    def content(self, folder: str) -> Content:
        """What is directly inside, sorted; empty for a folder that is not there or cannot be listed."""

    def paths(self) -> Iterator[str]:
        """Paths of all files that are not ignored."""


@final
class PathListing:
    """A tree given by the paths of its files."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = [path for path in paths if not ignore_reason(path)]
        folders: defaultdict[str, set[str]] = defaultdict(set)
        others: defaultdict[str, list[str]] = defaultdict(list)
        self._with_images: set[str] = set()
        for path in self._paths:
            *parents, name = PurePosixPath(path).parts
            for depth, folder in enumerate(parents):
                folders["/".join(parents[:depth])].add(folder)
            parent = "/".join(parents)
            if has_image_suffix(name):
                self._with_images.add(parent)
            else:
                others[parent].append(name)
        self._folders, self._others = dict(folders), dict(others)

    def content(self, folder: str) -> Content:
        """What is directly inside."""
        names, others = self._folders.get(folder, ()), self._others.get(folder, ())
        return Content(sorted(names), folder in self._with_images, sorted(others))

    def paths(self) -> Iterator[str]:
        """Paths of all files that are not ignored."""
        return iter(self._paths)


@final
class DiskListing:
    """A tree on disk, links to folders included, but for links to a parent of theirs. Each folder is listed once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._contents: dict[str, Content] = {}

    def content(self, folder: str) -> Content:
        """What is directly inside."""
        if folder not in self._contents:
            self._contents[folder] = self._list(folder)
        return self._contents[folder]

    def paths(self) -> Iterator[str]:
        """Paths of all files that are not ignored; links to folders are not followed."""
        for parent, folders, files in os.walk(self._root):
            folders[:] = sorted(name for name in folders if not ignore_reason(name))
            for name in sorted(files):
                if not ignore_reason(name):
                    yield os.path.relpath(f"{parent}/{name}", self._root).replace(os.sep, "/")

    def _list(self, folder: str) -> Content:
        folders, others, has_images = list[str](), list[str](), False
        with suppress(OSError), os.scandir(self._root / folder) as items:
            for item in items:
                if ignore_reason(item.name) or has_surrogates(item.name):
                    continue
                if item.is_dir():
                    if not _leads_up(item.path):
                        folders.append(item.name)
                elif not has_image_suffix(item.name):
                    others.append(item.name)
                elif not has_images:
                    has_images = item.is_file()
        return Content(sorted(folders), has_images, sorted(others))


def _leads_up(link: str) -> bool:
    return Path(os.path.realpath(Path(link).parent)).is_relative_to(os.path.realpath(link))


def has_surrogates(name: str) -> bool:
    """Whether ``name`` stands for bytes that are not UTF-8."""
    return not name.isascii() and any("\ud800" <= character <= "\udfff" for character in name)


# -------------------------------------------------------------------------------------------------------------- layout


@dataclass(frozen=True)
class Layout:
    """Which folders hold class folders: path relative to the root -> split that it stands for, inner folders first."""

    kind: str  # class_folders or split_folders
    bases: dict[str, SplitName | None]
    classes: tuple[str, ...]
    inner_splits: dict[str, SplitName] = field(default_factory=dict)  # names of split folders inside class folders
    unused: tuple[str, ...] = ()  # folders with images that are not read

    @property
    def words(self) -> str:
        """One sentence that says what was recognized."""
        splits = [f"{base or '.'}/ ({split or 'to be split'})" for base, split in self.bases.items()]
        if self.inner_splits:
            text = f"class folders with the split folders {_named(self.inner_splits)} in each"
        elif any(self.bases.values()):
            text = f"split folders {', '.join(splits)} with class folders inside"
        else:
            base = next(iter(self.bases))
            text = f"class folders{f' in {base}/' if base else ''}"
        return text + (f"; not used: {_named(self.unused)}" if self.unused else "")

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.classes)

    def place(self, path: str, rejected: str | None = None, detail: str = "") -> Entry:
        """Place the file at ``path``.

        Args:
            path: of the file, relative to the root.
            rejected: why it is not used, if that is known.
            detail: of the rejection.

        Returns:
            The entry: with its class and split, rejected as given, or because it is not in a class folder.
        """
        if any(path.startswith(f"{folder}/") for folder in self.unused):
            return Entry(path, ignored="unused_folder")
        for base, split in self.bases.items():
            if not base or path.startswith(f"{base}/"):
                names = [name for name in path[len(base) :].split("/") if name not in ("", ".")]
                if len(names) > 1 and names[0] in self._known:
                    inner = self.inner_splits.get(names[1]) if len(names) > 2 else None
                    return Entry(path, names[0], inner or split, rejected=rejected, detail=detail)
        if rejected is None:
            expected = " or ".join(f"{base}/<class>/<image>" if base else "<class>/<image>" for base in self.bases)
            rejected, detail = "no_class", f"it is not in a class folder (expected {expected})"
        return Entry(path, rejected=rejected, detail=detail)

    def place_file(self, path: str, read_head: Callable[[], bytes]) -> Entry:
        """Place the file at ``path``, which may be an image, camera raw or another file.

        Args:
            path: of the file, relative to the root; its suffix says what it is, or else its first bytes.
            read_head: returns the first ``HEAD_BYTES``.

        Returns:
            The entry. A file that is not an image is ignored; in a class folder, a kind that people keep there is rejected.
        """
        suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122 - see FolderSource._walk
        if suffix in RAW_SUFFIXES:
            return self.place(path, "camera_raw", f"a camera raw file ({suffix}); export it as JPEG")
        if suffix not in IMAGE_SUFFIXES:
            try:
                head = read_head()
            except OSError as error:
                return self.place(path, "unreadable", error.strerror or str(error))
            if kind := other_kind(head):
                entry = self.place(path, *kind)
                return entry if entry.label else Entry(path, ignored="other_file")
            if not looks_like_image(head):
                return Entry(path, ignored="other_file")
        return self.place(path)


def split_of(name: str, siblings: Iterable[str] = ()) -> SplitName | None:
    """Tell the split that a folder or table stands for by its name.

    ``train``, ``Test Set`` and ``val2017`` are splits. Other words, as in ``seg_train``, are allowed if a sibling has the same
    ones with another split (``seg_test``); ``test_tube`` and ``train_station`` are ordinary names.

    Args:
        name: of the folder, or of the table without its suffix.
        siblings: names beside it.

    Returns:
        The split, or ``None`` for an ordinary name.
    """
    split, rest = _parse_name(name)
    if split is None or not rest:
        return split
    others = [_parse_name(sibling) for sibling in siblings]
    return split if any(other not in (None, split) and words == rest for other, words in others) else None


def _parse_name(name: str) -> tuple[SplitName | None, tuple[str, ...]]:
    """The split that exactly one word of ``name`` says, and its other words but for ``FILLERS``."""
    words = re.findall(r"[^\W\d_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    splits, rest = set[SplitName](), list[str]()
    for word in words:
        stem = re.sub("(set|data|images|imgs)$", "", word)
        if split := SPLIT_NAMES.get(word) or SPLIT_NAMES.get(stem):
            splits.add(split)
        elif word not in FILLERS:
            rest.append(word)
    return (splits.pop() if len(splits) == 1 else None), tuple(rest)


def find_layout(listing: Listing, root: Path | str) -> Layout:
    """Find the layout of a tree.

    Args:
        listing: of the tree.
        root: what errors name.

    Raises:
        LayoutError: a folder called like a split would be a class, or two readings are equally likely.
    """
    return _Finder(listing, root).at("", ())


def plain_layout(listing: Listing) -> Layout:
    """The layout in which every folder at the top is a class."""
    return Layout("class_folders", {"": None}, tuple(listing.content("").folders))


class _SplitFolders(NamedTuple):
    """Folders called like splits in one folder: where each holds images, and what class folders are there."""

    base: str
    splits: dict[str, SplitName]
    places: dict[str, str]
    classes: dict[str, tuple[str, ...]]  # empty: images without class folders, or none
    others: tuple[str, ...]  # further folders with images
    unused: tuple[str, ...]

    def layout(self, known: set[str], beside: tuple[str, ...] = ()) -> Layout:
        """The layout of the splits that have any of the ``known`` classes, and of class folders ``beside`` them."""
        folded = set(map(_fold, known))
        read = [name for name in self.splits if folded & set(map(_fold, self.classes[name]))]
        left = [_join(self.base, name) for name in (*self.splits, *self.others) if name not in (*read, *beside)]
        bases: dict[str, SplitName | None] = {self.places[name]: self.splits[name] for name in read}
        classes = {*beside, *chain.from_iterable(self.classes[name] for name in read)}
        kind = "split_folders" if read else "class_folders"
        return Layout(
            kind, {**bases, **({self.base: None} if beside else {})}, tuple(sorted(classes)), unused=(*self.unused, *left)
        )


@dataclass(frozen=True)
class _Finder:
    """Applies the rules to a folder after the other."""

    listing: Listing
    root: Path | str

    def at(self, base: str, unused: tuple[str, ...]) -> Layout:
        """The layout of the folder ``base``; ``unused`` folders beside it were passed over on the way."""
        folders, has_images, _ = self.listing.content(base)
        named = {name: split for name in folders if (split := split_of(name, folders))}
        splits = {name: split for name, split in named.items() if self._holds_images(_join(base, name))}
        folders = [name for name in folders if name not in named or name in splits]
        unused = (*unused, *(_join(base, name) for name in named if name not in splits))  # without images, but no classes
        if splits:
            return self._split_folders(base, folders, splits, unused)
        if len(folders) == 1 and not has_images and self._wraps(_join(base, folders[0])):
            return self.at(_join(base, folders[0]), unused)
        if len(folders) == 1 and not has_images and folders[0].lower() in CONTAINERS and self._holds_images(base):
            raise self._flat(base, f"{_named(folders)} holds images without class folders")
        if inside := self._container(base, folders):
            beside = tuple(_join(base, name) for name in folders if _join(base, name) != inside)
            return self.at(inside, (*unused, *filter(self._holds_images, beside)))
        self._refuse_parts(folders)
        inner = self._inner_splits(base, folders)
        if not inner:
            self._refuse_two_levels(base, folders)
        return Layout("split_folders" if inner else "class_folders", {base: None}, tuple(folders), inner, unused)

    def _wraps(self, folder: str) -> bool:
        """Whether a folder only wraps others: it holds folders, no images unless it is called so, and is not too deep."""
        content = self.listing.content(folder)
        holds_only_folders = not content.has_images or PurePosixPath(folder).name.lower() in CONTAINERS
        return bool(content.folders) and holds_only_folders and folder.count("/") < MAX_WRAPPERS

    def _holds_images(self, folder: str) -> bool:
        content = self.listing.content(folder)
        if content.has_images or folder.count("/") > MAX_DEPTH:  # links may lead in circles
            return content.has_images
        return any(self._holds_images(_join(folder, name)) for name in content.folders)

    def _container(self, base: str, folders: Sequence[str]) -> str | None:
        """The folder of class folders among folders called like ``images`` and ``labels``, if no others hold images."""
        kinds = {name: name.lower().replace(" ", "_") for name in folders}
        containers = [name for name, kind in kinds.items() if kind in CONTAINERS]
        if len(folders) < 2 or not containers:
            return None
        populated = [name for name in containers if self._holds_images(_join(base, name))]
        rest = [name for name in folders if kinds[name] not in CONTAINERS | ANNOTATIONS]
        if not populated or any(self._holds_images(_join(base, name)) for name in rest):
            return None
        with_folders = [name for name in populated if self.listing.content(_join(base, name)).folders]
        if len(with_folders) == 1:
            return _join(base, with_folders[0])
        found = f"the folders {_named(folders)} hold images and annotations, not classes"
        raise self._flat(base, found)

    # ---------------------------------------------------------------------------------------------------------- splits

    def _split_folders(
        self, base: str, folders: Sequence[str], splits: dict[str, SplitName], unused: tuple[str, ...]
    ) -> Layout:
        places = {name: self._enter(_join(base, name)) for name in splits}
        classes = {name: self._classes(place) for name, place in places.items()}
        others = tuple(name for name in folders if name not in splits and self._holds_images(_join(base, name)))
        found = _SplitFolders(base, splits, places, classes, others, unused)
        train = [name for name, split in splits.items() if split == "train"]
        if any(classes[name] for name in train) and (len(splits) > 1 or not others):
            self._refuse_anomalies(found)
            return found.layout({name for label in train for name in classes[label]})
        if train:
            raise self._unclear(found)
        if len(splits) == 1 and not others and (only := next(iter(splits))) and classes[only]:
            return self.at(places[only], unused)  # a folder called test that only wraps the classes
        if len(others) > 1 and (not any(classes.values()) or set(others) & {*chain.from_iterable(classes.values())}):
            return found.layout(set(others), others)
        raise self._unclear(found)

    def _unclear(self, found: _SplitFolders) -> LayoutError:
        flat = [name for name in found.splits if not found.classes[name]]
        with_classes = [name for name in found.splits if found.classes[name]]
        if found.others:
            problem = f"{_named(found.splits)} beside {_named(found.others)}: splits or classes"
        elif flat:
            problem = f"{_named(flat)} hold{'s' if len(flat) == 1 else ''} images without class folders"
        else:
            problem = f"there is no train/ beside {_named(with_classes)}"
        return self._flat(found.base, problem, *(_join(found.base, name) for name in found.splits), *found.places.values())

    def _classes(self, place: str) -> tuple[str, ...]:
        """Names of the class folders of a split; a folder called like a split is none."""
        names = self.listing.content(place).folders
        return tuple(name for name in names if not split_of(name, names)) if self._has_classes(place) else ()

    def _has_classes(self, place: str) -> bool:
        return any(self._holds_images(_join(place, name)) for name in self.listing.content(place).folders)

    def _enter(self, folder: str) -> str:
        """The folder that holds the class folders or images of a split: ``train/train``, ``train/images``."""
        content = self.listing.content(folder)
        if content.has_images or not content.folders or folder.count("/") >= MAX_WRAPPERS:
            return folder
        kinds = {name: name.lower() for name in content.folders}
        containers = [name for name in kinds if kinds[name] in CONTAINERS or split_of(name, [PurePosixPath(folder).name])]
        if len(kinds) == 1 and (containers or self._wraps(_join(folder, content.folders[0]))):
            return self._enter(_join(folder, content.folders[0]))
        if len(containers) == 1 and all(kind in CONTAINERS | ANNOTATIONS for kind in kinds.values()):
            return self._enter(_join(folder, containers[0]))
        return folder

    def _inner_splits(self, base: str, folders: Sequence[str]) -> dict[str, SplitName]:
        """Names of the split folders inside the class folders, if there are any; then every class must hold only such."""
        inner: dict[str, SplitName] = {}
        other: list[str] = []  # class folders with anything else in them
        for name in folders:
            names, has_images, _ = self.listing.content(_join(base, name))
            splits = {inside: split for inside in names if (split := split_of(inside, names))}
            inner |= splits
            if has_images or not splits or len(splits) < len(names):
                other.append(name)
            if not inner and len(other) > MAX_NAMED:
                return {}  # ordinary class folders
        datasets = [name for name in folders if any(self._has_classes(f"{_join(base, name)}/{split}") for split in inner)]
        if not inner or (len(folders) > 1 and not other and not datasets):
            return inner
        holders = _named(name for name in folders if name not in other) or "a class"
        found = f"folders called {_named(inner)} lie inside {holders}"
        advice = FORCE
        if datasets:
            found += f", with folders in them, as in a whole dataset: {_named(datasets)}"
            advice = f"Name it: {self.root}/{_join(base, datasets[0])}"
        elif other:
            found += f", but not only and everywhere: {_named(other)} differ{'s' if len(other) == 1 else ''}"
        raise LayoutError(self.root, found, "the same split folders in every class folder, or class folders alone", advice)

    # -------------------------------------------------------------------------------------------------------- refusals

    def _refuse_anomalies(self, found: _SplitFolders) -> None:
        """Anomaly-detection datasets as of MVTec: one class to learn from, several to tell apart."""
        learned = {name for folder, split in found.splits.items() if split == "train" for name in found.classes[folder]}
        rest = {name for names in found.classes.values() if learned & set(names) for name in names} - learned
        if len(learned) == 1 and rest:
            problem = f"train has one class ({', '.join(learned)}), the other splits have {_named(sorted(rest))} as well"
            advice = "To tell these kinds apart, copy the images into one folder per kind"
            raise LayoutError(self.root, f"{problem}: an anomaly-detection dataset", EXPECTED, advice)

    def _refuse_parts(self, folders: Sequence[str]) -> None:
        """Folders numbered like the parts of one collection: ``images_001``, ``fold3``, ``2024-05-01``, ``100CANON``."""
        words = {tuple(re.findall(r"[^\W\d_]+", name.lower())) for name in folders}
        numbered = len(folders) > 1 and len(words) == 1 and all(re.search(r"\d", name) for name in folders)
        dated = numbered and all(re.match(DATE_OR_CAMERA, name) for name in folders)
        if dated or (numbered and (only := words.pop()) and only[-1] in CHUNKS):
            found = f"the folders {_named(folders)} are numbered like parts of one collection, not named like classes"
            advice = f"{FORCE}; if a table says which image is what, name it"
            raise LayoutError(self.root, found, EXPECTED, advice)

    def _refuse_two_levels(self, base: str, folders: Sequence[str]) -> None:
        """The same folders in every folder: either level may be the classes."""
        inner: tuple[str, ...] = ()
        for name in folders:
            content = self.listing.content(_join(base, name))
            if content.has_images or len(content.folders) < 2 or (inner and inner != tuple(content.folders)):
                return
            inner = tuple(content.folders)
        if len(folders) > 1:
            found = (
                f"each of the folders {_named(folders)} holds the same folders {_named(inner)}: both levels may be the classes"
            )
            advice = f"If {_named(folders)} are the classes, add --classes-are-folders; else name a table with path and label"
            raise LayoutError(self.root, found, EXPECTED, advice)

    def _flat(self, base: str, problem: str, *places: str) -> LayoutError:
        """The error for folders whose images are in no class folder."""
        advice = f"{FORCE}; if a table or the file names say the classes, name a table with the columns path and label"
        return LayoutError(self.root, problem + self._annotated(base, places), EXPECTED, advice)

    def _annotated(self, base: str, places: Sequence[str]) -> str:
        """Words on the annotations of an object-detection or segmentation dataset found in or beside ``places``, if any."""
        above = base.rpartition("/")[0]
        folders = {_join(place, name) for place in (above, base, *places) for name in self.listing.content(place).folders}
        annotations = {folder for folder in folders if PurePosixPath(folder).name.lower() in ANNOTATIONS}
        inside = {_join(folder, name) for folder in annotations for name in self.listing.content(folder).folders}
        everywhere = (above, base, *places, *annotations, *inside)
        files = [name.lower() for place in everywhere for name in self.listing.content(place).others]
        suffixes = Counter(PurePosixPath(name).suffix for name in files)
        if any("coco" in name or name.startswith("instances_") for name in files if name.endswith(".json")):
            kind = "COCO (object detection)"
        elif suffixes[".xml"]:
            kind = "Pascal VOC (object detection)"
        elif suffixes[".txt"] > 1 or any(name in ("data.yaml", "dataset.yaml", "data.yml") for name in files):
            kind = "YOLO (object detection)"
        elif any(map(self._holds_images, annotations)):
            kind = "masks (segmentation)"
        else:
            return ""
        return f". It has annotations as for {kind}; classification needs one class per image"


def _fold(name: str) -> str:
    """``name`` in one Unicode form and one case."""
    return unicodedata.normalize("NFC", name).casefold()


def _join(base: str, name: str) -> str:
    return f"{base}/{name}" if base else name


def _named(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(f"{name}/" for name in listed[:MAX_NAMED]) + (f" ... ({len(listed)})" if len(listed) > MAX_NAMED else "")
