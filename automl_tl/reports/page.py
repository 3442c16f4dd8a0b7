"""Render the report template. All external text is escaped."""

from __future__ import annotations

import base64
from collections.abc import Callable
from importlib.resources import files

from markupsafe import Markup

from automl_tl.reports import charts, sections
from automl_tl.reports.facts import ReportFacts
from automl_tl.runtime.formatting import percent, percent_range

DASH = "\u2013"

__all__ = ["Thumbnail", "write_report"]

Thumbnail = Callable[[str], bytes | None]
"""Returns a small PNG, JPEG or WEBP of the image at a path of the index, or ``None``."""

MAGIC = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}
MAX_THUMBNAILS = 90  # at about 6 kB each, the page stays below 1 MB


def write_report(facts: ReportFacts, thumbnail: Thumbnail | None = None) -> str:
    """Render the report as one self-contained HTML page without scripts.

    Args:
        facts: what to show; sections without facts are omitted.
        thumbnail: called at most 90 times; ``OSError`` and ``ValueError`` count as a missing image.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("automl_tl.reports", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(breakable=_breakable, percent=_percent, range=_range, number=_number, duration=_duration)
    style = files("automl_tl.reports").joinpath("report.css").read_text(encoding="utf-8")
    return environment.get_template("report.html.j2").render(
        facts=facts, style=Markup(style), thumbnail=_ThumbnailCache(thumbnail), charts=charts, summary=sections.summarize(facts)
    )


class _ThumbnailCache:
    """Thumbnails as data URIs, each read once, up to a limit."""

    def __init__(self, thumbnail: Thumbnail | None) -> None:
        self._thumbnail, self._uris = thumbnail, dict[str, str | None]()

    def __call__(self, path: str) -> str | None:
        if self._thumbnail is None or not path:
            return None
        if path not in self._uris:
            if sum(uri is not None for uri in self._uris.values()) >= MAX_THUMBNAILS:
                return None
            self._uris[path] = self._load(self._thumbnail, path)
        return self._uris[path]

    @staticmethod
    def _load(thumbnail: Thumbnail, path: str) -> str | None:
        try:
            data = thumbnail(path)
        except (OSError, ValueError):
            return None
        kind = next((kind for magic, kind in MAGIC.items() if data and data.startswith(magic)), None)
        return f"data:{kind};base64,{base64.b64encode(data).decode()}" if data and kind else None


def _breakable(name: str) -> Markup:
    """Return ``name`` with line-break opportunities after underscores."""
    return Markup("_<wbr>").join(name.split("_"))


def _percent(fraction: float | None) -> str:
    return DASH if fraction is None else percent(fraction)


def _range(interval: tuple[float, float] | None) -> str:
    return DASH if interval is None else percent_range(interval).replace("-", DASH)


def _number(value: float | None, digits: int = 1, unit: str = "") -> str:
    if value is None:
        return DASH
    return f"{value:,.{digits}f}".replace(",", "\u202f") + (f" {unit}" if unit else "")


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return DASH
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
