"""What was measured as text."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.measure import Row


def rows(measured: Sequence[Row], peer: str) -> str:
    """The rows of s2s beside a peer."""
    heads = ["", "unit", "s2s", peer, "speed-up", "by CPU time", "wanted", "limit", "reached"]
    heads += ["memory MB", "ratio", "wanted", "same output"]
    return columns([heads, *(row.cells() for row in measured)])


def columns(lines: Sequence[Sequence[str]]) -> str:
    """Cells under each other; the first line holds the heads."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
