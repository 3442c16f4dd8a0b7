"""Every kind of source gives the same images; whatever cannot be used has a reason."""

from __future__ import annotations

import gc
import os
import pickle
from pathlib import Path

import pyarrow as pa  # noqa: TID253 - the makers write tables
import pyarrow.parquet as pq  # noqa: TID253 - the same
import pytest

from automl_tl.data import Source, open_source, scan
from automl_tl.data.sources import source as source_module
from automl_tl.data.sources.source import file_stamp
from automl_tl.errors import BrokenSourceError, NoImagesError, SourceNotFoundError
from automl_tl.values import DatasetIndex
from tests.data.sample_images import encoded, sample_image, write_tree
from tests.data.source_makers import FILES, KINDS, columns, hf_table, put, saved_dict, shard, zipped


def content(source: Source, index: DatasetIndex) -> list[tuple[str, bytes]]:
    return sorted((image.label, source.read(image.path)) for image in index.images)


@pytest.mark.parametrize("name", KINDS)
def test_open_source_reads_the_same_images_from_every_kind(name: str, tmp_path: Path) -> None:
    kind, make = KINDS[name]
    source = open_source(make(tmp_path))

    index = scan(source)

    assert index.source == kind
    assert index.classes == ("ants", "bees")
    assert content(source, index) == sorted((path.split("/")[0], data) for path, data in FILES.items())
    assert len(index.images) + len(index.rejected) + sum(index.ignored.values()) == index.num_files


@pytest.mark.parametrize("name", KINDS)
def test_source_of_every_kind_reads_after_pickling(name: str, tmp_path: Path) -> None:
    source = open_source(KINDS[name][1](tmp_path))
    paths = sorted(entry.path for entry in source.entries() if entry.label)

    sent = pickle.loads(pickle.dumps(source))

    assert [sent.read(path) for path in paths] == [source.read(path) for path in paths]


def test_manifest_gives_splits_and_groups(tmp_path: Path) -> None:
    rows = "path,label,split,group\nants/0.png,ants,train,g1\nants/1.png,ants,VAL,g1\nbees/0.png,bees,test,\n"
    put(tmp_path, FILES | {"m.csv": rows.encode()})

    index = scan(open_source(tmp_path / "m.csv"))

    assert [(image.split, image.group) for image in index.images] == [("train", "g1"), ("validation", "g1"), ("test", None)]


def test_manifest_rejects_unusable_rows_with_a_reason(tmp_path: Path) -> None:
    rows = ["path,label,split", "ants/0.png,ants,", "ants/0.png,ants,", "ants/1.png,ants,", "ants/1.png,bees,"]
    rows += ["ants/2.png,,", "gone.png,ants,", "bees/0.png,bees,fold 3", ",bees,", ""]
    put(tmp_path, FILES | {"m.csv": "\n".join(rows).encode()})

    index = scan(open_source(tmp_path / "m.csv"))

    assert {row.path: row.reason for row in index.rejected} == {
        "(line 9)": "no_path",
        "ants/1.png": "conflicting_rows",
        "ants/2.png": "no_label",
        "bees/0.png": "unknown_split",
        "gone.png": "missing_file",
    }
    assert index.ignored == {"repeated_row": 2}
    assert [image.path for image in index.images] == ["ants/0.png"]


def test_manifest_may_be_parquet(tmp_path: Path) -> None:
    put(tmp_path, FILES)
    paths = list(FILES)
    pq.write_table(pa.table({"path": paths, "label": [0, 0, 0, 1, 1, 1], "size": [1] * 6}), tmp_path / "m.parquet")

    index = scan(open_source(tmp_path / "m.parquet"))

    assert (index.source, index.classes, len(index.images)) == ("manifest", ("0", "1"), 6)


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("m.csv", b"image_name,tags\n1,2\n", "image_name, tags"),
        ("m.csv", b"", "(none)"),
        ("m.csv", "path,label\ncafé.jpg,x".encode("latin-1"), "not UTF-8"),
        ("m.parquet", b"PAR1nonsense", "can't be read"),
        ("x.zip", b"PK\x03\x04 nonsense", "can't be read"),
        ("x.tar.gz", b"\x1f\x8b nonsense", "can't be read"),
        ("x.tar", b"nonsense" * 300, "can't be read"),
    ],
)
def test_open_source_names_problem_of_broken_table_or_archive(name: str, data: bytes, problem: str, tmp_path: Path) -> None:
    put(tmp_path, {name: data})

    with pytest.raises(BrokenSourceError, match="Expected") as error:
        open_source(tmp_path / name)

    assert problem in str(error.value)


def test_shards_and_tables_take_splits_from_file_names(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    shard(tmp_path / "shards" / "set-train-000.tar")
    shard(tmp_path / "shards" / "set-test-000.tar")

    for root in (tmp_path / "shards", saved_dict(tmp_path / "saved")):
        splits = [image.split for image in scan(open_source(root)).images]
        assert (splits.count("train"), splits.count("test")) == (6, 6)


def test_table_rejects_rows_without_bytes_or_label(tmp_path: Path) -> None:
    rows = {"image": [{"bytes": None, "path": "a.png"}, *columns()["image"][1:]], "label": [0, -1, 0, 1, 1, 1]}
    pq.write_table(pa.table(rows).replace_schema_metadata(hf_table().schema.metadata), tmp_path / "x.parquet")

    index = scan(open_source(tmp_path / "x.parquet"))

    assert [row.reason for row in index.rejected] == ["no_bytes", "no_label"]


def test_open_source_rejects_folder_of_images_without_classes(tmp_path: Path) -> None:
    put(tmp_path, {"a.jpg": encoded(sample_image(1)), "b.jpg": encoded(sample_image(2))})

    with pytest.raises(NoImagesError, match=r"found: a.jpg, b.jpg"):
        open_source(tmp_path)


def test_open_source_reads_folder_by_its_only_manifest(tmp_path: Path) -> None:
    put(tmp_path, {"images/a.jpg": encoded(sample_image(1)), "images/b.jpg": encoded(sample_image(2))})
    put(tmp_path, {"labels.csv": b"file_name,label\nimages/a.jpg,ants\nimages/b.jpg,bees\n", "notes.csv": b"x,y\n"})

    index = scan(open_source(tmp_path))

    assert index.classes == ("ants", "bees")
    assert (index.ignored, index.num_files) == ({"other_file": 2}, 4)


def test_manifest_counts_files_that_it_does_not_name(tmp_path: Path) -> None:
    images = {f"images/{name}.jpg": encoded(sample_image(at)) for at, name in enumerate("abcd")}
    table = f"path,label\n./images/a.jpg,ants\n{tmp_path}/x/images//b.jpg,bees\n".encode()
    put(tmp_path / "x", images | {"labels.csv": table, "images/broken.nef": b"x", "images/.e.jpg": b"x"})
    inside = b"path,label\nimages/a.jpg,ants\nimages/b.jpg,bees\n"
    zipped(tmp_path / "x.zip", {f"in/{path}": data for path, data in images.items()} | {"in/labels.csv": inside})

    on_disk, in_archive = scan(open_source(tmp_path / "x")), scan(open_source(tmp_path / "x.zip"))

    assert on_disk.ignored == {"hidden": 1, "not_in_table": 2, "other_file": 1}
    assert [row.reason for row in on_disk.rejected] == ["camera_raw"]
    assert (len(on_disk.images), on_disk.num_files) == (2, 7)
    assert (in_archive.ignored, in_archive.num_files) == ({"not_in_table": 2, "other_file": 1}, 5)


def test_open_source_names_several_manifests_of_a_folder(tmp_path: Path) -> None:
    table = b"path,label\nimages/a.jpg,ants\n"
    put(tmp_path, {"images/a.jpg": encoded(sample_image(1)), "one.csv": table, "two.csv": table})

    with pytest.raises(BrokenSourceError, match=r"one\.csv, two\.csv"):
        open_source(tmp_path)


def test_open_source_rejects_file_of_another_kind(tmp_path: Path) -> None:
    put(tmp_path, {"a.docx": b"PK"})

    with pytest.raises(SourceNotFoundError, match="Expected a folder"):
        open_source(tmp_path / "a.docx")


def test_manifest_gives_stamps_to_the_cache(tmp_path: Path) -> None:
    write_tree(tmp_path, {"ants": 2, "bees": 2})
    put(tmp_path, {"m.csv": b"path,label\nants/000.jpg,ants\nbees/000.jpg,bees\n"})
    source = open_source(tmp_path / "m.csv")

    assert scan(source, cache_dir=tmp_path / "cache") == scan(source, cache_dir=tmp_path / "cache")


def test_file_stamp_is_absent_where_the_system_has_no_change_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows ``st_ctime`` is the time of creation, and tools that copy or unzip set the time of the last write."""
    file, real_stat = tmp_path / "a.jpg", os.stat

    def stat_of_windows(path: str | Path) -> os.stat_result:
        return os.stat_result(real_stat(path), {"st_ctime": 1e9, "st_ctime_ns": 10**18})

    monkeypatch.setattr(source_module, "HAS_CHANGE_TIME", False)
    monkeypatch.setattr(os, "stat", stat_of_windows)
    stamps = []
    for content in (b"old", b"new"):
        file.write_bytes(content)
        os.utime(file, (1_600_000_000, 1_600_000_000))
        stamps.append(file_stamp(file))

    assert stamps == [None, None]  # equal stamps would say that the content is equal


@pytest.mark.usefixtures("windows")
def test_parquet_source_leaves_no_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    source = open_source(KINDS["parquet"][1](tmp_path))
    assert source.read(next(iter(source.entries())).path)

    del source
    gc.collect()

    assert list((tmp_path / "temporary").iterdir()) == []


def test_folder_source_does_not_follow_a_junction_to_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, realpath = write_tree(tmp_path / "images", {"ants": 2, "bees": 2}), os.path.realpath
    junction = root / "ants" / "all"  # of Windows: a folder and no link, but its real path is another folder
    write_tree(junction, {"bees": 2})
    monkeypatch.setattr(os.path, "realpath", lambda path: realpath(root) if Path(path) == junction else realpath(path))

    entries = {entry.path: entry for entry in open_source(root).entries()}

    assert entries.pop("ants/all").rejected == "link_to_folder"
    assert len(entries) == 4
