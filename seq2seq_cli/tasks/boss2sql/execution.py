"""Run SQL that a model wrote, without trusting it, and compare what comes out."""

from __future__ import annotations

import math
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from seq2seq_cli.errors import DataError

Cell = str | int | float | bytes | None

MAX_ROWS = 10_000
#: Instructions of SQLite's virtual machine; the slowest reference statement needs about a hundredth.
MAX_STEPS = 5_000_000
_STEP_CHUNK = 10_000
_MAX_SQL_LENGTH = 10_000
_MAX_CELL_BYTES = 1_000_000
_SQLITE_LIMIT_LENGTH = 0

# Functions that cannot be made to eat memory in one instruction (as printf, zeroblob or replace can).
_FUNCTIONS = (
    "abs avg coalesce count date ifnull iif julianday length like lower max min nullif round strftime substr "
    "substring sum total trim upper"
)


class InvalidSQLError(DataError):
    """A statement that SQLite refuses, that is not a plain query, or that takes too much."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """The result of a query; ``complete`` is false where rows beyond the cap were left out."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    complete: bool


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    if action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ):
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _FUNCTIONS.split():
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


@contextmanager
def open_database(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that can only read ``path``; DataError when it is missing or no database."""
    if not path.is_file():
        raise DataError(
            "no such database",
            where=str(path),
            remedy="write one with: python -m seq2seq_cli.tasks.boss2sql data FOLDER",
        )
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        try:
            connection.execute("SELECT COUNT(*) FROM sqlite_master")
        except sqlite3.Error as error:
            raise DataError(f"cannot be read as an SQLite database: {error}", where=str(path)) from None
        if hasattr(connection, "setlimit"):  # Python 3.11
            connection.setlimit(_SQLITE_LIMIT_LENGTH, _MAX_CELL_BYTES)
        connection.set_authorizer(_authorize)
        yield connection


def run_sql(
    sql: str, connection: sqlite3.Connection, *, max_rows: int = MAX_ROWS, max_steps: int = MAX_STEPS
) -> Table:
    """The result of one query on a connection of ``open_database``.

    Raises InvalidSQLError for anything that is not one well-formed query within the limits: writing,
    ATTACH, PRAGMA and recursion are refused, and a query is stopped after ``max_steps`` instructions.
    """
    if len(sql) > _MAX_SQL_LENGTH:
        raise InvalidSQLError(f"statement of {len(sql):,} characters", remedy=f"at most {_MAX_SQL_LENGTH:,}")
    chunks_left = max(1, max_steps // _STEP_CHUNK)

    def out_of_steps() -> bool:
        nonlocal chunks_left
        chunks_left -= 1
        return chunks_left < 0

    connection.set_progress_handler(out_of_steps, _STEP_CHUNK)
    try:
        cursor = connection.execute(sql)
        rows = tuple(cursor.fetchmany(max_rows + 1))
    # Two statements at once are an sqlite3.Warning before Python 3.12; NUL and surrogates are ValueErrors.
    except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
        reason = "stopped: it takes too many steps" if chunks_left < 0 else str(error)
        raise InvalidSQLError(reason) from None
    finally:
        connection.set_progress_handler(None, 0)
    if cursor.description is None:
        raise InvalidSQLError("no query")
    columns = tuple(column[0] for column in cursor.description)
    return Table(columns=columns, rows=rows[:max_rows], complete=len(rows) <= max_rows)


def is_ordered(sql: str) -> bool:
    """True when the statement itself, not one of its subqueries, has an ORDER BY."""
    bare = re.sub(r"'(?:[^']|'')*'", "''", sql)
    while (inner := re.sub(r"\([^()]*\)", " ", bare)) != bare:
        bare = inner
    return re.search(r"\border\s+by\b", bare, re.IGNORECASE) is not None


def _sort_key(row: tuple[Cell, ...]) -> list[tuple[str, float, str]]:
    return [
        ("n", float(f"{cell:.9g}"), "")
        if isinstance(cell, (int, float))
        else (type(cell).__name__, 0.0, str(cell))
        for cell in row
    ]


def _same_cell(one: Cell, other: Cell) -> bool:
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=1e-6, abs_tol=1e-9)
    return one == other


def same_result(one: Table, other: Table, *, ordered: bool) -> bool:
    """Equal cells in equal columns, rows as a multiset unless ``ordered``; column names do not count."""
    if not (one.complete and other.complete and len(one.rows) == len(other.rows)):
        return False
    if len(one.columns) != len(other.columns):
        return False
    pairs = zip(one.rows, other.rows, strict=True)
    if not ordered:
        pairs = zip(sorted(one.rows, key=_sort_key), sorted(other.rows, key=_sort_key), strict=True)
    return all(_same_cell(a, b) for row, twin in pairs for a, b in zip(row, twin, strict=True))


def execution_accuracy(
    predictions: Sequence[str], references: Sequence[str], database: Path
) -> dict[str, float]:
    """Shares of predictions: right by result, equal to the reference as text, and not runnable.

    Returns ``execution_accuracy``, ``exact_match`` and ``invalid`` in [0, 1], and ``rows``. DataError
    for lists of different length, no rows, or a reference that does not run.
    """
    if len(predictions) != len(references) or not references:
        raise DataError(
            f"{len(predictions)} predictions for {len(references)} references",
            where=str(database),
            remedy="give one prediction for each reference, and at least one",
        )
    right = exact = invalid = 0
    with open_database(database) as connection:
        for number, (prediction, reference) in enumerate(zip(predictions, references, strict=True), 1):
            try:
                wanted = run_sql(reference, connection)
            except InvalidSQLError as error:
                raise DataError(f"the reference of row {number} does not run: {error}") from None
            exact += prediction.strip() == reference.strip()
            try:
                got = run_sql(prediction, connection)
            except InvalidSQLError:
                invalid += 1
                continue
            right += same_result(got, wanted, ordered=is_ordered(reference))
    rows = len(references)
    return {
        "execution_accuracy": right / rows,
        "exact_match": exact / rows,
        "invalid": invalid / rows,
        "rows": rows,
    }
