"""WebDataset shards: each image has the label of its own sidecar, or a row that says why it has none."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl_tl.data import open_source, scan
from automl_tl.values import DatasetIndex
from tests.data.sample_images import encoded, sample_image
from tests.data.source_makers import FILES, tarred

IMAGE = encoded(sample_image(1), "PNG")
PLAIN = {"0.png": FILES["ants/0.png"], "0.cls": b"ants"}


def indexed(file: Path, members: dict[str, bytes]) -> DatasetIndex:
    return scan(open_source(tarred(file, members)), allow_empty=True)


def labels(index: DatasetIndex) -> dict[str, str]:
    return {image.path: image.label for image in index.images}


def test_shard_gives_each_image_with_dots_the_label_of_its_own_sidecar(tmp_path: Path) -> None:
    members = {f"shot 10.{n}.22.png": data for n, data in enumerate(FILES.values())}
    members |= {f"shot 10.{n}.22.cls": path.split("/")[0].encode() for n, path in enumerate(FILES)}

    index = indexed(tmp_path / "x.tar", members)

    assert labels(index) == {f"shot 10.{n}.22.png": path.split("/")[0] for n, path in enumerate(FILES)}


def test_shard_gives_all_views_of_a_sample_its_plain_label(tmp_path: Path) -> None:
    members = {"a.b/7.left.png": IMAGE, "a.b/7.right.png": FILES["ants/0.png"], "a.b/7.cls": b"bees"}

    assert labels(indexed(tmp_path / "x.tar", PLAIN | members)) == {
        "0.png": "ants",
        "a.b/7.left.png": "bees",
        "a.b/7.right.png": "bees",
    }


def test_shard_rejects_image_whose_key_has_only_labels_of_others(tmp_path: Path) -> None:
    index = indexed(tmp_path / "x.tar", PLAIN | {"1.a.png": IMAGE, "1.b.cls": b"bees", "1.c.cls": b"ants", "2.png": IMAGE})

    assert labels(index) == {"0.png": "ants"}
    assert [(row.path, row.reason) for row in index.rejected] == [("1.a.png", "no_label"), ("2.png", "no_label")]
    assert "1.a.cls or 1.cls" in index.rejected[0].detail
    assert "1.b.cls, 1.c.cls" in index.rejected[0].detail


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text("ab.", min_size=1, max_size=4), unique=True, min_size=1, max_size=8), st.data())
def test_shard_never_gives_label_of_other_sample(stems: list[str], data: st.DataObject) -> None:
    with_label = data.draw(st.sets(st.sampled_from(stems)))
    members = {f"x{stem}.png": IMAGE for stem in stems} | {f"x{stem}.cls": f"x{stem}".encode() for stem in with_label}

    with TemporaryDirectory() as folder:
        index = indexed(Path(folder, "x.tar"), PLAIN | members)

    for image in index.images:
        stem, key = image.path.rpartition(".")[0], image.path.split(".")[0]
        assert image.path == "0.png" or image.label == (stem if stem[1:] in with_label else key)
    assert len(index.images) + len(index.rejected) == 1 + len(stems)


@pytest.mark.parametrize(
    ("sidecar", "label"),
    [
        (b"bees\r\n", "bees"),
        (b"\xef\xbb\xbfbees", "bees"),
        ("bees".encode("utf-16"), "bees"),
        ("Biene mit Stachel ü".encode(), "Biene mit Stachel ü"),
        (b"3", "3"),
        (b"", None),
        (b"\xff\x00\x13", None),
        (b"\x03\0\0\0\0\0\0\0", None),
        (b"ants\nbees", None),
    ],
)
def test_shard_reads_text_label(sidecar: bytes, label: str | None, tmp_path: Path) -> None:
    index = indexed(tmp_path / "x.tar", PLAIN | {"1.png": IMAGE, "1.CLS": sidecar})

    assert labels(index).get("1.png") == label
    assert [(row.path, row.reason) for row in index.rejected] == ([] if label else [("1.png", "no_label")])
    assert all("1.CLS" in row.detail for row in index.rejected)


@pytest.mark.parametrize(
    ("facts", "label"),
    [
        ('{"label": "bees"}', "bees"),
        ('\ufeff{"label": "bees"}', "bees"),
        ('{"label": 3}', "3"),
        ('{"label": 3.0}', "3"),
        ('{"label": true}', "true"),
        ('{"label": null, "class": "bees"}', "bees"),
        *((text, None) for text in ('{"label": null}', '{"label": NaN}', '{"label": ["a", "b"]}', '{"label": {"a": 1}}')),
        *(
            (text, None)
            for text in ('{"text": "bees"}', '["bees"]', "3", "{", "[" * 100_000, '{"label": 1e999}', '{"label": ""}')
        ),
    ],
)
def test_shard_reads_json_label(facts: str, label: str | None, tmp_path: Path) -> None:
    index = indexed(tmp_path / "x.tar", PLAIN | {"1.png": IMAGE, "1.json": facts.encode()})

    assert labels(index).get("1.png") == label
    assert [(row.path, row.reason) for row in index.rejected] == ([] if label else [("1.png", "no_label")])


def test_shard_prefers_text_label_and_falls_back_to_json(tmp_path: Path) -> None:
    both = {"1.png": IMAGE, "1.cls": b"bees", "1.json": b'{"label": "wasps"}'}
    fallback = {"2.png": FILES["ants/1.png"], "2.cls": b"", "2.json": b'{"label": "wasps"}'}

    assert labels(indexed(tmp_path / "x.tar", PLAIN | both | fallback)) == {"0.png": "ants", "1.png": "bees", "2.png": "wasps"}


def test_shard_ignores_files_of_macos_and_metadata(tmp_path: Path) -> None:
    index = indexed(tmp_path / "x.tar", PLAIN | {"._0.png": b"\0\5\x16\7", "._0.cls": b"\0\5\x16\7", "__meta__": b"x"})

    assert labels(index) == {"0.png": "ants"}
    assert (index.rejected, index.ignored) == ((), {"hidden": 2, "sidecar": 2})


def test_shards_keep_keys_of_each_other_apart(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    tarred(tmp_path / "x" / "a.tar", {"0.png": IMAGE, "0.cls": b"ants"})
    tarred(tmp_path / "x" / "b.tar", {"0.png": FILES["ants/0.png"], "0.cls": b"bees"})
    tarred(tmp_path / "x" / "c.tar", {"0.png": FILES["ants/1.png"], "1.cls": b"bees"})

    index = scan(open_source(tmp_path / "x"))

    assert labels(index) == {"a.tar/0.png": "ants", "b.tar/0.png": "bees"}
    assert [row.path for row in index.rejected] == ["c.tar/0.png"]


def test_shard_rejects_second_sample_of_a_name(tmp_path: Path) -> None:
    tarred(tmp_path / "x.tar", PLAIN)
    with tarfile.open(tmp_path / "x.tar", "a") as archive:
        for name, data in {"0.png": IMAGE, "0.cls": b"bees"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))

    source = open_source(tmp_path / "x.tar")
    index = scan(source)

    assert labels(index) == {"0.png": "ants"}
    assert source.read("0.png") == PLAIN["0.png"]
    assert [row.reason for row in index.rejected] == ["repeated_name"] * 2


def test_tar_of_class_folders_with_annotations_is_not_a_shard(tmp_path: Path) -> None:
    boxes = {path.replace(".png", ".json"): json.dumps({"shapes": []}).encode() for path in FILES}

    index = indexed(tmp_path / "x.tar", FILES | boxes)

    assert index.source == "archive_of_class_folders"
    assert (len(index.images), index.ignored) == (6, {"other_file": 6})
