"""What was measured as text and as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence

from benchmarks.measure import Row
from benchmarks.scale import Point, Reading, growth
from seq2seq_cli.charts import Line, Panel, figure


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


def of_curve(points: Sequence[Point]) -> dict[str, list[Point]]:
    """The points of each curve, in order."""
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(point.curve, []).append(point)
    return found


def growths(points: Sequence[Point]) -> dict[str, dict[str, float]]:
    """The exponents of every curve."""
    return {name: growth(some) for name, some in of_curve(points).items()}


def curves(points: Sequence[Point], peer: str) -> str:
    """A table for each curve, the exponents of its growth as the last line."""
    from rich.console import Console
    from rich.table import Table

    written = io.StringIO()
    console = Console(file=written, width=110)
    for name, some in of_curve(points).items():
        table = Table(title=f"W6 {name}", title_justify="left", show_footer=True)
        powers = growth(some)
        table.add_column(name, footer="grows by ^", justify="right")
        heads = [("s2s s", ""), ("CPU s", "s2s time"), ("MB", "s2s memory")]
        if some[0].peer is not None:
            heads += [(f"{peer} s", ""), ("CPU s", "peer time"), ("MB", "peer memory")]
        if some[0].work is not None:
            heads += [("limit s", "arithmetic"), ("reached", "")]
        for head, power in heads:
            table.add_column(head, footer=f"{powers[power]:.2f}" if power else "", justify="right")
        for point in some:
            cells = [str(point.value), *_cells(point.s2s)]
            if point.peer is not None:
                cells += _cells(point.peer)
            if point.limit is not None:
                cells += [f"{point.limit:.3g}", f"{point.limit / point.s2s.seconds:.0%}"]
            table.add_row(*cells)
        console.print(table)
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines())


def _cells(reading: Reading) -> list[str]:
    return [f"{reading.seconds:.3g}", f"{reading.cpu_seconds:.3g}", f"{reading.peak_mb:.0f}"]


def plot(points: Sequence[Point], peer: str, note: str) -> str:
    """Processor time above, peak memory below, a column for each curve."""
    time, memory = [], []
    for name, some in of_curve(points).items():
        both: list[tuple[str, list[tuple[int, Reading]]]] = [("s2s", [(p.value, p.s2s) for p in some])]
        beside = [(p.value, p.peer) for p in some if p.peer is not None]
        if beside:
            both.append((peer, beside))
        seconds = [Line(name=who, points=[(x, r.cpu_seconds) for x, r in found]) for who, found in both]
        limits = [(p.value, p.limit) for p in some if p.limit is not None]
        if limits:
            seconds.append(Line(name="limit", points=limits, dashed=True))
        held = [Line(name=who, points=[(x, r.peak_mb) for x, r in found]) for who, found in both]
        time.append(Panel(title="CPU seconds", below=name, lines=seconds))
        memory.append(Panel(title="peak memory, MB", below=name, lines=held))
    return figure([time, memory], note)
