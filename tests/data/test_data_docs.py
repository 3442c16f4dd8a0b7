"""docs/data.md explains every code that the data package uses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from automl_tl import data

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
PACKAGE = Path(data.__file__).parent
CODES = {
    "findings": r'code="(\w+)"',
    "rejected": r'(?:UndecodableError\(|rejected=|rejected, detail = |_row\(\w+, |return )"([a-z_]+)"(?:, |\n)',
    "left out": r'reason="(\w+)"',
    "ignored": r'ignored="(\w+)"',
}


@pytest.mark.parametrize("kind", CODES)
def test_data_page_explains_every_code(kind: str) -> None:
    source = "\n".join(file.read_text(encoding="utf-8") for file in sorted(PACKAGE.rglob("*.py")))
    codes = set(re.findall(CODES[kind], source))
    explained = set(re.findall(r"`(\w+)`", PAGE.read_text(encoding="utf-8")))

    assert len(codes) > 2
    assert codes - explained == set()
