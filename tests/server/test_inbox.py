from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

import pytest

from automl_tl.server import inbox as module
from automl_tl.server.inbox import Inbox

DIGEST = sha256(b"image").hexdigest()
CLASSES = ("Rose", "rose", "con")


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_inbox_files_an_image_once_and_moves_it(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path / "new" / "inbox")
    inbox.remember(DIGEST, b"image", "jpg")

    counts = [inbox.file(DIGEST, label, CLASSES) for label in ("Rose", "Rose", "tulip")]

    assert counts == [1, 1, 1]
    assert files(tmp_path / "new" / "inbox") == [f"tulip/{DIGEST}.jpg"]
    assert (tmp_path / "new" / "inbox" / "tulip" / f"{DIGEST}.jpg").read_bytes() == b"image"


@pytest.mark.parametrize("label", ["..", "../../etc", "a/b", "rose", "con", ".hidden", "x" * 200])
def test_inbox_never_leaves_its_folder(tmp_path: Path, label: str) -> None:
    inbox = Inbox(tmp_path / "inbox")
    inbox.remember(DIGEST, b"image", "jpg")
    inbox.file(DIGEST, label, CLASSES)

    (filed,) = files(tmp_path)
    assert filed.startswith("inbox/")
    assert filed.count("/") == 2


def test_inbox_forgets_the_oldest_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_KEPT_BYTES", 10)
    inbox = Inbox(tmp_path)
    for digest in ("1" * 64, "2" * 64, "3" * 64):
        inbox.remember(digest, b"12345", "png")
    inbox.remember("3" * 64, b"12345", "png")

    with pytest.raises(KeyError):
        inbox.file("1" * 64, "Rose", CLASSES)
    assert inbox.file("2" * 64, "Rose", CLASSES) == 1


@pytest.mark.usefixtures("windows")
def test_inbox_leaves_no_draft_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = Inbox(tmp_path)
    inbox.remember(DIGEST, b"image", "jpg")
    assert inbox.file(DIGEST, "Rose", CLASSES) == 1
    (tmp_path / "Rose" / f"{DIGEST}.jpg").unlink()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("the disk is gone")))

    with pytest.raises(OSError, match="the disk is gone"):
        inbox.file(DIGEST, "Rose", CLASSES)
    assert files(tmp_path) == []
