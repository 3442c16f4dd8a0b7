"""Retired terms and British spellings do not come back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RETIRED = re.compile(
    r"\b(wishes|strangers?|shoot-?outs?|rungs?|probe answers|solved head|side by side|for ever|anew|nobody|whoever|shall"
    r"|licence|colour\w*|grey|labelled|relabelled|behaviour\w*|neighbour\w*|favour\w*|normalis\w*|serialis\w*|initialis\w*)\b",
    re.IGNORECASE,
)
FILES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *(ROOT / "docs").glob("*.md"),
    *(file for name in ("automl_tl", "plugins", "registry", "examples") for file in (ROOT / name).rglob("*")),
]


def test_code_and_docs_avoid_retired_words() -> None:
    texts = {file: file.read_text() for file in FILES if file.suffix in {".py", ".md", ".j2", ".jinja", ".css", ".toml"}}
    hits = [
        f"{file.relative_to(ROOT)}:{number}: {match.group()}"
        for file, text in texts.items()
        for number, line in enumerate(text.splitlines(), start=1)
        for match in RETIRED.finditer(line)
    ]

    assert len(texts) > 100
    assert not hits


@pytest.mark.parametrize("word", ["colours", "Strangers", "side by side"])
def test_retired_words_are_recognized(word: str) -> None:
    assert RETIRED.search(f"the {word} of an image")
