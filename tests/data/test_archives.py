"""Archives that are damaged or malicious."""

from __future__ import annotations

import io
import pickle
import tarfile
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from automl_tl.data import audit_index, open_source, scan
from automl_tl.errors import BrokenSourceError
from automl_tl.values import DatasetIndex
from tests.data.sample_images import encoded, sample_image
from tests.data.source_makers import FILES, parquet, tarred, zipped

Maker = Callable[[Path, dict[str, bytes]], Path]


def test_archive_rejects_names_that_lead_out(tmp_path: Path) -> None:
    jpeg = encoded(sample_image(1))
    names = ["../outside.jpg", "/etc/absolute.jpg", "ants/../../up.jpg", "..\\windows.jpg", "C:\\drive.jpg"]

    for file in (
        zipped(tmp_path / "x.zip", FILES | dict.fromkeys(names, jpeg)),
        tarred(tmp_path / "x.tar", FILES | dict.fromkeys(names, jpeg)),
    ):
        index = scan(open_source(file))
        assert {row.reason for row in index.rejected} == {"unsafe_path"}
        assert (len(index.rejected), len(index.images)) == (5, 6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.tar", "x.zip"]


def test_archive_of_tables_is_unpacked_into_temporary_folder_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    table = parquet(tmp_path / "x.parquet").read_bytes()
    names = ["../../up.parquet", f"{tmp_path}/absolute.parquet", "__MACOSX/._x.parquet"]
    zipped(tmp_path / "x.zip", {"x.parquet": table, **dict.fromkeys(names, table)})

    source = open_source(tmp_path / "x.zip")
    index = scan(source)
    unpacked = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*.parquet")}
    del source

    assert [row.reason for row in index.rejected] == ["unsafe_path"] * 2
    assert (len(index.images), index.ignored) == (6, {"litter": 1})
    assert unpacked == {"x.parquet", "temporary"}
    assert not list((tmp_path / "temporary").rglob("*.parquet"))


def test_archive_rejects_names_that_are_not_unicode(tmp_path: Path) -> None:
    names = ["ants/\udcff.jpg", "\udcfe/1.jpg"]
    file = tarred(tmp_path / "x.tar", FILES | dict.fromkeys(names, encoded(sample_image(1))))

    index = scan(open_source(file))

    assert [(row.path, row.reason) for row in index.rejected] == [
        ("\\xfe/1.jpg", "name_not_unicode"),
        ("ants/\\xff.jpg", "name_not_unicode"),
    ]
    assert DatasetIndex.model_validate_json(index.model_dump_json()) == index
    assert audit_index(index).findings


def test_archive_rejects_links_and_devices(tmp_path: Path) -> None:
    tarred(tmp_path / "x.tar", FILES)
    with tarfile.open(tmp_path / "x.tar", "a") as archive:
        for name, kind in (
            ("ants/link.jpg", tarfile.SYMTYPE),
            ("ants/hard.jpg", tarfile.LNKTYPE),
            ("ants/null.jpg", tarfile.CHRTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)

    index = scan(open_source(tmp_path / "x.tar"))

    assert [row.reason for row in index.rejected] == ["link_in_archive"] * 3


def test_archive_rejects_zip_bomb_without_inflating_it(tmp_path: Path) -> None:
    index = scan(open_source(zipped(tmp_path / "x.zip", FILES | {"ants/bomb.png": bytes(40 * 2**20)})))

    assert [(row.path, row.reason) for row in index.rejected] == [("ants/bomb.png", "too_large")]


def test_archive_refuses_tar_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("automl_tl.data.sources.archives.MIN_ALLOWANCE_BYTES", 2**20)
    tarred(tmp_path / "x.tar.gz", FILES | {"ants/bomb.png": bytes(20 * 2**20)})

    with pytest.raises(BrokenSourceError, match="hundred times"):
        open_source(tmp_path / "x.tar.gz")


def test_archive_rejects_damaged_member(tmp_path: Path) -> None:
    data = bytearray(zipped(tmp_path / "x.zip", FILES).read_bytes())
    data[60:90] = bytes(30)
    (tmp_path / "x.zip").write_bytes(data)

    index = scan(open_source(tmp_path / "x.zip"))

    assert [(row.path, row.reason) for row in index.rejected] == [("ants/0.png", "unreadable")]


@pytest.mark.parametrize("make", [zipped, tarred])
def test_archive_reads_first_of_members_with_one_name(make: Maker, tmp_path: Path) -> None:
    file = make(tmp_path / f"x.{make.__name__[:3]}", FILES)
    second = encoded(sample_image(99))
    if make is zipped:
        with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("ants/0.png", second)
    else:
        with tarfile.open(file, "a") as tar:
            info = tarfile.TarInfo("ants/0.png")
            info.size = len(second)
            tar.addfile(info, io.BytesIO(second))

    source = open_source(file)
    index = scan(source)

    assert [(row.path, row.reason) for row in index.rejected] == [("ants/0.png (member 6)", "repeated_name")]
    assert source.read("ants/0.png") == pickle.loads(pickle.dumps(source)).read("ants/0.png") == FILES["ants/0.png"]


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize("prefix", ["", ".\\", "set\\"])
def test_archive_reads_backslashes_as_folders(prefix: str, make: Maker, tmp_path: Path) -> None:
    names = {path: prefix + path.replace("/", "\\") for path in FILES}
    splits = {
        f"{prefix}{split}\\{names[path].removeprefix(prefix)}": FILES[path] for path in FILES for split in ("train", "test")
    }

    classes = scan(open_source(make(tmp_path / "classes.archive.zip", {names[path]: data for path, data in FILES.items()})))
    split = scan(open_source(make(tmp_path / "splits.zip", splits)))

    assert {(image.path.removeprefix("set/"), image.label) for image in classes.images} == {
        (path, path.split("/")[0]) for path in FILES
    }
    assert {(image.label, image.split) for image in split.images} == {
        (label, part) for label in ("ants", "bees") for part in ("train", "test")
    }


@pytest.mark.parametrize("make", [zipped, tarred])
def test_archive_with_backslashes_or_dots_reads_table_inside(make: Maker, tmp_path: Path) -> None:
    rows = "path,label\n" + "\n".join(f"{path},{path.split('/')[0]}" for path in FILES)
    for prefix, separator in (("flat\\", "\\"), ("./", "/")):
        images = {prefix + path.replace("/", separator): data for path, data in FILES.items()}

        index = scan(open_source(make(tmp_path / "x.zip", {f"{prefix}labels.csv": rows.encode()} | images)))

        assert (index.rejected, len(index.images)) == ((), 6)


@pytest.mark.parametrize("make", [zipped, tarred])
def test_archive_reads_first_of_names_that_differ_by_separator(make: Maker, tmp_path: Path) -> None:
    second = encoded(sample_image(99))

    source = open_source(make(tmp_path / "x.zip", FILES | {"ants\\0.png": second, "./ants//1.png": second}))

    assert [row.reason for row in scan(source).rejected] == ["repeated_name"] * 2
    assert source.read("ants/0.png") == FILES["ants/0.png"]


@pytest.mark.parametrize("name", ["..\\x.jpg", "ants\\..\\..\\x.jpg", "\\x.jpg", "\\\\server\\x.jpg", "d:x.jpg", "C:\\x.jpg"])
def test_archive_rejects_backslashes_that_lead_out(name: str, tmp_path: Path) -> None:
    index = scan(open_source(zipped(tmp_path / "x.zip", FILES | {name: FILES["ants/0.png"]})))

    assert [row.reason for row in index.rejected] == ["unsafe_path"]


def test_archive_of_archives_names_the_inner_one(tmp_path: Path) -> None:
    inner = zipped(tmp_path / "inner.zip", FILES).read_bytes()
    zipped(tmp_path / "outer.zip", {"data/inner.zip": inner, "data/README.txt": b"x", "labels.csv": b"path,label"})
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inner.zip").write_bytes(inner)

    with pytest.raises(BrokenSourceError, match=r"archives \(data/inner.zip\).*unpack it"):
        open_source(tmp_path / "outer.zip")
    with pytest.raises(BrokenSourceError, match=r"archives \(inner.zip\).*folder/inner.zip"):
        open_source(tmp_path / "folder")
    (tmp_path / "folder" / "data").mkdir()
    (tmp_path / "folder" / "data" / "bees.zip").write_bytes(inner)
    with pytest.raises(BrokenSourceError, match=r"inner\.zip, data/bees\.zip.*unpack each"):
        open_source(tmp_path / "folder")
    (tmp_path / "folder" / "data" / "ants").mkdir()
    (tmp_path / "folder" / "data" / "ants" / "0.png").write_bytes(FILES["ants/0.png"])
    assert open_source(tmp_path / "folder").class_names()


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_archive_reads_no_more_than_member_declares(method: int, tmp_path: Path) -> None:
    size, declared = 30 * 2**20, 1_234_567
    with zipfile.ZipFile(tmp_path / "x.zip", "w", method) as archive:
        archive.writestr("ants/lie.png", bytes(size))
        archive.writestr("ants/0.png", FILES["ants/0.png"])
    data = (tmp_path / "x.zip").read_bytes()
    (tmp_path / "x.zip").write_bytes(data.replace(size.to_bytes(4, "little"), declared.to_bytes(4, "little")))

    tracemalloc.start()
    index = scan(open_source(tmp_path / "x.zip"), workers=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert [(row.path, row.reason) for row in index.rejected] == [("ants/lie.png", "unreadable")]
    assert peak < (80 * 2**20 if method == zipfile.ZIP_LZMA else 5 * 2**20)
    assert len(index.images) == 1


def test_archive_never_reads_rejected_member(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path, data in FILES.items():
            archive.writestr(path, data)
        archive.writestr("ants/0.png", bytes(40 * 2**20))

    tracemalloc.start()
    source = open_source(tmp_path / "x.zip")
    index = scan(source)
    with pytest.raises(OSError, match="another file of this name"):
        source.read(index.rejected[0].path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert [row.reason for row in index.rejected] == ["repeated_name"]
    assert peak < 2**23


def test_archive_refuses_tar_with_negative_size(tmp_path: Path) -> None:
    data = bytearray(tarred(tmp_path / "x.tar", FILES).read_bytes())
    data[124:136] = b"\xff" * 8 + (-2048).to_bytes(4, "big", signed=True)
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    (tmp_path / "x.tar").write_bytes(data)

    with pytest.raises(BrokenSourceError, match="size of -2048 bytes"):
        open_source(tmp_path / "x.tar")


@pytest.mark.parametrize("make", [zipped, tarred])
def test_archive_rejects_other_kinds_of_files_among_images(make: Maker, tmp_path: Path) -> None:
    others = {
        "ants/scan.dcm": bytes(128) + b"DICM" + bytes(40),
        "ants/IM0001": bytes(128) + b"DICM" + bytes(40),
        "ants/clip.mp4": b"\0\0\0\x18ftypmp42" + bytes(40),
        "ants/page.pdf": b"%PDF-1.7",
        "ants/drawing.svg": b"<svg></svg>",
        "ants/volume.nii": bytes(344) + b"n+1\0",
    }

    index = scan(
        open_source(make(tmp_path / "x.zip", FILES | others | {"README.pdf": b"%PDF-1.7", "ants/notes.txt": b"hello"}))
    )

    assert {row.path: row.label for row in index.rejected} == dict.fromkeys(others, "ants")
    assert {row.reason for row in index.rejected} == {"unsupported", "not_an_image"}
    assert index.ignored == {"other_file": 2}


@pytest.mark.parametrize("make", [zipped, tarred])
def test_archive_with_manifest_reads_no_rejected_or_missing_member(make: Maker, tmp_path: Path) -> None:
    images = {f"images/{number}.png": data for number, data in enumerate(FILES.values())} | {"../out.png": FILES["ants/0.png"]}
    rows = ["path,label", *(f"{path},{label}" for label, path in zip("aabbbba", [*images, "gone.png"], strict=False))]
    rows += ["gone.png,b"]
    file = make(tmp_path / f"x.{make.__name__[:3]}", images | {"m.csv": "\n".join(rows).encode()})

    index = scan(open_source(file))

    assert len(index.images) == 6
    assert [(row.path, row.reason) for row in index.rejected] == [("../out.png", "unreadable"), ("gone.png", "missing_file")]


@pytest.mark.parametrize("make", [zipped, tarred])
def test_archive_rejects_camera_raw_like_a_folder(make: Maker, tmp_path: Path) -> None:
    file = make(tmp_path / f"x.{make.__name__[:3]}", FILES | {"ants/photo.nef": b"II*\0" + bytes(40)})

    assert [(row.path, row.reason) for row in scan(open_source(file)).rejected] == [("ants/photo.nef", "camera_raw")]
