"""Charts as inline SVG. CSS classes give the colors, so that dark mode and print apply; each has an accessible title."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markupsafe import Markup, escape

from automl_tl.evaluation.calibration import CalibrationBin
from automl_tl.values import Interval

WIDTH, HEIGHT = 420, 260  # about the width of a phone, where text stays readable
LEFT, RIGHT, TOP, BOTTOM = 64, 22, 10, 38

Line = tuple[str, Sequence[tuple[float, float]]]
Range = tuple[float, float]


def interval_bar(value: float | None, interval: Interval | None) -> Markup:
    """Draw a fraction on a line from 0 to 100%, for tables.

    Args:
        value: the dot; ``None``: draw nothing.
        interval: the bar around it.
    """
    if value is None:
        return Markup("")
    elements = [Markup('<svg class="mini" viewBox="0 0 120 16" aria-hidden="true"><path class="rule" d="M4 8H116"/>')]
    if interval:
        low, high = (4 + 112 * edge for edge in interval)
        elements.append(Markup('<path class="band" d="M{:.1f} 8H{:.1f}"/>').format(low, max(high, low + 1)))
    elements.append(Markup('<circle class="dot" cx="{:.1f}" cy="8" r="4.5"/></svg>').format(4 + 112 * value))
    return Markup("").join(elements)


def reliability_chart(bins: Sequence[CalibrationBin]) -> Markup:
    """Accuracy (bars) against confidence; calibrated probabilities lie on the diagonal."""
    x, y = _scale((0, 1), LEFT, WIDTH - RIGHT), _scale((0, 1), HEIGHT - BOTTOM, TOP)
    most = max((one.num_images for one in bins), default=1)
    elements = [_axes((0, 1), (0, 1), "confidence", "accuracy", as_percent=True)]
    for one in bins:
        title = f"{one.num_images} images: confidence {one.confidence:.0%}, accuracy {one.accuracy:.0%}"
        elements.append(
            Markup('<rect class="bar" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" opacity="{:.2f}"/>').format(
                x(one.low) + 1,
                y(one.accuracy),
                x(one.high) - x(one.low) - 2,
                y(0) - y(one.accuracy),
                0.35 + 0.65 * one.num_images / most,
            )
        )
        elements.append(
            Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="4"><title>{}</title></circle>').format(
                x(one.confidence), y(one.accuracy), title
            )
        )
    elements.append(Markup('<path class="ideal" d="M{:.1f} {:.1f}L{:.1f} {:.1f}"/>').format(x(0), y(0), x(1), y(1)))
    return _figure("Calibration: accuracy against confidence", elements)


def lines_chart(
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    band: Sequence[tuple[float, float, float]] = (),
    as_percent: bool = False,
) -> Markup:
    """Draw lines against a common axis; an empty string if they have no points.

    Args:
        lines: (name, points), the points as (x, y).
        x_label: below the chart.
        y_label: left of the chart.
        band: (x, low, high), filled behind the lines.
        as_percent: y is a fraction.
    """
    points = [point for _, line in lines for point in line]
    if not points:
        return Markup("")
    xs = _padded([p[0] for p in points] + [b[0] for b in band], pad=0)
    ys = _padded([p[1] for p in points] + [edge for b in band for edge in b[1:]], pad=0.06)
    ys = (max(0.0, ys[0]), min(1.0, ys[1])) if as_percent else ys
    x, y = _scale(xs, LEFT, WIDTH - RIGHT), _scale(ys, HEIGHT - BOTTOM, TOP)
    elements = [_axes(xs, ys, x_label, y_label, as_percent=as_percent)]
    if band:
        upper = " ".join(f"{x(b[0]):.1f},{y(b[2]):.1f}" for b in band)
        lower = " ".join(f"{x(b[0]):.1f},{y(b[1]):.1f}" for b in reversed(band))
        elements.append(Markup('<polygon class="area" points="{} {}"/>').format(upper, lower))
    for number, (name, line) in enumerate(lines):
        coordinates = " ".join(f"{x(px):.1f},{y(py):.1f}" for px, py in line)
        elements.append(
            Markup('<polyline class="line l{}" points="{}"><title>{}</title></polyline>').format(number % 4, coordinates, name)
        )
        if len(line) <= 12:
            elements += [
                Markup('<circle class="mark m{}" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(number % 4, x(a), y(b))
                for a, b in line
            ]
    return _figure(f"{y_label} against {x_label}", elements, [name for name, _ in lines] if len(lines) > 1 else [])


def points_chart(points: Sequence[tuple[str, float, float]], *, x_label: str, y_label: str) -> Markup:
    """Draw dots, numbered like the rows of a table; an empty string if there are none.

    Args:
        points: (name, x, fraction).
        x_label: below the chart.
        y_label: left of the chart.
    """
    if not points:
        return Markup("")
    xs, ys = _padded([p[1] for p in points], pad=0.08), _padded([p[2] for p in points], pad=0.1)
    xs, ys = (max(0.0, xs[0]), xs[1]), (max(0.0, ys[0]), min(1.0, ys[1]))
    x, y = _scale(xs, LEFT, WIDTH - RIGHT), _scale(ys, HEIGHT - BOTTOM, TOP)
    elements = [_axes(xs, ys, x_label, y_label, as_percent=True)]
    for number, (name, px, py) in enumerate(points, start=1):
        dot = Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="4"><title>{}</title></circle>').format(x(px), y(py), name)
        text = Markup('<text class="tick" x="{:.1f}" y="{:.1f}">{}</text>').format(x(px) + 6, y(py) - 4, number)
        elements += [dot, text]
    return _figure(f"{y_label} against {x_label}", elements)


def _figure(title: str, elements: Sequence[Markup], legend: Sequence[str] = ()) -> Markup:
    keys = Markup("").join(
        Markup('<span class="key k{}">{}</span>').format(number % 4, name) for number, name in enumerate(legend)
    )
    inside = Markup("").join(elements)
    chart = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, title, inside
    )
    return chart + (Markup('<div class="legend">{}</div>').format(keys) if legend else Markup(""))


def _axes(xs: Range, ys: Range, x_label: str, y_label: str, *, as_percent: bool) -> Markup:
    x, y = _scale(xs, LEFT, WIDTH - RIGHT), _scale(ys, HEIGHT - BOTTOM, TOP)
    elements = []
    for tick in _ticks(ys):
        text = f"{100 * tick:.0f}%" if as_percent else f"{tick:.3g}"
        elements.append(Markup('<path class="grid" d="M{} {:.1f}H{}"/>').format(LEFT, y(tick), WIDTH - RIGHT))
        elements.append(
            Markup('<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(LEFT - 6, y(tick) + 4, text)
        )
    for tick in _ticks(xs):
        text = f"{100 * tick:.0f}%" if xs == (0, 1) else f"{tick:.4g}"
        elements.append(
            Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(
                x(tick), HEIGHT - BOTTOM + 16, text
            )
        )
    elements.append(
        Markup('<text class="axis" x="{}" y="{}" text-anchor="middle">{}</text>').format(
            (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 5, x_label
        )
    )
    middle = (TOP + HEIGHT - BOTTOM) / 2
    elements.append(
        Markup('<text class="axis" transform="translate(13 {}) rotate(-90)" text-anchor="middle">{}</text>').format(
            middle, escape(y_label)
        )
    )
    return Markup("").join(elements)


def _scale(values: Range, start: float, end: float) -> Callable[[float], float]:
    """Return a function that maps a value to a coordinate."""
    span = (values[1] - values[0]) or 1.0
    return lambda value: start + (end - start) * (value - values[0]) / span


def _padded(values: Sequence[float], *, pad: float) -> Range:
    low, high = min(values), max(values)
    room = pad * ((high - low) or abs(high) or 1.0)
    return (low - room, high + room) if high > low or pad else (low - 0.5, high + 0.5)


def _ticks(values: Range, count: int = 5) -> list[float]:
    """Return about ``count`` round numbers inside ``values``."""
    span = values[1] - values[0]
    rough = span / count
    power = 10.0 ** float(f"{rough:e}".split("e")[1])
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = int(-(-values[0] // step))
    last = int((values[1] + 1e-9 * span) // step)
    return [round(number * step, 12) for number in range(first, last + 1)]
