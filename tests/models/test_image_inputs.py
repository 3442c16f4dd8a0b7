from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from automl_tl.errors import BrokenSourceError, DataError, SourceNotFoundError
from automl_tl.models.image_inputs import find_images


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
        return [Path(name).name for name in find_images(inputs, stdin=io.StringIO(f"{tmp_path}/2.jpg\n"))]

    assert names(f"{tmp_path}/*.jpg") == ["1.jpg", "2.jpg"]
    assert names(f"{tmp_path}/list.csv") == ["1.jpg", "3.png"]
    assert names(f"{tmp_path}/list.jsonl") == ["2.jpg"]
    assert names(f"{tmp_path}/list.txt") == ["3.png"]
    assert names(f"{tmp_path}/list.parquet") == ["1.jpg"]
    assert names("-") == ["2.jpg"]


def test_find_images_reads_zip_and_damage_affects_one_row(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("a/1.jpg", b"one")
        archive.writestr("../2.jpg", b"two")
    data = bytearray((tmp_path / "photos.zip").read_bytes())
    data[data.index(b"two")] ^= 0xFF
    (tmp_path / "photos.zip").write_bytes(data)

    images = find_images([str(tmp_path / "photos.zip")])

    good, bad = images
    assert images.read(good) == b"one"
    with pytest.raises(OSError, match="CRC"):
        images.read(bad)


def test_find_images_rejects_missing_inputs_and_lists_without_paths(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("label\nant\n")

    with pytest.raises(SourceNotFoundError, match="Expected an image, a folder"):
        find_images([str(tmp_path / "nothing*.jpg")])
    with pytest.raises(DataError, match="no column of paths"):
        find_images([str(tmp_path / "list.csv")])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("list.jsonl", b'{"path": "1.jpg"}\n\n{"path": \n', "line 3 is not valid JSON"),
        ("list.txt", b"caf\xe9.jpg\n", "not UTF-8 .found the byte 0xe9"),
        ("list.csv", b"path\ncaf\xe9.jpg\n", "not UTF-8"),
        ("list.csv", b"path\n" + b"x" * 200_000, "field larger than field limit"),
        ("list.parquet", b"PAR1 no table", "can't be read"),
        ("photos.zip", b"PK\x05\x06" + b"\0" * 8 + b"\xff" * 8 + b"\0\0", "can't be read"),
    ],
)
def test_find_images_names_unreadable_list_or_archive(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(BrokenSourceError, match=rf"{name}: .*{said}"):
        find_images([str(tmp_path / name)])


def test_find_images_keeps_undecodable_names_and_broken_links(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    odd = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    Path(os.fsdecode(odd)).write_bytes(b"odd")

    images = find_images([str(tmp_path)])

    shown = next(name for name in images if "caf" in name)
    assert shown.endswith("caf\ufffd.jpg")
    assert images.read(shown) == b"odd"
    with pytest.raises(OSError, match="broken symbolic link"):
        images.read(str(tmp_path / "gone.jpg"))
