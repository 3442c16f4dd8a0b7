"""The product under the rules of Windows (``tests/windows.py``); each area's own tests are with it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from automl_tl.runtime.paths import scratch_folder
from tests.e2e.conftest import LITE0, run_tl
from tests.fakes import write_colors

BUTTERFLY = "\u8774\u8776"  # two Chinese characters, which code page 1252 does not have


@pytest.mark.usefixtures("windows")
def test_imitation_refuses_what_windows_refuses(tmp_path: Path) -> None:
    file, other = tmp_path / "file", tmp_path / "other"
    file.write_bytes(b"1")
    other.write_bytes(b"2")

    with pytest.raises(FileExistsError):
        file.rename(other)
    with file.open("rb") as opened, pytest.raises(PermissionError):
        other.replace(file)
    with file.open("rb") as opened, pytest.raises(OSError, match="Bad file"):
        os.fsync(opened.fileno())
    with pytest.raises(OSError, match="syntax"):
        (tmp_path / "a:b").write_bytes(b"")
    mapped = np.memmap(file, mode="r")
    with pytest.raises(PermissionError):
        file.unlink()
    del mapped
    file.chmod(0o444)
    with pytest.raises(PermissionError):
        file.unlink()
    file.chmod(0o644)
    with pytest.raises(UnicodeEncodeError):
        file.write_text(BUTTERFLY)
    assert other.replace(file).read_bytes() == b"2"


@pytest.mark.usefixtures("windows")
def test_scratch_folder_leaves_mapped_files_to_the_end_of_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    at_exit = []
    monkeypatch.setattr("atexit.register", lambda *call, **options: at_exit.append((call, options)))

    with scratch_folder("tl-") as folder:
        mapped = np.lib.format.open_memmap(folder / "rows.npy", mode="w+", shape=(8,))

    assert folder.exists()
    del mapped
    (((remove, *arguments), options),) = at_exit
    remove(*arguments, **options)
    assert not folder.exists()


@pytest.mark.integration
@pytest.mark.usefixtures("windows")
def test_tl_works_under_the_rules_of_windows(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    colors = {BUTTERFLY: (50, 180, 60), "red": (200, 50, 40)}
    images = write_colors(tmp_path / "cards", 12, classes=tuple(colors), colors=colors)
    monkeypatch.chdir(tmp_path)

    fits = [run_tl("auto", "fit", images, *LITE0, "--json", "--seed", seed) for seed in ("0", "1")]
    assert [fit.code for fit in fits] == [0, 0], fits[0].err + fits[1].err
    assert fits[0].json["measured"]["memory_mib"] is None
    for command in (
        ("predict", "cards", images, "--json"),
        ("evaluate", "cards", images, "--json"),
        ("registry", "delete", "cards@1", "--reason", "test"),
        ("registry", "gc"),
        ("registry", "verify"),
        ("registry", "export", "cards@2", tmp_path / "cards.tar"),
        ("report", "cards", "--out", tmp_path / "report.html"),
        ("bench", images, *LITE0, "--strategy", "linear_probe", "--seeds", "1", "--out", tmp_path / "bench"),
        ("export", "cards", "--format", "torch-export"),
        ("cache", "clear"),
    ):
        ended = run_tl(*command)
        assert ended.code == 0, (command, ended.out, ended.err)
    assert not list((home / "cache" / "activations").iterdir())
    assert not list((home / "registry" / "staging").iterdir())
