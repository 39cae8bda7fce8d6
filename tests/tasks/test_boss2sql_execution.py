"""Running SQL that nobody checked, and comparing results."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from seq2seq_cli.errors import DataError
from seq2seq_cli.tasks.boss2sql.execution import (
    InvalidSQLError,
    Table,
    execution_accuracy,
    is_ordered,
    open_database,
    run_sql,
    same_result,
)

HARMFUL = {
    "delete": "DELETE FROM employees",
    "update": "UPDATE employees SET salary = 1",
    "insert": "INSERT INTO departments VALUES (99, 'x', 1)",
    "drop": "DROP TABLE employees",
    "create": "CREATE TABLE x (y)",
    "temporary table": "CREATE TEMP TABLE x (y)",
    "transaction": "BEGIN",
    "attach": "ATTACH DATABASE '{other}' AS other",
    "vacuum into": "VACUUM INTO '{other}'",
    "pragma": "PRAGMA journal_mode",
    "pragma function": "SELECT * FROM pragma_database_list",
    "extension": "SELECT load_extension('{other}')",
    "big string": "SELECT printf('%900000000d', 1)",
    "big blob": "SELECT length(zeroblob(900000000))",
    "recursion": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n",
    "two statements": "SELECT 1; DELETE FROM employees",
    "endless join": "SELECT COUNT(*) FROM orders a, orders b, orders c, orders d",
    "endless rows": "SELECT a.id FROM orders a, orders b, orders c WHERE a.total + b.total + c.total < 0",
    "nothing": "",
    "a comment": "-- SELECT 1",
    "no SQL": "how many people are there?",
    "unknown column": "SELECT nme FROM employees",
    "NUL": "SELECT 1\0",
    "lone surrogate": "SELECT '\ud800'",
    "too long": "SELECT " + "1 + " * 5000 + "1",
    "too deep": "SELECT " + "(" * 4000 + "1" + ")" * 4000,
}


@pytest.mark.parametrize("name", HARMFUL)
def test_harmful_and_broken_statements_are_refused(name: str, company: Path, tmp_path: Path) -> None:
    before = company.read_bytes()
    other = tmp_path / "other.sqlite"
    started = time.monotonic()
    with open_database(company) as connection:
        with pytest.raises(InvalidSQLError):
            run_sql(HARMFUL[name].replace("{other}", str(other)), connection)
        assert run_sql("SELECT COUNT(*) FROM departments", connection).rows == ((8,),)
    assert time.monotonic() - started < 5
    assert company.read_bytes() == before
    assert not other.exists()
    assert not list(company.parent.glob("company.sqlite-*"))


def test_the_connection_itself_cannot_write(company: Path) -> None:
    """The second lock, for the day the first one misses something."""
    import sqlite3

    with open_database(company) as connection:
        connection.set_authorizer(None)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("DELETE FROM employees")


def test_a_folder_with_signs_of_a_uri(company: Path, tmp_path: Path) -> None:
    odd = tmp_path / "what? 100% #1&mode=rwc"
    odd.mkdir()
    (odd / "company.sqlite").write_bytes(company.read_bytes())
    with open_database(odd / "company.sqlite") as connection:
        assert run_sql("SELECT COUNT(*) FROM employees", connection).rows == ((320,),)


def test_rows_are_capped(company: Path) -> None:
    with open_database(company) as connection:
        capped = run_sql("SELECT id FROM employees ORDER BY id", connection, max_rows=3)
        assert capped == Table(columns=("id",), rows=((1,), (2,), (3,)), complete=False)
        assert run_sql("SELECT id FROM employees WHERE id < 4", connection, max_rows=3).complete


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    text = tmp_path / "text.sqlite"
    text.write_text("no database at all, but longer than the header of one\n" * 20)
    for path, message in ((tmp_path / "none.sqlite", "no such database"), (text, "cannot be read")):
        with pytest.raises(DataError, match=message), open_database(path):
            pass
    assert not (tmp_path / "none.sqlite").exists()


@pytest.mark.parametrize(
    ("sql", "ordered"),
    [
        ("SELECT name FROM employees ORDER BY salary", True),
        ("select name from employees order  by salary limit 3", True),
        ("SELECT name FROM employees", False),
        ("SELECT name FROM employees WHERE id IN (SELECT id FROM (SELECT 1) ORDER BY id)", False),
        ("SELECT name FROM employees WHERE name = 'order by'", False),
        ("SELECT name FROM employees WHERE name = 'it''s ( ' ORDER BY name", True),
    ],
)
def test_is_ordered(sql: str, ordered: bool) -> None:
    assert is_ordered(sql) is ordered


def _table(*rows: tuple[object, ...]) -> Table:
    return Table(columns=tuple(f"c{n}" for n in range(len(rows[0]))), rows=rows, complete=True)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "other", "ordered", "same"),
    [
        (_table((1,), (2,)), _table((2,), (1,)), False, True),
        (_table((1,), (2,)), _table((2,), (1,)), True, False),
        (_table((1,), (1,), (2,)), _table((1,), (2,), (2,)), False, False),
        (_table((1,)), _table((1.0000000001,)), True, True),
        (_table((1,)), _table((1.001,)), True, False),
        (_table((1,)), _table(("1",)), True, False),
        (_table((None,)), _table((0,)), True, False),
        (_table((None, "a"), ("b", 2)), _table(("b", 2.0), (None, "a")), False, True),
        (_table((1, 2)), _table((2, 1)), False, False),
        (_table((1,)), _table((1, 1)), False, False),
        (_table((0.1 + 0.2, "a"), (5, "b")), _table((5, "b"), (0.3, "a")), False, True),
    ],
)
def test_same_result(one: Table, other: Table, ordered: bool, same: bool) -> None:
    assert same_result(one, other, ordered=ordered) is same
    assert same_result(other, one, ordered=ordered) is same


def test_execution_accuracy_counts_results_not_words(company: Path) -> None:
    reference = "SELECT name FROM employees WHERE city = 'Oslo'"
    ranking = "SELECT name FROM employees ORDER BY salary DESC LIMIT 3"
    score = execution_accuracy(
        [
            reference,
            "SELECT e.name AS who FROM employees e WHERE e.city = 'Oslo' ORDER BY hired",
            "SELECT name FROM employees WHERE city = 'Rome'",
            "SELECT name FRM employees",
            "SELECT name FROM (SELECT * FROM employees ORDER BY salary DESC LIMIT 3) ORDER BY salary",
        ],
        [reference, reference, reference, reference, ranking],
        company,
    )
    assert score == {"execution_accuracy": 0.4, "exact_match": 0.2, "invalid": 0.2, "rows": 5}


def test_references_score_full_marks(boss_rows: dict[str, list[dict[str, str]]], company: Path) -> None:
    references = [row["target"] for row in boss_rows["test"]]
    assert execution_accuracy(references, references, company)["execution_accuracy"] == 1
    wrong = execution_accuracy(references[1:] + references[:1], references, company)
    assert wrong["execution_accuracy"] < 0.02


def test_wrong_lists_and_references(company: Path) -> None:
    with pytest.raises(DataError, match="1 predictions for 2 references"):
        execution_accuracy(["SELECT 1"], ["SELECT 1"] * 2, company)
    with pytest.raises(DataError, match="reference of row 2 does not run"):
        execution_accuracy(["SELECT 1"] * 2, ["SELECT 1", "SELECT x"], company)
