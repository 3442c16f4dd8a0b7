"""The temporary file of sources that can't be read out of order."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from automl_tl.data.sources.spool import Spool


def test_spool_is_read_after_pickling_and_deleted_with_its_maker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    spool = Spool()
    spool.put("a", b"first")
    spool.put("b", b"second")

    other = pickle.loads(pickle.dumps(spool))

    assert (other.read("a"), other.read("b")) == (b"first", b"second")
    assert ("b" in other, "c" in other) == (True, False)
    del spool
    assert list(tmp_path.iterdir()) == []
