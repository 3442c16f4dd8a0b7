from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from automl_tl_registry import ModelVersion, Registry
from automl_tl_registry.contents import encode_metadata
from automl_tl_registry.errors import (
    ConflictError,
    DamagedBlobError,
    DamagedManifestError,
    IntegrityError,
    InvalidNameError,
    NotFoundError,
    UnsafeArchiveError,
)
from tests.registry.registry_fakes import FakeClock, publish, snapshot

FORMS = ["insects", "insects.tar", "insects.zip"]


def manifest_file(manifest: object) -> bytes:
    return encode_metadata({"format": "automl_tl.manifest/1", "manifest": json.dumps(manifest)})


@pytest.fixture
def version(registry: Registry, work: Path) -> ModelVersion:
    publish(registry, work, seed=1)
    return publish(registry, work, seed=2)


@pytest.fixture
def other(tmp_path: Path, clock: FakeClock) -> Registry:
    return Registry(tmp_path / "other", clock=clock)


@pytest.mark.parametrize("form", FORMS)
def test_import_restores_an_exported_version(
    registry: Registry, other: Registry, version: ModelVersion, tmp_path: Path, form: str
) -> None:
    exported = registry.export(version.ref, tmp_path / form)

    imported = other.import_(exported, actor="bob")

    assert imported == version
    assert other.load("insects@2").paths["head"].read_bytes() == registry.load("insects@2").paths["head"].read_bytes()
    assert (other.events()[0].verb, other.events()[0].actor) == ("imported", "bob")
    assert other.verify().problems == ()


@pytest.mark.parametrize("form", FORMS)
def test_export_and_import_are_idempotent(
    registry: Registry, other: Registry, version: ModelVersion, tmp_path: Path, form: str
) -> None:
    exported = registry.export(version.ref, tmp_path / form)
    other.import_(exported)
    events = other.events()

    again = other.import_(registry.export(version.ref, tmp_path / form))

    assert again == version
    assert other.events() == events
    assert [path.name for path in tmp_path.glob(".*partial*")] == []


def test_export_folder_is_self_contained(registry: Registry, version: ModelVersion, tmp_path: Path) -> None:
    folder = registry.export(version.ref, tmp_path / "out")

    assert {path.name for path in folder.iterdir()} == {
        "MODEL_CARD.md", "encoder.safetensors", "head.safetensors", "manifest.json", "manifest.safetensors",
    }  # fmt: skip
    assert json.loads((folder / "manifest.json").read_text())["facts"]["classes"] == ["ant", "bee", "wasp"]
    with safe_open(folder / "head.safetensors", "np") as head:
        assert set(head.keys()) == {"weight", "bias"}


def test_export_overwrites_nothing(registry: Registry, version: ModelVersion, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("precious")

    with pytest.raises(ConflictError):
        registry.export(version.ref, tmp_path / "out")

    assert (tmp_path / "out" / "mine").read_text() == "precious"


@pytest.mark.parametrize("target", [".", "..", "/"])
def test_export_to_the_current_folder_overwrites_nothing(
    registry: Registry, version: ModelVersion, work: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    (work / "here").mkdir()
    monkeypatch.chdir(work / "here")

    with pytest.raises(ConflictError):
        registry.export(version.ref, Path(target))

    assert list((work / "here").iterdir()) == []


def test_export_again_from_inside_the_export_succeeds(
    registry: Registry, version: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(registry.export(version.ref, tmp_path / "out"))

    assert registry.export(version.ref, Path()) == Path()


def test_export_rejects_other_archive_formats(registry: Registry, version: ModelVersion, tmp_path: Path) -> None:
    with pytest.raises(InvalidNameError, match=r"\.tar or \.zip"):
        registry.export(version.ref, tmp_path / "out.tar.gz")


def test_import_renumbers_and_records_the_origin(
    registry: Registry, other: Registry, work: Path, version: ModelVersion, tmp_path: Path
) -> None:
    for seed in (7, 8):
        publish(other, work, seed=seed)
    exported = registry.export(version.ref, tmp_path / "out")

    imported = other.import_(exported)

    assert (imported.ref, imported.origin) == ("insects@3", version.manifest_digest)
    assert other.import_(exported) == imported
    assert other.verify().problems == ()


def test_import_accepts_another_name(registry: Registry, other: Registry, version: ModelVersion, tmp_path: Path) -> None:
    exported = registry.export(version.ref, tmp_path / "out")

    imported = other.import_(exported, name="bugs")

    assert (imported.name, imported.origin) == ("bugs", version.manifest_digest)
    assert other.import_(exported, name="bugs") == imported


def test_import_again_restores_missing_and_damaged_files(registry: Registry, version: ModelVersion, tmp_path: Path) -> None:
    exported = registry.export(version.ref, tmp_path / "out.zip")
    registry.path(version.ref, "head").unlink()
    encoder = registry.path(version.ref, "encoder")
    encoder.unlink()
    encoder.write_bytes(b"rubbish")
    (registry.root / "blobs" / "sha256" / version.manifest_digest[:2] / version.manifest_digest).unlink()

    registry.import_(exported)

    assert registry.verify(version.ref).problems == ()


@pytest.mark.parametrize("form", FORMS)
def test_import_rejects_bytes_that_differ_from_the_manifest(
    registry: Registry, other: Registry, version: ModelVersion, tmp_path: Path, form: str
) -> None:
    folder = registry.export(version.ref, tmp_path / "out")
    head = folder / "head.safetensors"
    content = bytearray(head.read_bytes())
    content[-1] ^= 1
    head.unlink()
    head.write_bytes(content)

    with pytest.raises(DamagedBlobError):
        other.import_(packed(folder, tmp_path / form))

    assert other.versions() == []
    assert [path for path in other.root.rglob("*") if path.is_file() and "blobs" in path.parts] == []


def packed(folder: Path, target: Path) -> Path:
    """The files of ``folder`` as they are, in the form that the name of ``target`` tells."""
    if target.suffix == ".tar":
        with tarfile.open(target, "w") as archive:
            for path in folder.iterdir():
                archive.add(path, path.name)
        return target
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w") as zipped:
            for path in folder.iterdir():
                zipped.write(path, path.name)
        return target
    return folder


def hostile_member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    "member",
    [
        hostile_member("../evil"),
        hostile_member("/tmp/evil"),
        hostile_member("sub/evil.safetensors"),
        hostile_member("evil\n.safetensors"),
        hostile_member("evil.exe"),
        hostile_member("extra.safetensors", tarfile.SYMTYPE, "/etc/passwd"),
        hostile_member("extra.safetensors", tarfile.LNKTYPE, "head.safetensors"),
        hostile_member("extra.safetensors", tarfile.DIRTYPE),
        hostile_member("extra.safetensors", tarfile.CHRTYPE),
        hostile_member("extra.safetensors", tarfile.FIFOTYPE),
        hostile_member("head.safetensors"),
    ],
    ids=["up", "absolute", "folder", "newline", "unknown_file", "symlink", "hardlink", "directory", "device", "fifo", "twice"],
)
def test_import_rejects_a_hostile_tar_and_writes_nothing(
    registry: Registry, other: Registry, version: ModelVersion, tmp_path: Path, member: tarfile.TarInfo
) -> None:
    exported = registry.export(version.ref, tmp_path / "out.tar")
    with tarfile.open(exported, "a") as archive:
        archive.addfile(member, io.BytesIO())
    before = snapshot(tmp_path)

    with pytest.raises(UnsafeArchiveError) as caught:
        other.import_(exported)

    assert snapshot(tmp_path) == before
    assert caught.value.exit_code == 9


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil", "..\\evil", "folder/", "head.safetensors"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_import_rejects_a_hostile_zip_and_writes_nothing(
    registry: Registry, other: Registry, version: ModelVersion, tmp_path: Path, name: str
) -> None:
    exported = registry.export(version.ref, tmp_path / "out.zip")
    with zipfile.ZipFile(exported, "a") as archive:
        archive.writestr(name, b"")
    before = snapshot(tmp_path)

    with pytest.raises(UnsafeArchiveError):
        other.import_(exported)

    assert snapshot(tmp_path) == before


def test_import_rejects_a_zip_with_a_symbolic_link(
    registry: Registry, other: Registry, version: ModelVersion, tmp_path: Path
) -> None:
    exported = registry.export(version.ref, tmp_path / "out.zip")
    link = zipfile.ZipInfo("extra.safetensors")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(exported, "a") as archive:
        archive.writestr(link, b"/etc/passwd")

    with pytest.raises(UnsafeArchiveError, match="link"):
        other.import_(exported)


def test_import_rejects_a_folder_with_a_link(
    registry: Registry, other: Registry, version: ModelVersion, tmp_path: Path
) -> None:
    folder = registry.export(version.ref, tmp_path / "out")
    (folder / "head.safetensors").rename(tmp_path / "elsewhere")
    (folder / "head.safetensors").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(UnsafeArchiveError, match="not a plain file"):
        other.import_(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../up"},
        {"name": "a/b"},
        {"name": "a\x00"},
        {"version": 0},
        {"version": True},
        {"version": 10**30},
        {"actor": "\x1b[2J"},
        {"format": "automl_tl.manifest/2"},
        {"blobs": {"../../evil": {"digest": "0" * 64, "size_bytes": 1}}},
        {"blobs": {"manifest": {"digest": "0" * 64, "size_bytes": 1}}},
        {"blobs": {"head": {"digest": "../../../etc/passwd", "size_bytes": 1}}},
        {"blobs": {"head": {"digest": "0" * 64, "size_bytes": -1}}},
        {"created_at": "yesterday"},
        {"unknown_file": 1},
        {"facts": {}},
    ],
    ids=str,
)
def test_import_rejects_a_hostile_manifest_and_writes_nothing(
    registry: Registry, other: Registry, version: ModelVersion, tmp_path: Path, change: dict[str, object]
) -> None:
    folder = registry.export(version.ref, tmp_path / "out")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest |= change
    (folder / "manifest.safetensors").unlink()
    (folder / "manifest.safetensors").write_bytes(manifest_file(manifest))
    before = snapshot(tmp_path)

    with pytest.raises((IntegrityError, InvalidNameError)) as caught:
        other.import_(folder)

    assert str(caught.value).isprintable()
    assert snapshot(tmp_path) == before


def test_import_rejects_control_characters(registry: Registry, other: Registry, work: Path, tmp_path: Path) -> None:
    publish(registry, work, classes=["ant", "\x1b]0;evil\x07"])

    with pytest.raises(DamagedManifestError, match="control characters"):
        other.import_(registry.export("insects", tmp_path / "out"))


@pytest.mark.parametrize("content", [b"", b"\xff" * 200, b"[" * 100_000, b'{"a":1}' * 10])
def test_import_rejects_garbage_as_a_manifest(
    registry: Registry, other: Registry, version: ModelVersion, tmp_path: Path, content: bytes
) -> None:
    folder = registry.export(version.ref, tmp_path / "out")
    (folder / "manifest.safetensors").unlink()
    (folder / "manifest.safetensors").write_bytes(len(content).to_bytes(8, "little") + content)

    with pytest.raises(DamagedManifestError):
        other.import_(folder)


def test_import_rejects_a_missing_file(registry: Registry, other: Registry, version: ModelVersion, tmp_path: Path) -> None:
    folder = registry.export(version.ref, tmp_path / "out")
    (folder / "head.safetensors").unlink()

    with pytest.raises(UnsafeArchiveError, match=r"head\.safetensors is missing"):
        other.import_(folder)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and then nothing", b"\x00" * 10240, b"not an archive at all" * 50])
def test_import_rejects_garbage_as_an_archive(other: Registry, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rubbish.zip").write_bytes(content)

    with pytest.raises(UnsafeArchiveError):
        other.import_(tmp_path / "rubbish.zip")


def test_import_names_a_missing_export(other: Registry, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"nowhere\.tar"):
        other.import_(tmp_path / "nowhere.tar")


def test_import_rejects_impossible_sizes_at_once(
    registry: Registry, other: Registry, version: ModelVersion, tmp_path: Path
) -> None:
    folder = registry.export(version.ref, tmp_path / "out")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["blobs"]["head"]["size_bytes"] = 2**60
    (folder / "manifest.safetensors").unlink()
    (folder / "manifest.safetensors").write_bytes(manifest_file(manifest))

    with pytest.raises(IntegrityError, match="its manifest says 1152921504606846976"):
        other.import_(folder)


def test_import_rejects_malformed_predictions(registry: Registry, other: Registry, work: Path, tmp_path: Path) -> None:
    publish(registry, work)
    folder = registry.export("insects@1", tmp_path / "out")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["blobs"] = {"predictions": manifest["blobs"]["head"]}
    (folder / "head.safetensors").rename(folder / "predictions.safetensors")
    (folder / "manifest.safetensors").unlink()
    (folder / "manifest.safetensors").write_bytes(manifest_file(manifest))

    with pytest.raises(IntegrityError, match="expected tensor image_digest"):
        other.import_(folder)

    assert other.versions() == []
    assert np.all([path.parent.name != "staging" for path in other.root.rglob("*")])
