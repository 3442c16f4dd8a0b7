"""Generated trees and tables: every file is accounted for, no label is another file's, no class is called like a split."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Sequence
from pathlib import PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl_tl.data import open_source, scan
from automl_tl.data.sources.layout import PathListing, find_layout, split_of
from automl_tl.errors import DataError, LayoutError
from tests.data.sample_images import encoded, sample_image
from tests.data.source_makers import put, zipped

IMAGES = [encoded(sample_image(seed), "PNG") for seed in range(24)]
CLASSES = ("ants", "bees", "test_tube", "train station", "Ähre", "10", "o'neill", "蜂", "images of cats", "no label")
SPLITS = (
    {"train": "train", "test": "test"},
    {"Training": "train", "Valid": "validation", "Testing": "test"},
    {"training_set": "train", "test_set": "test"},
    {"seg_train": "train", "seg_test": "test"},
    {"trainImages": "train", "val2017": "validation"},
    {"train": "train", "eval": "test"},
)
WORDS = (
    "train",
    "test",
    "val",
    "images",
    "labels",
    "masks",
    "ants",
    "bees",
    "train_set",
    "fold1",
    "fold2",
    "data",
    "eval",
    "test_tube",
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=4), min_size=1, max_size=12))
def test_find_layout_never_makes_a_split_folder_a_class(folders: list[list[str]]) -> None:
    paths = sorted({"/".join([*parts, f"{number}.png"]) for number, parts in enumerate(folders)})
    try:
        layout = find_layout(PathListing(paths), "images")
    except LayoutError:
        return

    entries = [layout.place(path) for path in paths]

    labels = {entry.label for entry in entries if entry.label}
    assert not {label for label in labels if split_of(label)}
    assert all(entry.label in PurePosixPath(entry.path).parts for entry in entries if entry.label)
    assert all(entry.label or entry.ignored or entry.rejected for entry in entries)
    assert labels <= set(layout.classes)


@st.composite
def trees(draw: st.DrawFn) -> tuple[dict[str, int], dict[str, tuple[str, str | None]]]:
    """Files of a tree of class folders, and the label and split of each image."""
    classes = draw(st.lists(st.sampled_from(CLASSES), min_size=2, max_size=3, unique=True))
    splits = draw(st.sampled_from((None, *SPLITS)))
    wrapper = draw(st.sampled_from(("", "data/", "my photos/", "set/images/")))
    inside_out, doubled = draw(st.booleans()), draw(st.booleans())
    files: dict[str, int] = {}
    truth: dict[str, tuple[str, str | None]] = {}
    parts: dict[str, str | None] = {**splits} if splits else {"": None}
    for number, (label, (folder, split)) in enumerate((c, s) for c in classes for s in parts.items()):
        name = f"{draw(st.sampled_from(('a', 'ü', 'test', 'x.y')))}{number}.png"
        place = label if not folder else f"{label}/{folder}" if inside_out else f"{folder}/{folder if doubled else ''}/{label}"
        path = wrapper + f"{place}/{name}".replace("//", "/")
        files[path], truth[path] = number, (label, split)
    for extra in draw(st.sets(st.sampled_from(("notes.txt", ".hidden/x.png", "stray.png", "Thumbs.db")))):
        if extra != "stray.png" or wrapper != "my photos/":  # where one folder with an image would be the only class
            files[wrapper + extra] = -1
    return files, truth


@settings(max_examples=40, deadline=None)
@given(trees(), st.booleans())
def test_scan_gives_each_image_its_own_label_and_split(
    tmp_path_factory: pytest.TempPathFactory, tree: tuple[dict[str, int], dict[str, tuple[str, str | None]]], packed: bool
) -> None:
    numbers, truth = tree
    files = {path: IMAGES[number] for path, number in numbers.items()}
    root = tmp_path_factory.mktemp("tree")
    source = zipped(root / "x.zip", files) if packed else put(root / "x", files)

    index = scan(open_source(source), workers=1)

    assert {image.path: (image.label, image.split) for image in index.images} == truth
    assert len(index.images) + len(index.rejected) + sum(index.ignored.values()) == index.num_files == len(files)


def write_table(rows: Sequence[Sequence[str]], delimiter: str, encoding: str, quoting: int, declared: bool) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, quoting=quoting).writerows(rows)  # type: ignore[arg-type]
    return (f"sep={delimiter}\r\n" * declared + text.getvalue()).encode(encoding)


def as_written(path: str, how: str) -> str:
    """The same path as other programs write it."""
    forms = {
        "as is": path,
        "backslashes": path.replace("/", "\\"),
        "mixed": f".\\{path}",
        "dot": f"./{path}",
        "NFD": unicodedata.normalize("NFD", path),
        "name": PurePosixPath(path).name,
        "id": PurePosixPath(path).stem,
    }
    return forms[how]


HOW = ("as is", "backslashes", "mixed", "dot", "NFD", "name", "id")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(HOW), st.sampled_from(("ants", "bees", "a b", "0"))), min_size=1, max_size=12),
    st.sampled_from((",", ";", "\t", "|")),
    st.sampled_from(("utf-8", "utf-8-sig", "utf-16")),
    st.sampled_from((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)),
    st.booleans(),
)
def test_manifest_gives_each_image_its_own_label(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str]],
    delimiter: str,
    encoding: str,
    quoting: int,
    declared: bool,
) -> None:
    root = tmp_path_factory.mktemp("table")
    names = [f"photos/{'größe' if number % 2 else 'IMG'} {number:04}.png" for number in range(len(rows))]
    put(root, dict(zip(names, IMAGES, strict=False)))
    cells = [[as_written(name, how), label] for name, (how, label) in zip(names, rows, strict=True)]
    bad = [["gone.png", "ants"], ["", "bees"], [names[0], rows[0][1]]]
    (root / "labels.csv").write_bytes(
        write_table([["file_name", "label"], *cells, *bad], delimiter, encoding, quoting, declared)
    )

    index = scan(open_source(root / "labels.csv"), workers=1, allow_empty=True)

    assert {image.path: image.label for image in index.images} == {
        name: label for name, (_, label) in zip(names, rows, strict=True)
    }
    assert {row.reason for row in index.rejected} == {"missing_file", "no_path"}
    assert index.num_files == len(rows) + 3


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.sampled_from((".csv", ".tsv", ".jsonl", ".json")))
def test_open_source_reads_or_refuses_any_table(tmp_path_factory: pytest.TempPathFactory, data: bytes, suffix: str) -> None:
    file = tmp_path_factory.mktemp("any") / f"table{suffix}"
    file.write_bytes(b"path,label\n" + data)

    try:
        scan(open_source(file), workers=1, allow_empty=True)
    except DataError:
        return
