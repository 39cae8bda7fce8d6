"""Rows read as they are needed: windows that depend on their number alone, whatever was asked for before."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seq2seq_cli.data.dataset import TextDataset
from seq2seq_cli.data.rows import Row
from seq2seq_cli.data.sources import read_rows, stream_rows
from seq2seq_cli.data.streamed import StreamedDataset, Windows
from seq2seq_cli.errors import DataError
from seq2seq_cli.text.training import train_tokenizer

TOKENIZER = train_tokenizer("wordpiece", 60, ["red green blue cat dog"])


def row(number: int) -> Row:
    text = " ".join(["red", "green", "blue", "cat", "dog"][: 1 + number % 5])
    return Row(source="", target=text, references=(text,), where=f"x:{number}")


class Stream:
    """Ten rows; how many were read."""

    def __init__(self, rows: int = 10) -> None:
        self.rows, self.read, self.opened = rows, 0, 0

    def __call__(self) -> Iterator[Row]:
        self.opened += 1
        for number in range(self.rows):
            self.read += 1
            yield row(number)


def places(rows: list[Row]) -> list[int]:
    return [int(row.where[2:]) for row in rows]


@pytest.mark.parametrize(
    ("size", "passed"), [(4, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]), (5, [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]])]
)
def test_windows_follow_one_another_and_begin_again(size: int, passed: list[list[int]]) -> None:
    windows = Windows(Stream(), size)
    assert [places(windows[number]) for number in range(7)] == (passed * 4)[:7]


def test_a_window_depends_on_its_number_alone() -> None:
    wanted = [places(Windows(Stream(), 3)[number]) for number in range(12)]
    rng = random.Random(0)
    windows = Windows(Stream(), 3)
    for _ in range(60):
        number = rng.randrange(12)
        assert places(windows[number]) == wanted[number]


def test_rows_are_read_once_and_only_as_far_as_needed() -> None:
    stream = Stream(1000)
    windows = Windows(stream, 10)
    for number in range(5):
        windows[number]
    assert stream.read == 50
    assert stream.opened == 1


def test_an_epoch_is_a_window() -> None:
    def make(rows: Any) -> TextDataset:
        return TextDataset(rows=rows, tokenizer=TOKENIZER, objective="causal_lm", start_id=1, eos_id=2)

    data = StreamedDataset(Windows(Stream(), 4), make)
    assert len(data) == 4
    assert data.lengths.tolist() == make([row(i) for i in range(4)]).lengths.tolist()
    for epoch in (0, 2, 1, 0, 3):
        batch = data.batch([1, 0], epoch=epoch)
        first = [0, 4, 8, 0][epoch]
        assert batch.labels.tolist() == make([row(first + 1), row(first)]).batch([0, 1]).labels.tolist()
        assert data.where(1) == f"x:{first + 1}"
    assert data.content_hash == make([row(i) for i in range(4)]).content_hash


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"source": f"s{i}", "target": f"t{i}"}) + "\n" for i in range(500)))
    return path


def test_a_stream_has_the_rows_of_the_files(file: Path) -> None:
    assert list(stream_rows([file, file])) == read_rows([file, file])


def test_d1_a_bad_row_of_a_stream_stops_it_there(file: Path) -> None:
    lines = file.read_text().split("\n")
    lines[300] = "{broken"
    file.write_text("\n".join(lines))
    stream = stream_rows(file)
    good = [next(stream) for _ in range(300)]
    assert good[-1].target == "t299"
    with pytest.raises(DataError, match=r"broken JSON.*rows.jsonl:301"):
        next(stream)
    assert len(list(stream_rows(file, on_bad_row="skip"))) == 499
    lines[400:420] = ["{"] * 20
    file.write_text("\n".join(lines))
    with pytest.raises(DataError, match="21 of 500 rows are bad"):
        list(stream_rows(file, on_bad_row="skip"))
    file.write_text("")
    with pytest.raises(DataError, match="there are no rows"):
        next(stream_rows(file))


def test_d1_a_bad_last_row(file: Path) -> None:
    file.write_text(file.read_text() + "[]\n")
    with pytest.raises(DataError, match="not an object"):
        list(stream_rows(file))


def test_hub_rows_are_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: dict[str, Any] = {}

    def load(name: str, config: str | None, **options: Any) -> datasets.IterableDataset:
        asked.update(options)

        def rows() -> Iterator[dict[str, str]]:
            yield from ({"source": f"s{i}", "target": f"t{i}"} for i in range(3))

        return datasets.IterableDataset.from_generator(rows)

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert [row.target for row in stream_rows("owner/name")] == ["t0", "t1", "t2"]
    assert asked["streaming"] is True
    with pytest.raises(DataError, match="no column 'x'"):
        next(stream_rows("owner/name", source="x"))
