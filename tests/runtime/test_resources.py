"""Errors of the machine become one line, whatever a library makes of them."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from automl_tl.errors import ResourceError
from automl_tl.runtime.paths import cache_dir, registry_dir
from automl_tl.runtime.resources import explain, find_cause, is_out_of_memory, writing_to


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "The disk is full"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "quota"),
        (OSError(errno.EFBIG, os.strerror(errno.EFBIG)), "ulimit -f"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS)), "read-only"),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "ulimit -n"),
        (OSError("96 requested and 48 written"), "The disk is full"),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), "The disk is full"),
        (RuntimeError("database or disk is full"), "The disk is full"),
        (RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 576 vs 534"), "The disk is full"),
        (RuntimeError("basic_ios::clear: iostream error"), "The disk is full"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes. Error code 12"), "Memory"),
        (RuntimeError("can't start new thread"), "threads"),
        (ImportError("libx.so: cannot open shared object file: Too many open files"), "ulimit -n"),
        (ImportError("libx.so: failed to map segment from shared object"), "Memory ran out"),
        (MemoryError(), "Memory ran out"),
    ],
)
def test_explain_recognizes_the_cause(error: Exception, words: str) -> None:
    explained = explain(error, Path("place"))

    assert explained is not None
    assert words in str(explained)
    assert "place" in str(explained)
    assert "\n" not in str(explained)
    assert explained.exit_code == 10


@pytest.mark.parametrize("error", [ValueError("No space left on device"), RuntimeError("size mismatch"), KeyError("disk")])
def test_explain_leaves_other_errors_alone(error: Exception) -> None:
    assert explain(error) is None


def test_explain_prefers_the_file_that_the_error_names() -> None:
    explained = explain(OSError(errno.ENOSPC, "No space left on device", "/far/file"), Path("place"))

    assert explained is not None
    assert explained.place == Path("/far/file")


def test_explain_advises_on_the_place() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    assert "tl cache clear" in str(explain(full, cache_dir() / "x"))
    assert "--registry" in str(explain(full, registry_dir() / "x"))
    assert "TMPDIR" in str(explain(full))


def test_find_cause_reads_the_last_line_of_a_child_process() -> None:
    assert find_cause("OSError: [Errno 24] Too many open files: 'x'") == errno.EMFILE
    assert find_cause("numpy._core._exceptions._ArrayMemoryError: Unable to allocate 8 GiB") == errno.ENOMEM
    assert find_cause("KeyError: 'head.weight'") is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_writing_to_names_the_place() -> None:
    place = Path("/dev/full")

    with pytest.raises(ResourceError, match="The disk is full: /dev/full"), writing_to(place), place.open("wb") as file:
        np.save(file, np.zeros(10_000))


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of ..."), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."), True),  # on Windows
        (RuntimeError("MPS backend out of memory (MPS allocated: 9.05 GB, other allocations: 16.75 MB ...)"), True),
        (RuntimeError("XPU out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_is_out_of_memory_recognizes_every_allocator(error: Exception, is_memory: bool) -> None:
    assert is_out_of_memory(error) is is_memory


def test_find_cause_reads_the_numbers_of_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    paging = "OSError: [WinError 1455] Die Auslagerungsdatei ist zu klein. Error loading torch_cpu.dll"
    full = "SafetensorError: I/O error: Auf dem Datenträger ist nicht genügend Speicherplatz verfügbar. (os error 112)"

    assert find_cause(paging) == errno.ENOMEM
    assert find_cause("PermissionError: [WinError 5] Access is denied: 'disk quota'") is None
    assert find_cause(full) is None  # another error on Linux
    monkeypatch.setattr(sys, "platform", "win32")
    assert find_cause(full) == errno.ENOSPC


def test_find_cause_ignores_numbers_without_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "strerror", lambda number: "Unknown error")  # of Windows, for quotas and network file systems

    assert find_cause("RuntimeError: Unknown error in kernel") is None
