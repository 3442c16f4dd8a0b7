"""The benchmark as one HTML page, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from markupsafe import Markup

from automl_tl.reports import charts
from automl_tl.runtime.formatting import percent, percent_range
from automl_tl.values import BenchCell

__all__ = ["ranked", "write_page"]

MEASURES = (
    ("accuracy on test images", "accuracy", 100, "%", 1),
    ("features, training and head", "seconds", 1, "s", 1),
    ("one image", "latency_ms", 1, "ms", 1),
    ("four images", "latency_4_ms", 1, "ms", 1),
    ("peak memory", "memory_mib", 1, "MiB", 0),
    ("size", "size_mib", 1, "MiB", 1),
)


def ranked(cells: Sequence[BenchCell]) -> list[BenchCell]:
    """The best first, failed ones last."""
    return sorted(cells, key=lambda cell: (-(cell.accuracy or -1), cell.seconds or 0))


def write_page(cells: Sequence[BenchCell], folder: Path) -> Path:
    """Write ``bench.html``, ``.csv`` and ``.json`` into ``folder``; gives the page's path."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    folder.mkdir(parents=True, exist_ok=True)
    best_first = ranked(cells)
    (folder / "bench.json").write_text(json.dumps([cell.model_dump(mode="json") for cell in best_first], indent=1))
    (folder / "bench.csv").write_text(_as_csv(best_first), newline="")
    environment = Environment(
        loader=PackageLoader("automl_tl.reports", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(percent=percent, range=percent_range)
    style = files("automl_tl.reports").joinpath("report.css").read_text(encoding="utf-8")
    done = [cell for cell in best_first if cell.error is None]
    page = environment.get_template("bench.html.j2").render(
        cells=best_first,
        style=Markup(style),
        chart=charts.points_chart(
            [(f"{_short(cell)}", cell.seconds or 0.0, cell.accuracy or 0.0) for cell in done],
            across="seconds to fit",
            up="test accuracy",
        ),
        measures=[_bars(done, *measure) for measure in MEASURES],
        images=", ".join(sorted({cell.images for cell in cells})),
    )
    place = folder / "bench.html"
    place.write_text(page, encoding="utf-8")
    return place


def _short(cell: BenchCell) -> str:
    return f"{cell.strategy} · {cell.backbone.rpartition('/')[2]}"


def _bars(
    cells: Sequence[BenchCell], title: str, field: str, factor: float, unit: str, digits: int
) -> tuple[str, list[tuple[str, float, str]]]:
    """Rows of (name, width in %, text) for one measure."""
    values = [(cell, getattr(cell, field)) for cell in cells if getattr(cell, field) is not None]
    most = max((value for _, value in values), default=1.0) or 1.0
    rows = [(_short(cell), 100 * value / most, f"{factor * value:.{digits}f} {unit}") for cell, value in values]
    return title, rows


def _as_csv(cells: Sequence[BenchCell]) -> str:
    columns = [name for name in BenchCell.model_fields if name not in ("right", "interval", "expected_interval")]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*columns, "interval_low", "interval_high"])
    for cell in cells:
        writer.writerow([*(getattr(cell, name) for name in columns), *(cell.interval or (None, None))])
    return text.getvalue()
