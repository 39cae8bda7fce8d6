"""The data folder of Boss2SQL: the database, the three splits, and SQL on its own."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from random import Random

from seq2seq_cli.errors import UsageError
from seq2seq_cli.tasks.boss2sql.company import write_company
from seq2seq_cli.tasks.boss2sql.execution import open_database, run_sql
from seq2seq_cli.tasks.boss2sql.pairs import (
    SPLITS,
    Intent,
    Pair,
    Split,
    Values,
    load_intents,
    questions,
    split_values,
    take,
)
from seq2seq_cli.tasks.boss2sql.statements import statements

FILES = ("company.sqlite", "train.jsonl", "dev.jsonl", "test.jsonl", "sql.txt")

#: Value combinations that one intent uses at most; a sample where there are more.
_COMBINATIONS = 160


def write_data(
    folder: Path,
    *,
    seed: int = 0,
    train: int = 7000,
    dev: int = 300,
    test: int = 500,
    overwrite: bool = False,
) -> None:
    """Write ``company.sqlite``, ``train.jsonl``, ``dev.jsonl``, ``test.jsonl`` and ``sql.txt`` to ``folder``.

    A row of a split has ``source`` (the question), ``target`` (its SQL), ``intent``, ``wording`` and
    ``values``. The wordings of a split, and the values that an intent meets in it, occur in no other
    split; a single value of a dev or test row does occur in train. ``sql.txt`` has one statement a
    line and holds no dev or test statement. The same seed and sizes give the same bytes (the database:
    the same rows). UsageError when one of the files exists and ``overwrite`` is false.
    """
    present = [file for file in FILES if (folder / file).exists()]
    if present and not overwrite:
        raise UsageError(
            f"{present[0]} exists", where=str(folder), remedy="choose another folder, or overwrite it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".boss2sql-") as staging:
        stage = Path(staging)
        write_company(stage / "company.sqlite", seed=seed)
        usable = _usable_values(stage / "company.sqlite", seed)
        dealt = [
            (intent, split_values(intent, values, Random(f"{seed} split {intent.name}")))
            for intent, values in usable
        ]
        pairs = _pairs(dealt, {"train": train, "dev": dev, "test": test}, seed)
        for split in SPLITS:
            _write_lines(
                stage / f"{split}.jsonl",
                (json.dumps(asdict(pair), ensure_ascii=False) for pair in pairs[split]),
            )
        _write_lines(stage / "sql.txt", _sql_text(dealt, count=2 * train, seed=seed))
        for file in FILES:
            (stage / file).replace(folder / file)


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())


def _usable_values(database: Path, seed: int) -> list[tuple[Intent, list[Values]]]:
    """The value combinations with something to find: no empty result, no lone NULL or 0."""
    usable = []
    with open_database(database) as connection:
        for intent in load_intents():
            everything = intent.all_values()
            sample = Random(f"{seed} values {intent.name}").sample(
                everything, min(_COMBINATIONS, len(everything))
            )
            found = [
                values
                for values in sample
                if run_sql(intent.fill(values), connection).rows not in ((), ((None,),), ((0,),))
            ]
            usable.append((intent, found))
    return usable


def _pairs(
    dealt: list[tuple[Intent, dict[Split, list[Values]]]], sizes: dict[Split, int], seed: int
) -> dict[Split, list[Pair]]:
    """The rows of each split, shuffled."""
    pairs: dict[Split, list[Pair]] = {}
    known: set[str] = set()
    for split in SPLITS:
        streams = []
        for intent, values in dealt:
            # What is tested is the combination: each single value must have been met in training.
            fair = [v for v in values[split] if split == "train" or known.issuperset(v.values())]
            if fair:
                streams.append(questions(intent, split, fair, Random(f"{seed} {split} {intent.name}")))
        rows = take(streams, sizes[split])
        Random(f"{seed} order {split}").shuffle(rows)
        pairs[split] = rows
        if split == "train":
            known = {value for pair in rows for value in pair.values.values()}
    return pairs


def _sql_text(dealt: list[tuple[Intent, dict[Split, list[Values]]]], *, count: int, seed: int) -> list[str]:
    """``count`` different statements, shuffled: those of the training values, then random ones."""
    held_out = {intent.fill(v) for intent, values in dealt for split in SPLITS[1:] for v in values[split]}
    random = Random(f"{seed} sql")
    lines = dict.fromkeys(intent.fill(v) for intent, values in dealt for v in values["train"])
    for statement in islice(statements(random), 5 * count):
        if len(lines) >= count:
            break
        if statement not in held_out:
            lines[statement] = None
    text = list(lines)[:count]
    random.shuffle(text)
    return text
