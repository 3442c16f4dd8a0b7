"""Folders of images: litter, links, odd names, and every file counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from unicodedata import normalize

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl_tl.data import open_source, scan
from automl_tl.data.sources.layout import PathListing, find_layout
from automl_tl.errors import LayoutError
from automl_tl.values import DatasetIndex
from tests.data.sample_images import encoded, sample_image, write_tree

JPEG = encoded(sample_image(0))


def put(root: Path, files: dict[str, bytes]) -> Path:
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


def scan_folder(root: Path) -> DatasetIndex:
    return scan(open_source(root), workers=1)


def reasons(index: DatasetIndex) -> dict[str, str]:
    return {row.path: row.reason for row in index.rejected}


def num_on_disk(root: Path) -> int:
    return sum(len(files) + sum((Path(at) / name).is_symlink() for name in folders) for at, folders, files in os.walk(root))


def test_folder_uses_rejects_or_ignores_every_file(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "ants/a.jpg": JPEG,
            "ants/b.JPG": encoded(sample_image(1)),
            "ants/no_suffix": encoded(sample_image(2)),
            "ants/empty.png": b"",
            "ants/text.jpg": b"not an image" * 9,
            "ants/notes.txt": b"notes",
            "ants/.DS_Store": b"x",
            "ants/Thumbs.db": b"x",
            "ants/photo.nef": b"II*\0" + bytes(40),
            "bees/deep/er/c.jpg": encoded(sample_image(3)),
            "bees/.hidden/d.jpg": JPEG,
            "__MACOSX/ants/._a.jpg": b"x",
            "beside.jpg": JPEG,
            "README.md": b"about",
        },
    )

    index = scan_folder(tmp_path)

    assert [(image.path, image.label) for image in index.images] == [
        ("ants/a.jpg", "ants"),
        ("ants/b.JPG", "ants"),
        ("ants/no_suffix", "ants"),
        ("bees/deep/er/c.jpg", "bees"),
    ]
    assert reasons(index) == {
        "ants/empty.png": "empty",
        "ants/text.jpg": "not_an_image",
        "ants/photo.nef": "camera_raw",
        "beside.jpg": "no_class",
    }
    assert index.ignored == {"hidden": 2, "litter": 2, "other_file": 2}
    assert index.num_files == num_on_disk(tmp_path) == 14


NAMES = st.sampled_from(["a.jpg", "b.PNG", "c", "d.txt", ".e", "Thumbs.db", "ü x.jpg", "f\n.jpg", "-g.jpg", "蜂 🐝.webp"])
FOLDERS = st.sampled_from(["ants", "bees", "train", "test", "val", ".git", "__MACOSX", "a folder.jpg", "deep/er", "ants/in"])
CONTENTS = st.sampled_from([JPEG, encoded(sample_image(1), "PNG"), b"", b"text", JPEG[:400]])


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.tuples(FOLDERS, NAMES), CONTENTS, max_size=25))
def test_folder_counts_add_up_whatever_it_holds(
    tmp_path_factory: pytest.TempPathFactory, files: dict[tuple[str, str], bytes]
) -> None:
    root = put(tmp_path_factory.mktemp("tree"), {f"{folder}/{name}": data for (folder, name), data in files.items()})
    put(root, {"ants/sure.jpg": encoded(sample_image(5)), "bees/sure.jpg": encoded(sample_image(6))})

    try:
        index = scan_folder(root)
    except LayoutError:
        return

    assert len(index.images) + len(index.rejected) + sum(index.ignored.values()) == index.num_files == num_on_disk(root)
    assert not {"train", "test", "val"} & set(index.classes)


def test_folder_follows_only_links_that_lead_out(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "images", {"ants": 1, "bees": 1})
    elsewhere = write_tree(tmp_path / "elsewhere", {"wasps": 2}, first_seed=5)
    (root / "ants" / "loop").symlink_to("..")
    (root / "ants" / "bees").symlink_to("../bees")
    (root / "ants" / "gone.jpg").symlink_to("nowhere.jpg")
    (root / "ants" / "self.jpg").symlink_to("self.jpg")
    (root / "ants" / "copy.jpg").symlink_to("000.jpg")
    (root / "wasps").symlink_to(elsewhere / "wasps")

    index = scan_folder(root)

    assert reasons(index) == {
        "ants/loop": "link_to_folder",
        "ants/bees": "link_to_folder",
        "ants/gone.jpg": "dangling_link",
        "ants/self.jpg": "dangling_link",
    }
    assert [image.path for image in index.images if image.label == "wasps"] == ["wasps/000.jpg", "wasps/001.jpg"]
    assert "ants/copy.jpg" in {image.path for image in index.images}


def test_folder_ends_at_links_that_lead_in_circles(tmp_path: Path) -> None:
    write_tree(tmp_path / "images", {"train/ants": 1, "train/bees": 1})
    (tmp_path / "images" / "test").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "images" / "test" / "out").symlink_to(tmp_path / "other")
    (tmp_path / "other" / "back").symlink_to(tmp_path / "images" / "test")

    assert len(scan_folder(tmp_path / "images").images) == 2


def test_folder_rejects_pipe_without_reading_it(tmp_path: Path) -> None:
    write_tree(tmp_path, {"ants": 1, "bees": 1})
    os.mkfifo(tmp_path / "ants" / "pipe.jpg")

    assert reasons(scan_folder(tmp_path)) == {"ants/pipe.jpg": "special_file"}


def test_folder_rejects_name_that_is_not_unicode(tmp_path: Path) -> None:
    write_tree(tmp_path, {"ants": 1, "bees": 1})
    Path(os.fsdecode(os.fsencode(tmp_path / "ants") + b"/caf\xe9.jpg")).write_bytes(JPEG)

    index = scan_folder(tmp_path)

    assert reasons(index) == {"ants/caf\\xe9.jpg": "name_not_unicode"}
    assert DatasetIndex.model_validate_json(index.model_dump_json()) == index


# Root may read everything, so a child process reads as the user nobody, who may not enter pytest's own folders.
SCAN_AS_NOBODY = """
import json, os, sys
from pathlib import Path
from automl_tl.data import open_source, scan
index = scan(open_source(Path(sys.argv[1])), workers=1)  # as root, for what is imported meanwhile
if os.geteuid() == 0:
    os.seteuid(65534)
    index = scan(open_source(Path(sys.argv[1])), workers=1)
print(json.dumps({row.path: row.reason for row in index.rejected}))
"""


def test_folder_rejects_files_and_folders_without_permission() -> None:
    with TemporaryDirectory() as folder:
        root = write_tree(Path(folder), {"ants": 2, "bees": 2, "ants/closed": 1})
        root.chmod(0o755)
        (root / "ants" / "000.jpg").chmod(0)
        (root / "ants" / "closed").chmod(0)

        process = subprocess.run([sys.executable, "-c", SCAN_AS_NOBODY, folder], capture_output=True, text=True, check=True)

        (root / "ants" / "closed").chmod(0o700)
    assert json.loads(process.stdout) == {"ants/000.jpg": "unreadable", "ants/closed": "unreadable"}


@pytest.mark.parametrize(
    ("files", "bases"),
    [
        (["ants/a.jpg", "bees/b.jpg"], {"": None}),
        (["train/ants/a.jpg", "test/ants/b.jpg"], {"train": "train", "test": "test"}),
        (["Train/ants/a.jpg", "VALID/ants/b.jpg"], {"Train": "train", "VALID": "validation"}),
        (["data/set/train/ants/a.jpg", "data/set/test/ants/b.jpg"], {"data/set/train": "train", "data/set/test": "test"}),
        (["photos/ants/a.jpg", "photos/bees/b.jpg"], {"photos": None}),
        (["ants/a.jpg"], {"": None}),
        (["train/ants/a.jpg", "train/stray.jpg", "test/ants/b.jpg"], {"train": "train", "test": "test"}),
        (["train/ants/a.jpg", "test/b.jpg"], {"train": "train"}),
        (["train/ants/a.jpg", "test/unknown/b.jpg"], {"train": "train"}),
        (["training_set/ants/a.jpg", "test_set/ants/b.jpg"], {"test_set": "test", "training_set": "train"}),
        (
            ["seg_train/seg_train/sea/a.jpg", "seg_test/seg_test/sea/b.jpg", "seg_pred/seg_pred/c.jpg"],
            {"seg_test/seg_test": "test", "seg_train/seg_train": "train"},
        ),
        (
            ["trainImages/ants/a.jpg", "val2017/ants/b.jpg", "eval/ants/c.jpg"],
            {"eval": "test", "trainImages": "train", "val2017": "validation"},
        ),
        (["ants/a.jpg", "bees/b.jpg", "test/ants/c.jpg"], {"test": "test", "": None}),
        (["ants/a.jpg", "bees/b.jpg", "test/c.jpg"], {"": None}),
        (["images/ants/a.jpg", "images/bees/b.jpg", "masks/ants/a.png", "labels/x.txt"], {"images": None}),
        (["data/ants/a.jpg", "data/bees/b.jpg", "src/train.py", "docs/x.md"], {"data": None}),
        (["mask/a.jpg", "no_mask/b.jpg"], {"": None}),
        (["train/ants/a.jpg", "test/ANTS/b.jpg"], {"train": "train", "test": "test"}),
        (["test_tube/a.jpg", "train_station/b.jpg"], {"": None}),
        (["x/test/ants/a.jpg", "x/test/bees/b.jpg"], {"x/test": None}),
        (["ants/train/a.jpg", "ants/test/b.jpg", "bees/train/c.jpg", "bees/test/d.jpg"], {"": None}),
    ],
)
def test_find_layout_tells_split_folders_from_classes(files: list[str], bases: dict[str, str | None]) -> None:
    assert find_layout(PathListing(files), "images").bases == bases


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["train/a.jpg", "valid/b.jpg", "test/c.jpg"], "test/, train/, valid/ hold images without class folders"),
        (["train/a.jpg", "test/ants/b.jpg", "test/bees/b.jpg"], "train/ holds images without class folders"),
        (["train/a.jpg", "plane/b.jpg", "bus/b.jpg"], "train/ beside bus/, plane/"),
        (["train/old/a.jpg", "plane/b.jpg"], "train/ beside plane/"),
        (["val/ants/a.jpg", "test/ants/b.jpg"], "there is no train/"),
        (["ants/train/a.jpg", "ants/test/b.jpg", "bees/c.jpg"], "inside ants/, but not only and everywhere"),
        (
            ["bottle/train/good/a.jpg", "bottle/test/bad/b.jpg", "cable/train/good/a.jpg"],
            "as in a whole dataset: bottle/, cable/",
        ),
        (["train/good/a.jpg", "test/good/b.jpg", "test/bad/c.jpg", "ground_truth/bad/c.png"], "anomaly-detection"),
        (["photo/cat/a.jpg", "photo/dog/b.jpg", "sketch/cat/a.jpg", "sketch/dog/b.jpg"], "both levels"),
        (["fold1/a.jpg", "fold2/b.jpg"], "numbered like parts"),
        (["train/a.jpg", "train/_annotations.coco.json", "valid/b.jpg"], "COCO"),
        (["images/train/a.jpg", "images/val/b.jpg", "labels/train/a.txt", "labels/val/b.txt"], "YOLO"),
        (["VOC/JPEGImages/a.jpg", "VOC/Annotations/a.xml", "VOC/ImageSets/Main/train.txt"], "Pascal VOC"),
        (["images/a.jpg", "masks/a.png"], "segmentation"),
        (["2024-05-01/a.jpg", "2024-05-02/b.jpg"], "numbered like parts"),
        (["ants_train/a.jpg", "ants_test/b.jpg", "bees_train/c.jpg", "bees_test/d.jpg"], "hold images without class folders"),
        (["images/a.jpg", "notes.txt"], "images/ holds images without class folders"),
    ],
)
def test_find_layout_refuses_what_it_cannot_tell(files: list[str], words: str) -> None:
    with pytest.raises(LayoutError, match=words):
        find_layout(PathListing(files), "images")


def test_folder_reads_splits_inside_class_folders(tmp_path: Path) -> None:
    write_tree(tmp_path, {f"{label}/{split}": 2 for label in ("ants", "bees") for split in ("train", "test")})

    index = scan_folder(tmp_path)

    assert index.classes == ("ants", "bees")
    assert Counter(image.split for image in index.images) == {"train": 4, "test": 4}
    assert index.layout == "class folders with the split folders test/, train/ in each"


def test_folder_says_which_folders_are_not_used(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train/ants": 2, "train/bees": 2, "test": 3})

    index = scan_folder(tmp_path)

    assert index.layout.endswith("not used: test/")
    assert index.ignored == {"unused_folder": 3}


def test_scan_gives_labels_one_unicode_form(tmp_path: Path) -> None:
    write_tree(tmp_path, {f"train/{normalize('NFD', 'Käfer')}": 2, f"test/{normalize('NFC', 'Käfer')}": 2, "train/ants": 1})

    index = scan_folder(tmp_path)

    assert index.classes == ("Käfer", "ants")
    assert Counter(image.split for image in index.images) == {"train": 3, "test": 2}


def test_open_source_takes_every_folder_for_a_class_on_request(tmp_path: Path) -> None:
    write_tree(tmp_path, {"train": 2, "bus": 2})

    index = scan(open_source(tmp_path, classes_are_folders=True))

    assert index.classes == ("bus", "train")


def test_folder_names_classes_without_a_usable_image(tmp_path: Path) -> None:
    write_tree(tmp_path, {"ants": 1, "bees": 1})
    put(tmp_path, {"broken/a.jpg": b"", "nothing/.gitkeep": b""})

    index = scan_folder(tmp_path)

    assert index.classes == ("ants", "bees")
    assert index.empty_classes == ("broken", "nothing")
