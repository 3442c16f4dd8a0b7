"""Tables as people bring them: names of columns, forms of paths, labels that are none, tables in splits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from automl_tl.data import audit_index, open_source, scan
from automl_tl.data.image_inputs import find_images
from automl_tl.errors import BrokenSourceError, LayoutError
from automl_tl.values import DatasetIndex
from tests.data.sample_images import encoded, sample_image
from tests.data.source_makers import put


def images(folder: str, *names: str, first: int = 0) -> dict[str, bytes]:
    return {f"{folder}/{name}": encoded(sample_image(first + number), "PNG") for number, name in enumerate(names)}


def read(root: Path, table: str, name: str = "labels.csv") -> DatasetIndex:
    (root / name).write_text(table, encoding="utf-8")
    return scan(open_source(root / name), workers=1, allow_empty=True)


def labels(index: DatasetIndex) -> dict[str, str]:
    return {image.path: image.label for image in index.images}


def problems(index: DatasetIndex) -> dict[str, tuple[str, str]]:
    return {row.path: (row.reason, row.detail) for row in index.rejected}


def test_manifest_hints_at_files_that_differ_by_case_or_drive(tmp_path: Path) -> None:
    put(tmp_path, images("images/ants", "a.png"))

    index = read(tmp_path, "path,label\nIMAGES\\ANTS\\A.PNG,ants\nD:\\data\\images\\ants\\a.png,ants\nelsewhere/a.png,ants\n")

    details = {path: detail for path, (reason, detail) in problems(index).items() if reason == "missing_file"}
    assert "images/ants/a.png differs by case only" in details["IMAGES/ANTS/A.PNG"]
    assert "drive letter" in details["D:/data/images/ants/a.png"]
    assert "a file of this name is images/ants/a.png" in details["elsewhere/a.png"]


def test_manifest_finds_names_and_ids_only_where_one_file_has_them(tmp_path: Path) -> None:
    put(tmp_path, images("train", "1.png", "2.png") | images("more", "2.png", "3.png", first=5))

    index = read(tmp_path, "id,label\n1,ants\n2,bees\n3.png,bees\n")

    assert labels(index) == {"train/1.png": "ants", "more/3.png": "bees"}
    assert problems(index)["2"][0] == "ambiguous_file"


def test_manifest_of_a_split_never_takes_images_of_another(tmp_path: Path) -> None:
    put(tmp_path, images("train", "1.png", "2.png") | images("test", "1.png", "3.png", first=5))
    put(
        tmp_path,
        {"train.csv": b"image_id,label\n1,ants\n2,bees\n3,bees\n", "sample_submission.csv": b"image_id,label\n1,ants\n"},
    )

    index = scan(open_source(tmp_path), workers=1)

    assert labels(index) == {"train/1.png": "ants", "train/2.png": "bees"}
    assert [image.split for image in index.images] == ["train", "train"]
    assert problems(index)["3"][0] == "missing_file"
    assert index.ignored == {"not_in_table": 2, "other_file": 2}


def test_open_source_reads_metadata_in_each_split(tmp_path: Path) -> None:
    for split, first in (("train", 0), ("test", 5)):
        rows = [{"file_name": name, "label": label} for name, label in (("1.png", "ants"), ("2.png", "bees"))]
        table = "\n".join(map(json.dumps, rows)).encode()
        put(tmp_path, images(split, "1.png", "2.png", first=first) | {f"{split}/metadata.jsonl": table})

    index = scan(open_source(tmp_path), workers=1)

    assert {(image.path, image.label, image.split) for image in index.images} == {
        *(("train/1.png", "ants", "train"), ("train/2.png", "bees", "train")),
        *(("test/1.png", "ants", "test"), ("test/2.png", "bees", "test")),
    }
    assert index.layout == "rows of test/metadata.jsonl, train/metadata.jsonl (images in file_name, labels in label)"


def test_open_source_prefers_class_folders_to_tables_further_inside(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            f"{split}/{label}/{split}{at}.png": encoded(sample_image(at + 9 * (split == "test_set")), "PNG")
            for split in ("training_set", "test_set")
            for at, label in enumerate(("cats", "dogs"))
        },
    )
    for first, kind in ((40, "cat"), (50, "dog")):
        put(tmp_path, images(f"breeds/{kind}", "1.png", "2.png", first=first))
        put(tmp_path, {f"breeds/{kind}/labels.csv": b"file,label\n1.png,a\n2.png,b\n"})

    index = scan(open_source(tmp_path), workers=1)

    assert index.classes == ("cats", "dogs")
    assert index.layout.endswith("not used: breeds/")


def test_open_source_refuses_folders_and_a_table_that_disagree(tmp_path: Path) -> None:
    put(tmp_path, images("north", "1.png", "2.png") | images("south", "3.png", "4.png", first=5))
    put(tmp_path, {"m.csv": b"path,label\nnorth/1.png,ants\nnorth/2.png,bees\nsouth/3.png,ants\nsouth/4.png,north\n"})

    with pytest.raises(LayoutError, match="gives other labels") as error:
        open_source(tmp_path)

    assert f"{tmp_path}/m.csv" in str(error.value)
    assert open_source(tmp_path, classes_are_folders=True).class_names() == ("north", "south")


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("filename, ants, bees\na.png, 1, 0\nb.png, 0, 1\n", "one column per class"),
        ("image_name,tags\na.png,x\n", "none of them is the label"),
        ("photos/a.png,ants\nphotos/b.png,bees\n", "the first line must name the columns"),
        ("path,label,Label\na.png,x,y\n", "several columns are called label"),
        ("p\0a\0t\0h\0", "UTF-16 without"),
        ("path,label,xmin,xmax\na.png,x,1,2\na.png,x,3,4\n", "object detection"),
    ],
)
def test_manifest_refuses_tables_of_another_kind(table: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(BrokenSourceError, match=problem):
        read(tmp_path, table)


def test_manifest_rejects_rows_with_shifted_cells_and_missing_labels(tmp_path: Path) -> None:
    put(tmp_path, images(".", "a,b.png", "c.png", "d.png"))

    index = read(tmp_path, 'path,label\na,b.png,ants\n"a,b.png", bees\nc.png,nan\nd.png,<NA>\n')

    assert labels(index) == {"a,b.png": "bees"}
    assert {reason for reason, _ in problems(index).values()} == {"malformed_row", "no_label"}


@pytest.mark.parametrize(
    ("given", "classes"),
    [(("0", "1.0", "0.0"), ("0", "1")), (("1.0", "1.5", "2.0"), ("1.0", "1.5", "2.0")), (("a", "1.0", "b"), ("1.0", "a", "b"))],
)
def test_manifest_reads_whole_numbers_as_one_label(given: tuple[str, ...], classes: tuple[str, ...], tmp_path: Path) -> None:
    put(tmp_path, images(".", "0.png", "1.png", "2.png"))

    index = read(tmp_path, "path,label\n" + "".join(f"{number}.png,{label}\n" for number, label in enumerate(given)))

    assert index.classes == classes


@pytest.mark.parametrize(
    ("cells", "num_cells"),
    [
        (("scab", "healthy", "scab frog_eye", "scab rust"), 2),
        (("a", "b", "a|b", "b|c"), 2),
        (("['a']", "['b']", "['a', 'b']", "['b', 'c']"), 2),
        (("golden retriever", "siamese cat", "tabby cat", "persian cat"), 0),
        (("x;y", "z", "w", "v"), 0),
    ],
)
def test_audit_tells_cells_that_look_like_several_labels(cells: tuple[str, ...], num_cells: int, tmp_path: Path) -> None:
    put(tmp_path, images(".", "0.png", "1.png", "2.png", "3.png"))

    index = read(tmp_path, "path,label\n" + "".join(f'{number}.png,"{label}"\n' for number, label in enumerate(cells)))

    findings = {finding.code: finding for finding in audit_index(index).findings}
    assert ("multi_label" in findings) == bool(num_cells)
    if num_cells:
        assert findings["multi_label"].facts["num_cells"] == num_cells


def test_find_images_finds_what_fit_finds_by_the_same_table(tmp_path: Path) -> None:
    put(tmp_path, images("photos", "a.png", "b.png"))
    table = tmp_path / "labels.csv"
    table.write_text("path,label\nphotos\\a.png,ants\n.\\photos/b.png,bees\nC:\\photos\\a.png,ants\n", encoding="utf-8")

    found = find_images([str(table)])

    assert [Path(name).relative_to(tmp_path).as_posix() for name in found][:2] == ["photos/a.png", "photos/b.png"]
    with pytest.raises(OSError, match="drive letter"):
        found.read(list(found)[2])


def test_manifest_unwraps_lists_of_one_and_refuses_objects_as_labels(tmp_path: Path) -> None:
    put(tmp_path, images(".", "a.png", "b.png"))
    rows = [{"path": "a.png", "label": ["ants"]}, {"path": "b.png", "label": {"name": "bees"}}]

    index = read(tmp_path, "\n".join(map(json.dumps, rows)), "export.jsonl")

    assert labels(index) == {"a.png": "ants"}
    assert problems(index)["b.png"][0] == "no_label"


def test_manifest_reads_a_json_list(tmp_path: Path) -> None:
    put(tmp_path, images(".", "a.png", "b.png"))

    index = read(
        tmp_path, json.dumps([{"image": "a.png", "choice": "ants"}, {"image": "b.png", "choice": "bees"}]), "export.json"
    )

    assert labels(index) == {"a.png": "ants", "b.png": "bees"}
