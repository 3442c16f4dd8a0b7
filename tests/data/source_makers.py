"""Makes the same six images as every kind of source."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa  # noqa: TID253 - tables are written here
import pyarrow.parquet as pq  # noqa: TID253 - the same

from tests.data.sample_images import encoded, sample_image

FILES = {
    f"{label}/{number}.png": encoded(sample_image(10 * at + number), "PNG")
    for at, label in enumerate(("ants", "bees"))
    for number in range(3)
}
Maker = Callable[[Path], Path]


def put(root: Path, files: dict[str, bytes]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


def zipped(file: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return file


def tarred(file: Path, files: dict[str, bytes]) -> Path:
    mode = {".gz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}.get(file.suffix, "w")
    with tarfile.open(file, mode) as archive:  # type: ignore[call-overload]
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file


def table(delimiter: str = ",") -> bytes:
    rows = ["path,label".replace(",", delimiter)] + [delimiter.join((path, path.split("/")[0])) for path in FILES]
    return "\n".join(rows).encode()


def json_lines() -> bytes:
    return "\n".join(json.dumps({"file_name": path, "label": path.split("/")[0]}) for path in FILES).encode()


def columns() -> dict[str, list[object]]:
    images: list[object] = [{"bytes": data, "path": path} for path, data in FILES.items()]
    return {"image": images, "label": [int(path.startswith("bees")) for path in FILES]}


def hf_table() -> pa.Table:
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["ants", "bees"]}}
    about = json.dumps({"info": {"features": features}})
    return pa.table(columns()).replace_schema_metadata({"huggingface": about})


def saved_to_disk(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "state.json").write_text("{}")
    (folder / "dataset_info.json").write_text("{}")
    with pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as out, pa.ipc.new_stream(out, hf_table().schema) as stream:
        stream.write_table(hf_table(), max_chunksize=2)
    return folder


def saved_dict(folder: Path) -> Path:
    saved_to_disk(folder / "train")
    saved_to_disk(folder / "test")
    put(folder, {"dataset_dict.json": b'{"splits": ["train", "test"]}'})
    return folder


def parquet(file: Path) -> Path:
    pq.write_table(hf_table(), file, row_group_size=2)
    return file


def shard(file: Path) -> Path:
    members: dict[str, bytes] = {}
    for number, (path, data) in enumerate(FILES.items()):
        members |= {f"{number:04}.png": data, f"{number:04}.cls": path.split("/")[0].encode()}
    return tarred(file, members)


def json_shards(folder: Path) -> Path:
    folder.mkdir()
    for number, (path, data) in enumerate(FILES.items()):
        about = json.dumps({"label": path.split("/")[0]}).encode()
        tarred(folder / f"all-{number}.tar", {"a.png": data, "a.json": about})
    return folder


def in_zip(folder: Path) -> Path:
    """A zip of ``folder``."""
    files = {str(file.relative_to(folder.parent)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    return zipped(folder.with_suffix(".zip"), files)


def flat_with_manifest() -> dict[str, bytes]:
    """All images in one folder, and a table of their labels."""
    flat = {path: f"images/{path.replace('/', '-')}" for path in FILES}
    rows = ["file_name,class", *(f"{flat[path]},{path.split('/')[0]}" for path in FILES)]
    return {f"in/{flat[path]}": data for path, data in FILES.items()} | {"in/labels.csv": "\n".join(rows).encode()}


KINDS: dict[str, tuple[str, Maker]] = {
    "class folders": ("class_folders", lambda at: put(at / "x", FILES)),
    "wrapped class folders": ("class_folders", lambda at: put(at, {f"x/y/{path}": data for path, data in FILES.items()})),
    "csv": ("manifest", lambda at: put(at, FILES | {"m.csv": table()}) / "m.csv"),
    "semicolons and a byte order mark": (
        "manifest",
        lambda at: put(at, FILES | {"m.csv": b"\xef\xbb\xbf" + table(";")}) / "m.csv",
    ),
    "tsv": ("manifest", lambda at: put(at, FILES | {"m.tsv": table("\t")}) / "m.tsv"),
    "json lines": ("manifest", lambda at: put(at, FILES | {"m.jsonl": json_lines()}) / "m.jsonl"),
    "zip of class folders": ("archive_of_class_folders", lambda at: zipped(at / "x.zip", FILES)),
    "zip with a manifest": (
        "manifest",
        lambda at: zipped(at / "x.zip", flat_with_manifest()),
    ),
    "tar": ("archive_of_class_folders", lambda at: tarred(at / "x.tar", FILES)),
    "tar.gz": ("archive_of_class_folders", lambda at: tarred(at / "x.tar.gz", FILES)),
    "tar.xz": ("archive_of_class_folders", lambda at: tarred(at / "x.tar.xz", FILES)),
    "one shard": ("webdataset", lambda at: shard(at / "x.tar")),
    "a compressed shard": ("webdataset", lambda at: shard(at / "x.tar.gz")),
    "a folder of shards": ("webdataset", lambda at: json_shards(at / "x")),
    "parquet": ("parquet", lambda at: parquet(at / "x.parquet")),
    "a folder of parquet": ("parquet", lambda at: parquet(put(at, {"README.md": b"x"}) / "x.parquet").parent),
    "zip of parquet": ("archive_of_parquet", lambda at: in_zip(parquet(put(at / "in" / "data", {}) / "x.parquet").parent)),
    "zip of arrow": ("archive_of_arrow", lambda at: in_zip(saved_to_disk(at / "x"))),
    "zip of shards": ("archive_of_webdataset", lambda at: in_zip(json_shards(at / "x"))),
    "arrow": ("arrow", lambda at: saved_to_disk(at / "x")),
}
