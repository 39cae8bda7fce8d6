"""Curves and bars in SVG that needs nothing else: as one figure for a file, or one by one for a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 190, 150  #: of a panel's field
_LEFT, _TOP, _GAP_X, _GAP_Y = 52, 40, 56, 58
_COLOURS = ("#0b61a4", "#c8553d", "#7a7a7a")
#: room around the field of a panel that stands alone: left, above, right, below
_ROOM = (46, 8, 18, 36)
#: points of a line that are drawn; more of them are put together
_MOST_POINTS = 300


@dataclass(frozen=True, kw_only=True)
class Line:
    """Points joined in order; ``dashed`` for what was computed, not measured. ``bars``: each point is the
    middle of a bar, all of one width."""

    name: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False
    bars: bool = False


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One field; on a logarithmic axis all values are above 0."""

    title: str
    below: str
    lines: Sequence[Line]
    log_across: bool = True
    log_up: bool = True


@dataclass(frozen=True)
class _Axis:
    """One axis of a field: its ends and how values lie between them."""

    low: float
    high: float
    is_log: bool

    def place(self, value: float) -> float:
        """0 at the low end, 1 at the high one."""
        low, high, value = (math.log(v) if self.is_log else v for v in (self.low, self.high, value))
        return (value - low) / (high - low)

    def ticks(self) -> list[float]:
        return ticks(self.low, self.high) if self.is_log else even_ticks(self.low, self.high)


def figure(rows: Sequence[Sequence[Panel]], note: str) -> str:
    """An SVG file: the panels, row by row, with the names of the lines and a note beneath."""
    names = list(dict.fromkeys(line.name for row in rows for panel in row for line in panel.lines))
    colours = {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(names)}
    pens = {name: f'stroke="{colour}" fill="{colour}"' for name, colour in colours.items()}
    width = _LEFT + max(len(row) for row in rows) * (_WIDTH + _GAP_X)
    height = _TOP + len(rows) * (_HEIGHT + _GAP_Y) + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="10" color="#222">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for down, row in enumerate(rows):
        for across, panel in enumerate(row):
            x, y = _LEFT + across * (_WIDTH + _GAP_X), _TOP + down * (_HEIGHT + _GAP_Y)
            parts += [f'<g transform="translate({x} {y})">', _text(panel.title, _WIDTH / 2, -8, "middle")]
            parts += [*_panel(panel, pens, _WIDTH, _HEIGHT), "</g>"]
    place = _LEFT
    for name in names:
        parts.append(f'<rect x="{place}" y="{height - 34}" width="10" height="10" fill="{colours[name]}"/>')
        parts.append(_text(name, place + 15, height - 25))
        place += 30 + 7 * len(name)
    parts += [_text(note, _LEFT, height - 8), "</svg>"]
    return "\n".join(parts) + "\n"


def chart(panel: Panel, *, width: int = 340, height: int = 180) -> str:
    """One panel as an SVG element for a page: it takes the width that it is given, its writing the colour of
    the text around it, and line number i the class ``pen-i``. The title is left to the page."""
    left, above, right, below = _ROOM
    pens = {line.name: f'class="pen-{number}"' for number, line in enumerate(panel.lines)}
    size = f"{left + width + right} {above + height + below}"
    return "\n".join(
        [
            f'<svg viewBox="0 0 {size}" role="img" aria-label="{escape(panel.title)}" font-size="11">',
            f'<g transform="translate({left} {above})">',
            *_panel(panel, pens, width, height),
            "</g></svg>",
        ]
    )


def _panel(panel: Panel, pens: Mapping[str, str], width: int, height: int) -> list[str]:
    points = [point for line in panel.lines for point in line.points]
    tall = any(line.bars for line in panel.lines)
    half = max((_gap(line.points) / 2 for line in panel.lines if line.bars), default=0.0)
    across = _axis([x + side for x, _ in points for side in (-half, half)], is_log=panel.log_across)
    up = _axis([y for _, y in points] + ([0.0] if tall else []), is_log=panel.log_up)
    parts = [
        f'<rect width="{width}" height="{height}" fill="none" stroke="currentColor" stroke-opacity="0.5"/>',
        _text(panel.below, width / 2, height + 30, "middle"),
    ]
    grid = 'stroke="currentColor" stroke-opacity="0.12"'
    for tick in across.ticks():
        x = across.place(tick) * width
        parts.append(f'<path d="M{x:.1f} 0V{height}" {grid}/>')
        parts.append(_text(label(tick), x, height + 14, "middle"))
    for tick in up.ticks():
        y = (1 - up.place(tick)) * height
        parts.append(f'<path d="M0 {y:.1f}H{width}" {grid}/>')
        parts.append(_text(label(tick), -5, y + 3, "end"))
    for line in panel.lines:
        shown = thinned(line.points, _MOST_POINTS)
        places = [(across.place(x) * width, (1 - up.place(y)) * height) for x, y in shown]
        pen = pens[line.name]
        wide = across.place(across.low + _gap(line.points)) * width if line.bars else 0.0
        parts += _bars(places, pen, wide, height) if line.bars else _curve(line, shown, places, pen)
    return parts


def _curve(
    line: Line, points: Sequence[tuple[float, float]], places: Sequence[tuple[float, float]], pen: str
) -> list[str]:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dash = ' stroke-dasharray="3 3"' if line.dashed else ""
    parts = [f'<polyline points="{path}" {pen} fill-opacity="0" stroke-width="1.5"{dash}/>']
    if line.dashed:
        return parts
    radius = 2 if len(places) <= 40 else 0.5
    for (x, y), (value, height) in zip(places, points, strict=True):
        told = escape(f"{line.name}: {height:.6g} at {value:.6g}")
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" {pen} stroke-width="0"><title>{told}</title>'
            "</circle>"
        )
    return parts


def _gap(points: Sequence[tuple[float, float]]) -> float:
    """How far apart bars stand."""
    return points[1][0] - points[0][0] if len(points) > 1 else 1.0


def _bars(places: Sequence[tuple[float, float]], pen: str, gap: float, height: int) -> list[str]:
    size = f'width="{max(0.5, 0.8 * gap):.1f}" fill-opacity="0.75" stroke-width="0"'
    return [
        f'<rect x="{x - 0.4 * gap:.1f}" y="{y:.1f}" height="{height - y:.1f}" {size} {pen}/>'
        for x, y in places
    ]


def thinned(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """At most ``most`` points: neighbours are put together as their means."""
    size = math.ceil(len(points) / most)
    if size <= 1:
        return list(points)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def _axis(values: Sequence[float], *, is_log: bool) -> _Axis:
    """The ends of an axis. A logarithmic one spans a factor of four at least, so that what is flat looks
    flat; an even one begins at 0 where that costs less than half of it."""
    low, high = min(values), max(values)
    if is_log:
        if high / low < 4:
            middle = math.sqrt(low * high)
            low, high = middle / 2, middle * 2
        return _Axis(low, high, True)
    if 0 < low < high / 2:
        low = 0.0
    if high <= low:
        low, high = low - abs(low) / 2 - 0.5 * (low == 0), high + abs(high) / 2 + 0.5 * (high == 0)
    return _Axis(low, high, False)


def ticks(low: float, high: float) -> list[float]:
    """Powers of ten, or of two where there would be fewer than three; at most six."""
    for base in (10.0, 2.0):
        first = math.ceil(math.log(low, base) - 1e-9)
        last = math.floor(math.log(high, base) + 1e-9)
        if base == 2.0 or last - first >= 2:
            step = max(1, math.ceil((last - first + 1) / 6))
            return [base**power for power in range(first, last + 1, step)]
    raise AssertionError


def even_ticks(low: float, high: float) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) at even distances, two to six of them."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def label(value: float) -> str:
    """A tick in few characters: 0.25, 16, 1.5k, 1M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size and value % (size / 10) == 0:
            return f"{value / size:g}{letter}"
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _text(words: str, x: float, y: float, anchor: str = "start") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} fill="currentColor">{escape(words)}</text>'
