"""ONNX Runtime Web: downloaded once, checked, and taken from the user's folder if there is one."""

from __future__ import annotations

import base64
import hashlib
import io
import stat
import tarfile
from pathlib import Path

import pytest

from automl_tl.errors import ModelError
from automl_tl.exports import web


def archive_of(content: bytes) -> bytes:
    with tarfile.open(fileobj=(target := io.BytesIO()), mode="w:gz") as archive:
        for name in web.RUNTIME_FILES:
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return target.getvalue()


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ``npm`` that copies a file ``published.tgz`` beside it, and counts its calls."""
    folder = tmp_path / "bin"
    folder.mkdir()
    published = folder / "published.tgz"
    fail = f'[ -f {published} ] || {{ echo "npm error network" >&2; exit 1; }}'
    (folder / "npm").write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls\n{fail}\ncp {published} runtime.tgz\n')
    (folder / "npm").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setenv("TL_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(web.VARIABLE, raising=False)
    return folder


def publish(npm: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = archive_of(content)
    (npm / "published.tgz").write_bytes(archive)
    monkeypatch.setattr(web, "INTEGRITY", "sha512-" + base64.b64encode(hashlib.sha512(archive).digest()).decode())


def test_write_page_downloads_the_runtime_once(npm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(npm, b"runtime", monkeypatch)

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        web.write_page(tmp_path / name)

    files = {file.name for file in (tmp_path / "two").iterdir()}
    assert files == {"index.html", "page.js", "pixels.js", "page.css", "icon.svg", "ort.js", "ort.wasm"}
    assert (tmp_path / "two" / "ort.wasm").read_bytes() == b"runtime"
    assert len((npm / "calls").read_text().splitlines()) == 1


def test_write_page_rejects_another_package(npm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(npm, b"runtime", monkeypatch)
    (npm / "published.tgz").write_bytes(archive_of(b"tampered"))

    with pytest.raises(ModelError, match="npm sent something else"):
        web.write_page(tmp_path)


def test_write_page_says_what_to_do_without_network(npm: Path, tmp_path: Path) -> None:
    assert npm

    with pytest.raises(ModelError, match=f"npm error network.*{web.VARIABLE}"):
        web.write_page(tmp_path)


def test_write_page_says_what_to_do_without_npm(npm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert npm
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ModelError, match=f"there is no `npm`.*{web.VARIABLE}"):
        web.write_page(tmp_path)


def test_write_page_names_what_an_unpacked_package_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(web.VARIABLE, str(tmp_path))

    with pytest.raises(ModelError, match=r"has no dist/ort.*unpacked npm package"):
        web.write_page(tmp_path)
