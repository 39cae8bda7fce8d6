"""Dealing lines to workers: threads stand in for processes, a stub for the model."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from seq2seq_cli.errors import DataError, S2SError
from seq2seq_cli.processes import link as wire
from seq2seq_cli.processes.dealer import Dealer
from seq2seq_cli.processes.link import Link
from seq2seq_cli.processes.worker import serve
from seq2seq_cli.text.lines import Counts, Output
from seq2seq_cli.text.stream import groups


@dataclass(frozen=True)
class Job:
    number: int

    @property
    def source(self) -> str:
        return f"text {self.number}"

    @property
    def where(self) -> str:
        return f"file:{self.number + 1}"

    @property
    def prefix(self) -> str:
        return f"prefix {self.number}"


class Stub:
    """Writes each text back, after a while."""

    def __init__(self, seed: int, *, slowest: float = 0.0, wrong: int | None = None) -> None:
        self.counts = Counts()
        self._random, self._slowest, self._wrong = random.Random(seed), slowest, wrong

    def texts(
        self,
        texts: Sequence[str],
        *,
        numbers: Sequence[int] | None,
        places: Sequence[str] | None,
        prefixes: Sequence[str | None] | None,
    ) -> list[Output]:
        assert numbers is not None
        assert places is not None
        assert [f"text {number}" for number in numbers] == list(texts)
        assert prefixes == [f"prefix {number}" for number in numbers]
        if self._wrong in numbers:
            raise DataError("wrong", where=places[list(numbers).index(self._wrong)])
        time.sleep(self._random.random() * self._slowest)
        self.counts.truncated += len(texts)
        return [
            Output(texts=(f"{text}!",), scores=(number / 7,))
            for text, number in zip(texts, numbers, strict=True)
        ]


def make_dealer(count: int, **settings: float) -> Dealer[Job]:
    dealer = Dealer[Job](remedy="try again")
    for number in range(count):
        ours, theirs = socket.socketpair()
        dealer.add(f"process {number} of {count}", Link(ours, limit=5))
        stub = Stub(number, **settings)
        threading.Thread(target=serve, args=[Link(theirs), lambda stub=stub: stub], daemon=True).start()
    return dealer


def answers(dealer: Dealer[Job], lines: Iterator[list[Job]]) -> Iterator[tuple[int, str, float]]:
    for jobs, outputs in dealer.answers(lines, ready=lambda: True, descriptor=None):
        for job, output in zip(jobs, outputs, strict=True):
            yield job.number, output.texts[0], output.scores[0]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_answers_come_in_order_once_each(count: int) -> None:
    lines = 700
    with make_dealer(count, slowest=0.01) as dealer:
        found = list(answers(dealer, groups(map(Job, range(lines)))))
        assert dealer.counts == Counts(truncated=lines)
    assert found == [(number, f"text {number}!", number / 7) for number in range(lines)]


def test_numbers_may_start_anywhere_and_there_may_be_no_line() -> None:
    with make_dealer(2) as dealer:
        assert [number for number, _, _ in answers(dealer, iter([[Job(40), Job(41), Job(42)]]))] == [
            40,
            41,
            42,
        ]
        assert list(answers(dealer, iter([]))) == []


def test_a_workers_error_is_the_dealers() -> None:
    with make_dealer(2, wrong=33) as dealer, pytest.raises(S2SError, match=r"^wrong · file:34$") as caught:
        list(answers(dealer, groups(map(Job, range(100)))))
    assert caught.value.exit_code == 3


def test_what_came_before_a_wrong_line_is_answered() -> None:
    def lines() -> Iterator[list[Job]]:
        yield [Job(0), Job(1)]
        raise DataError("wrong line", where="file:3")

    with make_dealer(2, slowest=0.2) as dealer:
        found = answers(dealer, lines())
        assert [next(found)[0], next(found)[0]] == [0, 1]
        with pytest.raises(DataError, match="wrong line"):
            next(found)


def test_a_worker_that_hangs_up_is_named() -> None:
    with make_dealer(1) as dealer:
        ours, theirs = socket.socketpair()
        dealer.add("rank 1 of 2", Link(ours))
        found = answers(dealer, iter([[Job(0)]]))
        assert next(found)[0] == 0
        theirs.close()
        with pytest.raises(
            S2SError, match=r"^rank 1 of 2 was lost: its connection closed · try again$"
        ) as caught:
            list(answers(dealer, groups(map(Job, range(100)))))
    assert caught.value.exit_code == 1


def test_a_worker_that_says_nothing_is_lost_and_a_slow_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "SILENCE", 1.5)
    monkeypatch.setattr(wire, "BEAT", 0.1)
    monkeypatch.setattr("seq2seq_cli.processes.worker.BEAT", 0.1)
    with make_dealer(1, slowest=3.0) as dealer:  # its first answer takes 2.5 s
        assert len(list(answers(dealer, iter([[Job(0)]])))) == 1
    with make_dealer(1, slowest=3.0) as dealer:
        ours, theirs = socket.socketpair()
        dealer.add("rank 1 of 2", Link(ours))
        begun = time.monotonic()
        with pytest.raises(S2SError, match="rank 1 of 2 was lost: no sign of life"):
            list(answers(dealer, groups(map(Job, range(100)))))
        assert time.monotonic() - begun < 30
        theirs.close()


def test_reading_stops_where_a_worker_lags_behind() -> None:
    """Memory stays flat though one worker answers nothing: what is read ahead has an end."""
    read = 0

    def lines() -> Iterator[list[Job]]:
        nonlocal read
        for number in range(40):
            read = 1000 * (number + 1)
            yield [Job(1000 * number + place) for place in range(1000)]

    with make_dealer(1) as dealer:
        ours, theirs = socket.socketpair()
        dealer.add("rank 1 of 2", Link(ours, limit=1))
        stuck = Link(theirs)
        stuck.send({})
        found = dealer.answers(lines(), ready=lambda: True, descriptor=None)
        time.sleep(0.2)
        threading.Timer(1.0, stuck.close).start()
        with pytest.raises(S2SError, match="rank 1 of 2 was lost"):
            list(found)
    assert read <= 10_000
