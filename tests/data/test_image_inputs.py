from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pyarrow  # noqa: TID253 - lists are written here
import pytest
from pyarrow import parquet  # noqa: TID253 - the same

from automl_tl.data import open_source
from automl_tl.data.image_inputs import find_images
from automl_tl.errors import BrokenSourceError, SourceNotFoundError
from tests.data.source_makers import tarred


def test_find_images_gives_every_file_of_folder_once(tmp_path: Path) -> None:
    (tmp_path / "a" / "deep").mkdir(parents=True)
    for name in ("a/1.jpg", "a/deep/2.png", "notes.txt", ".hidden"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "a" / "loop").symlink_to("..")

    images = find_images([str(tmp_path), str(tmp_path / "a")])

    assert sorted(Path(name).name for name in images) == [".hidden", "1.jpg", "2.png", "notes.txt"]


def test_find_images_reads_patterns_lists_and_stdin(tmp_path: Path) -> None:
    for name in ("1.jpg", "2.jpg", "3.png"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "list.csv").write_text("image,label\n1.jpg,ant\n3.png,bee\n")
    (tmp_path / "list.jsonl").write_text('{"path": "2.jpg"}\n')
    (tmp_path / "list.txt").write_text("3.png\n\n")
    parquet.write_table(pyarrow.table({"file": ["1.jpg"]}), tmp_path / "list.parquet")

    def names(*inputs: str) -> list[str]:
        return [Path(name).name for name in find_images(inputs, stdin=io.BytesIO(f"{tmp_path}/2.jpg\n".encode()))]

    assert names(f"{tmp_path}/*.jpg") == ["1.jpg", "2.jpg"]
    assert names(f"{tmp_path}/list.csv") == ["1.jpg", "3.png"]
    assert names(f"{tmp_path}/list.jsonl") == ["2.jpg"]
    assert names(f"{tmp_path}/list.txt") == ["3.png"]
    assert names(f"{tmp_path}/list.parquet") == ["1.jpg"]
    assert names("-") == ["2.jpg"]


def test_find_images_reads_zip_and_damage_affects_one_row(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for name, content in (("a/1.jpg", b"one"), ("2.jpg", b"two"), ("../3.jpg", b"three")):
            archive.writestr(name, content)
    data = bytearray((tmp_path / "photos.zip").read_bytes())
    data[data.index(b"two")] ^= 0xFF
    (tmp_path / "photos.zip").write_bytes(data)

    images = find_images([str(tmp_path / "photos.zip")])

    good, damaged, unsafe = images
    assert images.read(good) == b"one"
    with pytest.raises(OSError, match="CRC"):
        images.read(damaged)
    with pytest.raises(OSError, match="leads out of the archive"):
        images.read(unsafe)


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_find_images_reads_tar(tmp_path: Path, suffix: str) -> None:
    file = tarred(tmp_path / f"photos{suffix}", {"a/1.jpg": b"one", "2.jpg": b"two"})

    images = find_images([str(file)])

    assert [images.read(name) for name in images] == [b"one", b"two"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.csv", "file;label\n1.jpg;ant\n;bee\n"),
        ("list.csv", "image_path\tlabel\n1.jpg\tant\n\tbee\n"),
        ("list.tsv", "filename\tlabel\n1.jpg\tant\n\tbee\n"),
        ("list.jsonl", '{"file_name": "1.jpg", "label": "ant"}\n{"label": "bee"}\n'),
    ],
)
def test_find_images_and_fit_accept_the_same_lists(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    (tmp_path / "1.jpg").touch()

    first, second = find_images([str(tmp_path / name)])
    entries = list(open_source(tmp_path / name).entries())

    assert Path(first).name == "1.jpg"
    assert second.endswith("(line 3)") or name.endswith("jsonl")
    assert [(entry.path, entry.label, entry.rejected) for entry in entries] == [
        (second.removeprefix(f"{tmp_path / name} "), "bee", "no_path"),
        ("1.jpg", "ant", None),
    ]


def test_find_images_rejects_missing_inputs_and_lists_without_paths(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("label\nant\n")

    with pytest.raises(SourceNotFoundError, match="Expected an image, a folder"):
        find_images([str(tmp_path / "nothing*.jpg")])
    with pytest.raises(BrokenSourceError, match=r"the columns are label\. Expected a column of paths"):
        find_images([str(tmp_path / "list.csv")])


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("list.jsonl", b'{"path": "1.jpg"}\n\n{"path": \n', "line 3 is not valid JSON"),
        ("list.txt", b"caf\xe9.jpg\n", "not UTF-8 .byte 0xe9 in line 1"),
        ("list.csv", b"path\ncaf\xe9.jpg\n", "not UTF-8"),
        ("list.csv", b"path\n" + b"x" * 200_000, "field larger than field limit"),
        ("list.parquet", b"PAR1 no table", "can't be read"),
        ("photos.zip", b"PK\x05\x06" + b"\0" * 8 + b"\xff" * 8 + b"\0\0", "can't be read"),
    ],
)
def test_find_images_names_unreadable_list_or_archive(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(BrokenSourceError, match=rf"{name}: .*{problem}"):
        find_images([str(tmp_path / name)])


def test_find_images_keeps_undecodable_names_and_broken_links(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    odd = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    Path(os.fsdecode(odd)).write_bytes(b"odd")

    images = find_images([str(tmp_path)])

    shown = next(name for name in images if "caf" in name)
    assert shown.endswith(r"caf\xe9.jpg")
    assert images.read(shown) == b"odd"
    with pytest.raises(OSError, match="broken symbolic link"):
        images.read(str(tmp_path / "gone.jpg"))
