"""File names made from labels."""

from __future__ import annotations

import unicodedata
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl_tl.runtime.file_names import file_name, folder_names


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("bee", "bee"),
        ("蜂 🐝 (é)", "蜂 🐝 (é)"),
        ("a/b", "a%2Fb"),
        ("..", "%2E%2E"),
        (" x. ", "%20x%2E%20"),
        ("con", "%63on"),
        ("NUL.jpg", "%4EUL.jpg"),
        ("com\xb9", "%63om\xb9"),
        ("CONOUT$", "%43ONOUT$"),
        ("lpt1 .png", "%6Cpt1 .png"),
        ("console", "console"),
        ("<b>\t\x1b", "%3Cb%3E%09%1B"),
        ("-rf", "-rf"),
        ("=1+1", "=1+1"),
        ("", "_"),
    ],
)
def test_file_name_encodes_only_what_no_name_holds(text: str, name: str) -> None:
    assert file_name(text) == name
    assert unquote(name).removeprefix("_") == text


def test_file_name_shortens_and_keeps_the_suffix() -> None:
    names = {file_name("蜂" * 150 + f"{number}.jpeg") for number in range(3)}

    assert len(names) == 3
    assert all(len(name.encode()) < 220 and name.endswith(".jpeg") for name in names)


@settings(max_examples=40)
@given(st.lists(st.text(min_size=1, max_size=8), max_size=8, unique=True))
def test_folder_names_are_different_and_safe(labels: list[str]) -> None:
    names = folder_names(labels, taken=["_withheld"])

    assert list(names) == labels
    folded = {unicodedata.normalize("NFC", name).casefold() for name in names.values()} | {"_withheld"}
    assert len(folded) == len(labels) + 1
    assert not any(set(name) & set('/\\:*?"<>|\0\n') or name.strip(" .") != name for name in names.values())


def test_folder_names_tell_similar_labels_apart() -> None:
    labels = ["_withheld", "Ant", "a%2Fb", "a/b", "a_b", "ant", "e\u0301", "\u00e9"]

    names = folder_names(labels, taken=["_withheld"])

    assert [names[label] for label in ("Ant", "a%2Fb", "a_b", "e\u0301")] == ["Ant", "a%2Fb", "a_b", "e\u0301"]
    assert all(names[label].rpartition("-")[0] for label in ("_withheld", "a/b", "ant", "\u00e9"))
