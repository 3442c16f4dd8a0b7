"""Percentages, control characters, JSON for any stream."""

from __future__ import annotations

import json

import pytest

from automl_tl.runtime.formatting import encodable_json, percent, percent_range, printable


@pytest.mark.parametrize(
    ("fraction", "text"), [(None, "-"), (0, "0%"), (0.925, "92.5%"), (0.75, "75%"), (0.9996, "99.9%"), (1, "100%")]
)
def test_percent_is_100_only_for_exactly_1(fraction: float | None, text: str) -> None:
    assert percent(fraction) == text


@pytest.mark.parametrize(
    ("interval", "text"),
    [(None, "-"), ((0.801, 0.969), "80\N{EN DASH}97%"), ((0.8, 0.97), "80\N{EN DASH}97%"), ((0.0, 1.0), "0\N{EN DASH}100%")],
)
def test_percent_range_rounds_outward(interval: tuple[float, float] | None, text: str) -> None:
    assert percent_range(interval) == text


def test_printable_escapes_control_characters_and_keeps_letters() -> None:
    assert printable("a\nb\tc\x1b[1m\x9b\u202e\u200f\udce9") == r"a\nb\tc\x1b[1m\x9b\u202e\u200f\xe9"
    assert printable("one\ntwo\x00", keep="\n") == "one\ntwo\\x00"
    assert printable("crème 蜂 👨\u200d👩\u200d👧 עברית\u3000<b>") == "crème 蜂 👨\u200d👩\u200d👧 עברית\u3000<b>"


@pytest.mark.parametrize("encoding", [None, "utf-8", "UTF8", "ascii", "latin-1", "cp1252", "utf-16"])
def test_encodable_json_is_equal_and_can_be_encoded(encoding: str | None) -> None:
    value = {"crème 🐝": "\u2013\x9b\u202e\n\x7f"}

    text = encodable_json(json.dumps(value, ensure_ascii=False, indent=2), encoding)

    assert json.loads(text) == value
    assert json.loads(text.encode(encoding or "utf-8").decode(encoding or "utf-8")) == value
    assert not any(character in text for character in "\x9b\u202e\x7f")
    assert ("🐝" in text) == (encoding in (None, "utf-8", "UTF8"))
