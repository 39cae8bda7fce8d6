"""Reading a pipe without waiting: slow lines come alone, fast ones together."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from seq2seq_cli.text.lines import read_lines
from seq2seq_cli.text.stream import PipeReader, groups


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)


def test_p5_what_has_arrived_is_one_group_and_nothing_is_waited_for(pipe: tuple[int, int]) -> None:
    """The pipe stays open: waiting for more would hang."""
    reading, writing = pipe
    reader = PipeReader(reading)
    found = groups(read_lines(reader, name="stdin"), ready=reader.ready)
    for sent, together in (
        (b"one\n", ["one"]),
        (b"two\nthree\n\nfo", ["two", "three", ""]),  # half a line is not there yet
        (b"ur\n", ["four"]),
        (b"x\n" * 3, ["x"] * 3),
    ):
        os.write(writing, sent)
        assert next(found) == together
    os.write(writing, b"last")
    os.close(writing)
    assert list(found) == [["last"]]


def test_groups_grow_while_lines_are_there() -> None:
    sizes = [len(group) for group in groups(range(5000))]
    assert sizes[:5] == [32, 64, 128, 256, 512]
    assert max(sizes) == 1024
    assert sum(sizes) == 5000


def test_p5_long_lines_come_in_short_groups() -> None:
    assert [len(group) for group in groups(range(6), size=lambda item: 400, largest=1000)] == [3, 3]
