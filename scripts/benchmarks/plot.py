"""Curves as one SVG file that needs nothing else: a column for each curve, time above memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 190, 150  #: of a panel's field
_LEFT, _TOP, _GAP_X, _GAP_Y = 52, 40, 56, 58
_COLOURS = ("#0b61a4", "#c8553d", "#7a7a7a")


@dataclass(frozen=True, kw_only=True)
class Line:
    """Points joined in order; ``dashed`` for what was computed, not measured."""

    name: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One field with both axes logarithmic; all values above 0."""

    title: str
    below: str
    lines: Sequence[Line]


def figure(rows: Sequence[Sequence[Panel]], note: str) -> str:
    """The panels, row by row, with the names of the lines and a note beneath."""
    names = list(dict.fromkeys(line.name for row in rows for panel in row for line in panel.lines))
    colours = {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(names)}
    width = _LEFT + max(len(row) for row in rows) * (_WIDTH + _GAP_X)
    height = _TOP + len(rows) * (_HEIGHT + _GAP_Y) + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="10">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for down, row in enumerate(rows):
        for across, panel in enumerate(row):
            x, y = _LEFT + across * (_WIDTH + _GAP_X), _TOP + down * (_HEIGHT + _GAP_Y)
            parts += [f'<g transform="translate({x} {y})">', *_panel(panel, colours), "</g>"]
    place = _LEFT
    for name in names:
        parts.append(f'<rect x="{place}" y="{height - 34}" width="10" height="10" fill="{colours[name]}"/>')
        parts.append(_text(name, place + 15, height - 25))
        place += 30 + 7 * len(name)
    parts += [_text(note, _LEFT, height - 8), "</svg>"]
    return "\n".join(parts) + "\n"


def _panel(panel: Panel, colours: dict[str, str]) -> list[str]:
    points = [point for line in panel.lines for point in line.points]
    across = _range([x for x, _ in points])
    up = _range([y for _, y in points])
    parts = [
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="none" stroke="#999"/>',
        _text(panel.title, _WIDTH / 2, -8, anchor="middle"),
        _text(panel.below, _WIDTH / 2, _HEIGHT + 30, anchor="middle"),
    ]
    for tick in ticks(*across):
        x = _place(tick, across) * _WIDTH
        parts.append(f'<path d="M{x:.1f} 0V{_HEIGHT}" stroke="#eee"/>')
        parts.append(_text(label(tick), x, _HEIGHT + 14, anchor="middle"))
    for tick in ticks(*up):
        y = (1 - _place(tick, up)) * _HEIGHT
        parts.append(f'<path d="M0 {y:.1f}H{_WIDTH}" stroke="#eee"/>')
        parts.append(_text(label(tick), -5, y + 3, anchor="end"))
    for line in panel.lines:
        dash = ' stroke-dasharray="3 3"' if line.dashed else ""
        places = [(_place(x, across) * _WIDTH, (1 - _place(y, up)) * _HEIGHT) for x, y in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        style = f'fill="none" stroke="{colours[line.name]}" stroke-width="1.5"'
        parts.append(f'<polyline points="{path}" {style}{dash}/>')
        if not line.dashed:
            parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="{colours[line.name]}"/>' for x, y in places
            ]
    return parts


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Ends of an axis; at least a factor of four apart, so that what is flat looks flat."""
    low, high = min(values), max(values)
    if high / low < 4:
        middle = math.sqrt(low * high)
        low, high = middle / 2, middle * 2
    return low, high


def _place(value: float, ends: tuple[float, float]) -> float:
    low, high = (math.log(end) for end in ends)
    return (math.log(value) - low) / (high - low)


def ticks(low: float, high: float) -> list[float]:
    """Powers of ten, or of two where there would be fewer than three; at most six."""
    for base in (10.0, 2.0):
        first = math.ceil(math.log(low, base) - 1e-9)
        last = math.floor(math.log(high, base) + 1e-9)
        if base == 2.0 or last - first >= 2:
            step = max(1, math.ceil((last - first + 1) / 6))
            return [base**power for power in range(first, last + 1, step)]
    raise AssertionError


def label(value: float) -> str:
    """A tick in few characters: 0.25, 16, 10k, 1M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size and value % size == 0:
            return f"{value / size:g}{letter}"
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _text(words: str, x: float, y: float, *, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#222">{escape(words)}</text>'
