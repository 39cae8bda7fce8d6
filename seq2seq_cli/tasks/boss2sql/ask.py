"""Show what SQL answers: each statement with its result as a plain text table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from seq2seq_cli.tasks.boss2sql.execution import Cell, InvalidSQLError, Table, open_database, run_sql

_SHOWN_ROWS = 20
_WIDEST_CELL = 40


def answers(statements: Iterable[str], database: Path) -> Iterator[str]:
    """For each statement in turn, one block of text: the SQL, then its table or one line saying why not.

    A statement that does not run never ends the others. DataError when ``database`` cannot be read.
    """
    with open_database(database) as connection:
        for statement in statements:
            shown = _printable(statement.strip())
            try:
                table = run_sql(statement, connection, max_rows=1000)
            except InvalidSQLError as error:
                yield f"{shown}\ncannot be run: {_printable(str(error))}\n"
            else:
                yield f"{shown}\n{format_table(table)}\n"


def format_table(table: Table) -> str:
    """Columns under a ruled heading, numbers to the right; at most 20 rows, then how many there are more."""
    rows = table.rows[:_SHOWN_ROWS]
    cells = [[_printable(name) for name in table.columns], *([_text(cell) for cell in row] for row in rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(table.columns))]
    numeric = [
        any(isinstance(row[place], (int, float)) for row in rows) for place in range(len(table.columns))
    ]
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    left = len(table.rows) - len(rows)
    if not rows:
        lines.append("(no rows)")
    elif left:
        lines.append(f"... and {left if table.complete else f'more than {left}'} more rows")
    return "\n".join(lines)


def _text(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:.2f}"
    text = _printable(str(cell))
    return text if len(text) <= _WIDEST_CELL else text[: _WIDEST_CELL - 3] + "..."


def _printable(text: str) -> str:
    """``text`` on one line, without control characters that a terminal would obey."""
    return "".join(character if character.isprintable() else " " for character in text)
