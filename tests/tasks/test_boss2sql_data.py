"""The data of Boss2SQL: repeatable, honestly split, runnable, and small enough to learn."""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter, defaultdict
from contextlib import closing
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from seq2seq_cli.errors import UsageError
from seq2seq_cli.tasks import recipe_data
from seq2seq_cli.tasks.boss2sql import write_data
from seq2seq_cli.tasks.boss2sql.execution import open_database, run_sql
from seq2seq_cli.tasks.boss2sql.files import FILES
from seq2seq_cli.tasks.boss2sql.pairs import SLOTS, SPLITS, alternatives, load_intents

Rows = dict[str, list[dict[str, Any]]]
write_small = partial(write_data, train=400, dev=60, test=80)


def _content(folder: Path) -> dict[str, object]:
    """The text files as bytes and the database as SQL."""
    with closing(sqlite3.connect(folder / "company.sqlite")) as connection:
        dump = list(connection.iterdump())
    return {file: (folder / file).read_bytes() for file in FILES if file != "company.sqlite"} | {"dump": dump}


def _combination(row: dict[str, Any]) -> tuple[str, str]:
    return row["intent"], json.dumps(row["values"], sort_keys=True)


def _skeleton(text: str) -> str:
    """What is left of a wording when neither its punctuation nor the name of a slot counts."""
    # These name different sets of the same thing, which cannot be told apart in a question.
    text = re.sub(r"\{(boss|seller)\}", "{person}", text)
    text = re.sub(
        r"\{((low|high)_)?(salary|price|project_budget|stock|total|orders|n|few)\}", "{number}", text
    )
    text = re.sub(r"\{\w*year\}", "{year}", text)
    return " ".join(re.findall(r"[\w{}']+", text.lower()))


def test_sizes(boss_rows: Rows, boss_folder: Path) -> None:
    assert {split: len(rows) for split, rows in boss_rows.items()} == {"train": 7000, "dev": 300, "test": 500}
    statements = (boss_folder / "sql.txt").read_text("utf-8").splitlines()
    assert len(statements) == len(set(statements)) == 14000
    assert set(boss_rows["train"][0]) == {"source", "target", "intent", "wording", "values"}
    assert sorted(path.name for path in boss_folder.iterdir()) == sorted(FILES)


def test_same_seed_same_data_other_seed_other_data(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_small(tmp_path / name, seed=seed)
    first, again, other = (_content(tmp_path / name) for name in "abc")
    assert first == again
    assert all(first[key] != other[key] for key in first)


def test_intents_are_well_formed() -> None:
    intents = load_intents()
    assert len({intent.name for intent in intents}) == len({intent.sql for intent in intents}) == len(intents)
    assert len(intents) >= 60
    for intent in intents:
        assert len(intent.wordings["train"]) >= 5, intent.name
        assert len(intent.wordings["dev"]) >= 1, intent.name
        assert len(intent.wordings["test"]) >= 2, intent.name
        slots = set(re.findall(r"\{(\w+)\}", intent.sql))
        assert slots <= set(SLOTS), intent.name
        for split in SPLITS:
            for wording in intent.wordings[split]:
                for text in alternatives(wording):
                    assert set(re.findall(r"\{(\w+)\}", text)) == slots, (intent.name, text)
                    assert not set("()|") & set(text), (intent.name, text)
                    assert text == " ".join(text.split()), (intent.name, text)


def test_no_line_of_the_questions_is_lost() -> None:
    text = files("seq2seq_cli.tasks.boss2sql").joinpath("questions.txt").read_text("utf-8")
    wordings = [line for line in text.splitlines() if line and not line.startswith(("#", "== ", "SELECT "))]
    read = sum(len(intent.wordings[split]) for intent in load_intents() for split in SPLITS)
    assert read == len(wordings)


def test_a_wording_belongs_to_one_intent_and_one_split() -> None:
    """Also after every alternative is written out: two wordings may not meet in the same words."""
    owners = defaultdict(set)
    for intent in load_intents():
        for split in SPLITS:
            for wording in intent.wordings[split]:
                for text in alternatives(wording):
                    owners[_skeleton(text)].add((intent.name, split))
    shared = {text: who for text, who in owners.items() if len(who) > 1}
    assert shared == {}


def test_test_wordings_and_combinations_are_unseen(boss_rows: Rows) -> None:
    for split, others in (("test", ("train", "dev")), ("dev", ("train",))):
        for other in others:
            for key in (lambda row: row["wording"], _combination, lambda row: row["target"]):
                assert not {key(row) for row in boss_rows[split]} & {key(row) for row in boss_rows[other]}


def test_sql_for_pretraining_holds_no_test_answer(boss_rows: Rows, boss_folder: Path) -> None:
    statements = set((boss_folder / "sql.txt").read_text("utf-8").splitlines())
    assert not statements & {row["target"] for split in ("dev", "test") for row in boss_rows[split]}
    assert {row["target"] for row in boss_rows["train"]} < statements


def test_single_values_of_test_rows_are_seen_in_training(boss_rows: Rows) -> None:
    seen = {value for row in boss_rows["train"] for value in row["values"].values()}
    assert seen >= {
        value for split in ("dev", "test") for row in boss_rows[split] for value in row["values"].values()
    }


def test_every_intent_is_in_every_split(boss_rows: Rows) -> None:
    names = {intent.name for intent in load_intents()}
    for split, rows in boss_rows.items():
        counts = Counter(row["intent"] for row in rows)
        assert set(counts) == names, split
        assert max(counts.values()) <= 2 * min(counts.values()), split


def test_questions_are_not_repeated(boss_rows: Rows) -> None:
    for rows in boss_rows.values():
        assert len({row["source"].lower() for row in rows}) >= 0.99 * len(rows)


def test_questions_name_their_values(boss_rows: Rows) -> None:
    """Everything that the SQL needs can be read off the lower-cased question."""
    for rows in boss_rows.values():
        for row in rows:
            for slot, value in row["values"].items():
                assert any(said.lower() in row["source"].lower() for said in SLOTS[slot][value]), row


def test_every_statement_runs_and_pairs_find_something(
    boss_rows: Rows, boss_folder: Path, company: Path
) -> None:
    with open_database(company) as connection:
        for rows in boss_rows.values():
            for target in {row["target"] for row in rows}:
                assert run_sql(target, connection).rows not in ((), ((None,),), ((0,),)), target
        for statement in (boss_folder / "sql.txt").read_text("utf-8").splitlines()[::7]:
            run_sql(statement, connection)


def test_no_fixed_answer_scores(boss_rows: Rows, company: Path) -> None:
    """Even the most frequent result is rare, so execution accuracy cannot be had by chance."""
    with open_database(company) as connection:
        results = Counter(run_sql(row["target"], connection).rows for row in boss_rows["test"])
    assert results.most_common(1)[0][1] <= 0.03 * len(boss_rows["test"])


def test_rankings_have_one_answer(company: Path) -> None:
    with open_database(company) as connection:
        for table, column in (("employees", "salary"), ("employees", "hired"), ("products", "price")):
            table_sql = f"SELECT COUNT(*) - COUNT(DISTINCT {column}) FROM {table}"
            assert run_sql(table_sql, connection).rows == ((0,),)


def test_rows_are_short(boss_rows: Rows) -> None:
    """Words and signs as a rough count of tokens: 32 word pieces and 60 SQL tokens are enough."""
    for rows in boss_rows.values():
        assert max(len(re.findall(r"\w+|[^\w\s]", row["source"])) for row in rows) <= 28
        assert max(len(re.findall(r"[^\W_]+|[^\s]", row["target"])) for row in rows) <= 72


def test_company_is_consistent(company: Path) -> None:
    with closing(sqlite3.connect(company)) as connection:
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        wrong_totals = """
            SELECT o.id FROM orders o JOIN order_items i ON i.order_id = o.id
            JOIN products p ON p.id = i.product_id GROUP BY o.id HAVING SUM(i.quantity * p.price) <> o.total
        """
        assert connection.execute(wrong_totals).fetchall() == []
        sellers = """
            SELECT DISTINCT d.name FROM orders o JOIN employees e ON e.id = o.employee_id
            JOIN departments d ON d.id = e.department_id
        """
        assert connection.execute(sellers).fetchall() == [("Sales",)]


def test_existing_files_are_kept_unless_asked(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("mine\n")
    with pytest.raises(UsageError, match=r"train\.jsonl exists"):
        write_small(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["train.jsonl"]
    assert (tmp_path / "train.jsonl").read_text() == "mine\n"
    write_small(tmp_path, overwrite=True)
    assert len((tmp_path / "train.jsonl").read_text("utf-8").splitlines()) == 400


def test_recipe_data_writes_once(tmp_path: Path) -> None:
    make = recipe_data("boss2sql")
    assert make is not None
    assert make is recipe_data("boss2sql-decoder")
    make(tmp_path / "data")
    (tmp_path / "data" / "train.jsonl").write_text("edited\n")
    make(tmp_path / "data")
    assert (tmp_path / "data" / "train.jsonl").read_text() == "edited\n"
    assert recipe_data("another") is None
