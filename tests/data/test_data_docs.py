"""The page about data names every word that the data room can say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from automl_tl import data

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
ROOM = Path(data.__file__).parent
SAYS = {
    "findings": r'code="(\w+)"',
    "rejected": r'(?:UndecodableError\(|rejected=|rejected, detail = |_row\(\w+, |return )"([a-z_]+)"(?:, |\n)',
    "left out": r'reason="(\w+)"',
    "ignored": r'ignored="(\w+)"',
}


@pytest.mark.parametrize("kind", SAYS)
def test_the_page_explains_every_word(kind: str) -> None:
    source = "\n".join(file.read_text(encoding="utf-8") for file in sorted(ROOM.rglob("*.py")))
    said = set(re.findall(SAYS[kind], source))
    explained = set(re.findall(r"`(\w+)`", PAGE.read_text(encoding="utf-8")))

    assert len(said) > 2
    assert said - explained == set()
