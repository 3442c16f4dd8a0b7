"""Text that looks the same on the screen, in reports and in sentences: percentages, shortened lists, control characters."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Sequence
from html import escape
from math import ceil, floor
from typing import Final

MAX_LISTED: Final = 5

# Control characters, line separators, marks that change the direction of text, and halves of characters.
CONTROL: Final = r"\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"


def percent(fraction: float | None) -> str:
    """Format a percentage: 0.925 is "92.5%", ``None`` is "-". Only exactly 1 is "100%"."""
    if fraction is None:
        return "-"
    text = f"{100 * fraction:.1f}".removesuffix(".0")
    if text == "100" and fraction < 1:
        text = "99.9"
    return f"{text}%"


def percent_range(interval: tuple[float, float] | None) -> str:
    """Format an interval of fractions in whole percent, rounded outward and joined by an en dash; ``None`` is "-"."""
    if interval is None:
        return "-"
    return f"{floor(100 * interval[0] + 1e-9)}\N{EN DASH}{ceil(100 * interval[1] - 1e-9)}%"


def metric_name(metric: str) -> str:
    """Return the name of a metric in a sentence: ``macro_f1`` is "macro F1"."""
    return metric.replace("_", " ").replace("f1", "F1")


def metric_text(metric: str, value: float | None) -> str:
    """Format the value of a metric: a log loss is a number, every other metric a percentage.

    Args:
        metric: its name, such as ``balanced_accuracy``.
        value: of the metric; ``None`` becomes "-".
    """
    return number(value, 3) if metric == "log_loss" else percent(value)


def metric_range(metric: str, interval: tuple[float, float] | None) -> str:
    """Format the interval of a metric like its value.

    Args:
        metric: its name.
        interval: of the metric; ``None`` becomes "-".
    """
    if metric != "log_loss" or interval is None:
        return percent_range(interval)
    return "\N{EN DASH}".join(f"{limit:.3f}" for limit in interval)


def number(value: float | None, digits: int) -> str:
    """Format a number for a table.

    Args:
        value: in the unit of its column; ``None`` becomes "-".
        digits: number of decimals.
    """
    return "-" if value is None else f"{value:.{digits}f}"


def html_table(columns: Sequence[str], rows: Iterable[Iterable[object]], *, texts: Sequence[str] = ()) -> str:
    """Return a small table for notebooks, without colors or fonts of its own.

    Args:
        columns: titles.
        rows: cells; everything is escaped.
        texts: paragraphs above the table.
    """

    def cells(tag: str, row: Iterable[object]) -> str:
        return "".join(f"<{tag}>{escape(printable(str(cell)))}</{tag}>" for cell in row)

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"{cells('p', texts)}<table><thead><tr>{cells('th', columns)}</tr></thead><tbody>{body}</tbody></table>"


def first_few(texts: Sequence[str], noun: str) -> list[str]:
    """Return the first five of ``texts``, and then how many more there are.

    Args:
        texts: any number.
        noun: plural of what a text is about.
    """
    more = len(texts) - MAX_LISTED
    return [*texts[:MAX_LISTED], *([f"and {more} more {noun}"] if more > 0 else [])]


def printable(text: str, *, keep: str = "") -> str:
    """Escape what would break a line, drive a terminal or reorder the text around it.

    Args:
        text: any text, such as a label.
        keep: characters to leave as they are.
    """
    return re.sub(f"[{CONTROL}]", lambda match: match[0] if match[0] in keep else escaped(match[0]), text)


def escaped(character: str) -> str:
    """Return the escape of a character, or of the byte that a lone surrogate stands for in a file name."""
    code = ord(character)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else ascii(character)[1:-1]


def encodable_json(text: str, encoding: str | None) -> str:
    """Return JSON that a stream can carry, without control characters, and that parses to the same value.

    Args:
        text: the JSON; outside of strings it is ASCII.
        encoding: of the stream, ``None`` for a stream of text; unless it is UTF-8, characters outside ASCII are escaped.
    """
    is_utf8 = encoding is None or codecs.lookup(encoding).name == "utf-8"
    escapes = f"(?![\\x00-\\x1f])[{CONTROL}]" if is_utf8 else r"[^\x00-\x7e]"
    return re.sub(escapes, lambda match: json.dumps(match[0])[1:-1], text)
