"""Checks of the installation."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from automl_tl.workflows import doctor
from automl_tl.workflows.doctor import _extra, _folder, _torch, explain_import_failure


def test_doctor_explains_mismatched_builds() -> None:
    advice = explain_import_failure("RuntimeError: operator torchvision::nms does not exist")

    assert "incompatible builds" in advice
    assert "pip install --force-reinstall torch torchvision" in advice


def test_doctor_reports_torch_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    def hangs(command: list[str], **_: object) -> None:
        raise subprocess.TimeoutExpired(command, 120)

    monkeypatch.setattr(subprocess, "run", hangs)

    assert _torch().status == "failed"


def test_doctor_reports_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    assert _folder("cache", tmp_path / "file" / "cache").status == "failed"
    assert _folder("cache", tmp_path / "new" / "cache").status == "ok"


def test_doctor_says_what_a_missing_extra_would_bring(monkeypatch: pytest.MonkeyPatch) -> None:
    required = ["numpy", "numpy>=1; extra == 'openvino'", "not-there>=2; extra == 'openvino'"]
    monkeypatch.setattr(doctor, "requires", lambda distribution: required)

    check = _extra("openvino")

    assert check.status == "missing"
    assert check.detail.endswith("5 to 7 times as fast on a CPU; needs not-there: `pip install 'automl-tl[openvino]'`")
    assert _extra("onnx").status == "ok"  # needs nothing of those
