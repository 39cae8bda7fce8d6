"""The dealer: lines go to whichever worker is idle, their answers come out in the order of the lines."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from seq2seq_cli.errors import Finding, S2SError
from seq2seq_cli.processes import launched, link
from seq2seq_cli.processes.link import Link
from seq2seq_cli.processes.worker import VARIABLE
from seq2seq_cli.text.lines import Counts, Output

#: seconds that a process gets to end by itself
_GRACE = 5.0
#: how many lines are read ahead of the one that is written next
_AHEAD = 1 << 13


class Job(Protocol):
    """What is dealt: a line with its number, its place in messages and what its output begins with."""

    @property
    def number(self) -> int: ...
    @property
    def source(self) -> str: ...
    @property
    def where(self) -> str: ...
    @property
    def prefix(self) -> str | None: ...


J = TypeVar("J", bound=Job)


@dataclass(kw_only=True)
class _Worker(Generic[J]):
    name: str
    link: Link
    process: subprocess.Popen[bytes] | None = None
    heard: float = field(default_factory=time.monotonic)
    is_ready: bool = False
    jobs: list[J] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)

    @property
    def is_idle(self) -> bool:
        return self.is_ready and not self.jobs


class Dealer(Generic[J]):
    """A context manager: the workers end with its block. ``remedy`` says what to do when one is lost."""

    def __init__(self, *, remedy: str = "") -> None:
        self._remedy = remedy
        self._workers: list[_Worker[J]] = []

    @property
    def counts(self) -> Counts:
        """What befell the lines, as all workers say."""
        return sum((worker.counts for worker in self._workers), Counts())

    def start(self, arguments: Sequence[str], *, processes: int) -> None:
        """Get workers: ``processes`` on this machine that run the program with ``arguments``; in a launch one
        of these, and the other ranks."""
        world = launched.world()
        for number in range(1 if world > 1 else processes):
            self._start(arguments, number, max(world, processes))
        if world > 1:
            for number, connection in launched.gather():
                self.add(f"rank {number} of {world}", connection)

    def add(self, name: str, connection: Link, process: subprocess.Popen[bytes] | None = None) -> None:
        """One more worker, at the other end of ``connection``."""
        self._workers.append(_Worker(name=name, link=connection, process=process))

    def _start(self, arguments: Sequence[str], number: int, total: int) -> None:
        ours, theirs = socket.socketpair()
        threads = max(1, (os.cpu_count() or 1) // total)
        environment = {
            "OMP_NUM_THREADS": str(threads),
            "LOCAL_RANK": str(number),  # the accelerator to use, where there are several
            **os.environ,
            VARIABLE: f"{theirs.fileno()},{number}",
        }
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "seq2seq_cli", *arguments],
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C is for this process, which ends the others
            )
        self.add(f"process {number} of {total}", Link(ours, limit=link.SILENCE), process)

    def answers(
        self, groups: Iterator[list[J]], *, ready: Callable[[], bool], descriptor: int | None
    ) -> Iterator[tuple[list[J], list[Output]]]:
        """The jobs of ``groups`` with their outputs, in order, as soon as all before them are there.

        ready: whether the next group can be had without waiting; descriptor: what to wait for where it
        cannot. S2SError when a worker reports one or is lost; an error of ``groups`` comes when all before it
        is answered.
        """
        waiting, order = deque[list[J]](), deque[J]()
        found = dict[int, Output]()
        failure: S2SError | None = None
        more = True
        while more or order:
            wanted = more and not waiting and len(order) < _AHEAD and any(w.is_idle for w in self._workers)
            if wanted and ready():
                try:
                    group = next(groups, None)
                except S2SError as error:
                    group, failure = None, error
                more = group is not None
                order.extend(group or ())
                waiting.extend(_shares(group or [], len(self._workers)))
                wanted = False
            for worker in self._workers:
                if waiting and worker.is_idle:
                    self._deal(worker, waiting.popleft())
            if more or order:
                found.update(self._hear(descriptor if wanted else None))
            done = [order.popleft() for _ in range(_ready_in_front(order, found))]
            if done:
                yield done, [found.pop(job.number) for job in done]
        if failure is not None:
            raise failure

    def _deal(self, worker: _Worker[J], jobs: list[J]) -> None:
        worker.jobs = jobs
        task = {
            "texts": [job.source for job in jobs],
            "numbers": [job.number for job in jobs],
            "places": [job.where for job in jobs],
            "prefixes": [job.prefix for job in jobs],
        }
        try:
            worker.link.send(task)
        except OSError:
            raise self._lost(worker) from None

    def _hear(self, descriptor: int | None) -> dict[int, Output]:
        """Wait until somebody says something, or input comes; the outputs by their job's number."""
        found = dict[int, Output]()
        by_link = {worker.link: worker for worker in self._workers}
        watched: list[Any] = [*by_link, *([] if descriptor is None else [descriptor])]
        heard = wait(watched, timeout=link.BEAT)
        now = time.monotonic()
        for each in heard:
            if isinstance(each, Link):
                found.update(self._receive(by_link[each], now))
        for worker in self._workers:
            if now - worker.heard > link.SILENCE:
                raise self._lost(worker, f"no sign of life for {link.SILENCE:.0f} s")
        return found

    def _receive(self, worker: _Worker[J], now: float) -> dict[int, Output]:
        worker.heard = now
        try:
            message = worker.link.receive()
        except (EOFError, OSError):
            raise self._lost(worker) from None
        if message is None:
            return {}
        if "error" in message:
            error = S2SError(findings=[Finding(*each) for each in message["error"]])
            error.exit_code = message["exit_code"]
            raise error
        worker.is_ready = True
        jobs, worker.jobs = worker.jobs, []
        worker.counts = Counts(**message.get("counts", {}))
        outputs = [
            Output(texts=tuple(texts), scores=tuple(scores), tokens=tuple(tokens))
            for texts, scores, tokens in message.get("outputs", ())
        ]
        return {job.number: output for job, output in zip(jobs, outputs, strict=True)}

    def _lost(self, worker: _Worker[J], how: str = "") -> S2SError:
        """The error that names a worker, and how it ended where that can be known."""
        code = None
        if worker.process is not None and not how:
            with suppress(subprocess.TimeoutExpired):
                code = worker.process.wait(_GRACE)
        if code is not None:
            how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"it ended with exit code {code}"
        error = S2SError(f"{worker.name} was lost: {how or 'its connection closed'}", remedy=self._remedy)
        if code is not None and code > 1:  # it said why itself
            error.exit_code = code
        return error

    def __enter__(self) -> Dealer[J]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        processes = [worker.process for worker in self._workers if worker.process is not None]
        for worker in self._workers:
            worker.link.close()
        if error is not None:
            for process in processes:
                process.terminate()
        deadline = time.monotonic() + _GRACE
        for process in processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _shares(group: list[J], count: int) -> list[list[J]]:
    """A group for ``count`` workers, by index, so that long and short lines are spread."""
    return [share for number in range(count) if (share := group[number::count])]


def _ready_in_front(order: deque[J], found: dict[int, Output]) -> int:
    """How many jobs at the front have their output."""
    return next((place for place, job in enumerate(order) if job.number not in found), len(order))
