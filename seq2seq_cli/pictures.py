"""Matrices between tokens as pictures: a heat map in SVG, and blocks for the terminal."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from html import escape

Matrix = Sequence[Sequence[float]]

#: sizes of a heat map in pixels: a cell, its letters and how wide one of them is, the room between panels
_CELL, _FONT, _LETTER, _GAP = 16, 12, 7.3, 24
_CAPTION = "row: a target token · column: a source token · white: 0"
#: the most of a token that is shown, and how wide a picture gets before a panel goes into the next row
_LONGEST, _WIDEST = 24, 1600
#: shades between the colour of 0 and that of the largest value
_SHADES, _PALE, _DARK = 32, (255, 255, 255), (8, 48, 107)
_SIGNS = {" ": "␣", "\n": "⏎", "\t": "⇥"}


def shown(token: str, longest: int = _LONGEST) -> str:
    """A token with its white space visible, whatever cannot be printed escaped, and its end cut off."""
    signs = (_SIGNS.get(c) or (c if c.isprintable() else c.encode("unicode_escape").decode()) for c in token)
    text = "".join(signs)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def width(text: str) -> int:
    """How many columns of a fixed-width font a text takes."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(unicodedata.combining(letter) > 0 for letter in text)


def heat_maps(panels: Sequence[tuple[str, Matrix]], rows: Sequence[str], columns: Sequence[str]) -> str:
    """An SVG file of one panel for each (title, matrix [len(rows)][len(columns)]), the tokens on its axes.

    In a panel white is 0 and the darkest shade its largest value, which its title tells.
    """
    left, top = _room(rows), _room(columns)
    across, down = len(columns) * _CELL, len(rows) * _CELL
    titles = [f"{title} · darkest {max(map(max, matrix)):.2f}" for title, matrix in panels]
    panel_width = left + max(across, max(map(_length, titles)))
    panel_height = 2 * _FONT + top + down
    in_a_row = min(len(panels), max(1, (_WIDEST - _GAP) // (panel_width + _GAP)))
    whole = _GAP + max(in_a_row * (panel_width + _GAP), _length(_CAPTION) + _GAP)
    high = _GAP + _FONT + math.ceil(len(panels) / in_a_row) * (_GAP + panel_height) + _GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{whole}" height="{high}" '
        f'viewBox="0 0 {whole} {high}" font-family="monospace" font-size="{_FONT}" fill="#111">',
        "<title>What the target's tokens saw of the source</title>",
        f'<rect width="{whole}" height="{high}" fill="#fff"/>',
        f'<text x="{_GAP}" y="{_GAP + _FONT}" fill="#666">{_CAPTION}</text>',
    ]
    for number, (title, (_, matrix)) in enumerate(zip(titles, panels, strict=True)):
        x = _GAP + number % in_a_row * (panel_width + _GAP)
        y = 2 * _GAP + _FONT + number // in_a_row * (panel_height + _GAP)
        corner = f"translate({x + left} {y + 2 * _FONT + top})"
        parts.append(f'<text x="{x + left}" y="{y + _FONT}" font-weight="bold">{escape(title)}</text>')
        parts += [f'<g transform="{corner}">', *_axes(rows, columns), *_cells(matrix)]
        parts += [f'<rect width="{across}" height="{down}" fill="none" stroke="#999"/>', "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def _length(text: str) -> int:
    return math.ceil(width(text) * _LETTER)


def _room(tokens: Sequence[str]) -> int:
    return max(_length(shown(token)) for token in tokens) + 8


def _axes(rows: Sequence[str], columns: Sequence[str]) -> list[str]:
    """The tokens, those of the columns turned upwards, and a fine line between any two."""
    half, below = _CELL / 2, _FONT / 3  # letters stand that much lower than their middle
    parts = []
    for number, token in enumerate(rows):
        y = number * _CELL + half + below
        parts.append(f'<text x="-6" y="{y:g}" text-anchor="end">{escape(shown(token))}</text>')
    for number, token in enumerate(columns):
        x = number * _CELL + half + below
        parts.append(f'<text transform="translate({x:g} -6) rotate(-90)">{escape(shown(token))}</text>')
    lines = [f"M0 {n * _CELL}h{len(columns) * _CELL}" for n in range(1, len(rows))]
    lines += [f"M{n * _CELL} 0v{len(rows) * _CELL}" for n in range(1, len(columns))]
    return [*parts, f'<path d="{"".join(lines)}" stroke="#eee"/>']


def _cells(matrix: Matrix) -> list[str]:
    """One path for each shade but white, of runs of equal cells."""
    most = max(map(max, matrix)) or 1.0
    paths: dict[int, list[str]] = {}
    for y, row in enumerate(matrix):
        shades = [round(value / most * _SHADES) for value in row]
        start = 0
        for x in range(1, len(row) + 1):
            if x == len(row) or shades[x] != shades[start]:
                run = (x - start) * _CELL
                paths.setdefault(shades[start], []).append(
                    f"M{start * _CELL} {y * _CELL}h{run}v{_CELL}h-{run}z"
                )
                start = x
    return [
        f'<path fill="{_colour(shade / _SHADES)}" shape-rendering="crispEdges" d="{"".join(runs)}"/>'
        for shade, runs in sorted(paths.items())
        if shade
    ]


def _colour(part: float) -> str:
    mixed = (round(pale + (dark - pale) * part) for pale, dark in zip(_PALE, _DARK, strict=True))
    return "#" + "".join(f"{value:02x}" for value in mixed)


def blocks(visible: Matrix, rows: Sequence[str], columns: Sequence[str]) -> list[str]:
    """The lines of a picture for the terminal: a block where the row's token sees the column's, a dot where
    not."""
    margin = max(map(width, rows))
    lines = [" ".join([" " * margin, *columns])]
    for token, row in zip(rows, visible, strict=True):
        cells = [("█" if seen else "·") * width(column) for seen, column in zip(row, columns, strict=True)]
        lines.append(" ".join([token + " " * (margin - width(token)), *cells]))
    return lines
