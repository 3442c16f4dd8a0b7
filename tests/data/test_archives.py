"""Archives that are damaged or malicious."""

from __future__ import annotations

import io
import pickle
import tarfile
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
        ("\\udcfe/1.jpg", "name_not_unicode"),
        ("ants/\\udcff.jpg", "name_not_unicode"),
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
