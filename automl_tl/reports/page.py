"""Render the HTML pages: the model report, the explanations, the benchmark. Self-contained, no scripts, all text escaped."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from importlib.resources import files
from math import inf

from markupsafe import Markup

from automl_tl.reports import charts, sections
from automl_tl.reports.facts import Explanation, ReportFacts
from automl_tl.runtime.formatting import metric_name, metric_range, metric_text, percent, percent_range, printable
from automl_tl.values import BenchCell

Thumbnail = Callable[[str], bytes | None]
"""Returns a small PNG, JPEG or WEBP of the image at a path of the index, or ``None``."""

EN_DASH = "\N{EN DASH}"
MIME_TYPES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}
MAX_THUMBNAILS = 90  # at about 6 kB each, the page stays below 1 MB


def render_report(facts: ReportFacts, thumbnail: Thumbnail | None = None) -> str:
    """Render the report of a model.

    Args:
        facts: what to show; sections without facts are omitted.
        thumbnail: called at most 90 times; ``OSError`` and ``ValueError`` count as a missing image.
    """
    summary = sections.summarize(facts)
    return _render(
        "report.html.j2", facts=facts, thumbnail=_Thumbnails(thumbnail, MAX_THUMBNAILS), charts=charts, summary=summary
    )


def render_explanations(explanations: Sequence[Explanation], thumbnail: Thumbnail | None = None) -> str:
    """Render the explanations of predictions; ``thumbnail`` gives training images, to show the nearest neighbors.

    Args:
        explanations: with their heatmap files.
        thumbnail: gives training images by path, to show the nearest neighbors.
    """
    heatmaps = [_data_uri(explanation.heatmap.read_bytes()) for explanation in explanations]
    sections = list(zip(explanations, heatmaps, strict=True))
    return _render("explain.html.j2", sections=sections, thumbnail=_Thumbnails(thumbnail))


def render_bench(cells: Sequence[BenchCell]) -> str:
    """Render the comparison of ``cells``, best first."""
    points = [
        (f"{cell.strategy} · {cell.backbone.rpartition('/')[2]}", cell.seconds or 0.0, cell.accuracy or 0.0)
        for cell in cells
        if cell.error is None
    ]
    chart = charts.points_chart(points, x_label="seconds to fit", y_label="test accuracy")
    return _render("bench.html.j2", cells=cells, chart=chart, images=", ".join(sorted({cell.images for cell in cells})))


def _render(template: str, **values: object) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("automl_tl.reports", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(metric_name=metric_name, metric_range=metric_range, metric_text=metric_text)
    environment.filters.update(breakable=_breakable, percent=_percent, range=_range, number=_number, duration=_duration)
    style = files("automl_tl.reports").joinpath("report.css").read_text(encoding="utf-8")
    return environment.get_template(template).render(style=Markup(style), **values)


def _visible(value: object) -> object:
    """Escape control characters, which no page shows, and marks that would reorder the text around a label."""
    return printable(value) if type(value) is str else value


class _Thumbnails:
    """Thumbnails as data URIs, each read once, up to a limit."""

    def __init__(self, thumbnail: Thumbnail | None, limit: float = inf) -> None:
        self._thumbnail, self._limit, self._uris = thumbnail, limit, dict[str, str | None]()

    def __call__(self, path: str) -> str | None:
        if self._thumbnail is None or not path:
            return None
        if path not in self._uris:
            if sum(uri is not None for uri in self._uris.values()) >= self._limit:
                return None
            try:
                self._uris[path] = _data_uri(self._thumbnail(path))
            except (OSError, ValueError):
                self._uris[path] = None
        return self._uris[path]


def _data_uri(image: bytes | None) -> str | None:
    """Return a PNG, JPEG or WEBP file as a data URI; ``None`` for anything else."""
    kind = next((kind for magic, kind in MIME_TYPES.items() if image and image.startswith(magic)), None)
    return f"data:{kind};base64,{base64.b64encode(image).decode()}" if image and kind else None


def _breakable(name: str) -> Markup:
    """Return ``name`` with line-break opportunities after underscores."""
    return Markup("_<wbr>").join(name.split("_"))


def _percent(fraction: float | None) -> str:
    return EN_DASH if fraction is None else percent(fraction)


def _range(interval: tuple[float, float] | None) -> str:
    return EN_DASH if interval is None else percent_range(interval)


def _number(value: float | None, digits: int = 1, unit: str = "") -> str:
    if value is None:
        return EN_DASH
    return f"{value:,.{digits}f}".replace(",", "\u202f") + (f" {unit}" if unit else "")


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return EN_DASH
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
