"""Pairs of measurements in turn, and the rows that they become."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.startup import commands, seconds_of
from benchmarks.worker import Worker
from benchmarks.workload import Size, step_work

#: speed-up over transformers and share of its memory that the project wants (shares of time turned round)
_WANTED_STEP = 1.54
WANTED_MEMORY = 0.5


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the result. ``limit`` is what the machine's own speed would allow, in ``unit``."""

    name: str
    unit: str
    s2s: float
    peer: float
    peer_name: str
    speedup: float  #: median over the pairs of peer's seconds / s2s's seconds
    cpu_speedup: float | None = (
        None  #: the same of processor time: steadier on a busy machine with one thread
    )
    wanted: float | None = None
    limit: float | None = None
    s2s_mb: float | None = None
    peer_mb: float | None = None
    wanted_memory: float | None = None
    same: str = ""  #: how far both made the same

    def as_json(self) -> dict[str, Any]:
        """Every figure, the share of memory, and the share of the limit that each program reached."""
        share = None if self.s2s_mb is None or not self.peer_mb else self.s2s_mb / self.peer_mb
        reached = None if self.limit is None else [self._reached(one) for one in (self.s2s, self.peer)]
        return {**asdict(self), "memory": share, "reached": reached}

    def _reached(self, figure: float) -> float:
        assert self.limit is not None
        return figure / self.limit if self.unit.endswith("/s") else self.limit / figure

    def cells(self) -> list[str]:
        """The row as text for a table."""

        def number(value: float | None, form: str) -> str:
            return "" if value is None else format(value, form)

        memory = "" if self.s2s_mb is None else f"{self.s2s_mb:.0f} and {self.peer_mb:.0f}"
        share, reached = (self.as_json()[name] for name in ("memory", "reached"))
        return [
            *(self.name, self.unit, number(self.s2s, ".3g"), number(self.peer, ".3g")),
            *(
                number(self.speedup, ".2f") + " ×",
                number(self.cpu_speedup, ".2f"),
                number(self.wanted, ".2f"),
                number(self.limit, ".3g"),
                "" if reached is None else " and ".join(f"{one:.0%}" for one in reached),
            ),
            *(memory, number(share, ".2f"), number(self.wanted_memory if share else None, ".2f"), self.same),
        ]


def machine_limits(folder: Path, size: Size, threads: int) -> dict[str, float]:
    """See ``programs.limits``."""
    with Worker("machine", "limits", "", folder=folder, size=size, threads=threads) as worker:
        found: dict[str, float] = worker.measure()["made"]
    return found


def in_turn(
    left: Callable[[], float], right: Callable[[], float], pairs: int
) -> tuple[list[float], list[float]]:
    """Seconds of both, measured left, right, left, right ..."""
    measured = [(left(), right()) for _ in range(pairs)]
    return [pair[0] for pair in measured], [pair[1] for pair in measured]


def speedup(left: list[float], right: list[float]) -> float:
    """Median over the pairs of right's seconds over left's: what slows both down for a while cancels out."""
    return median(b / a for a, b in zip(left, right, strict=True))


@dataclass(frozen=True, kw_only=True)
class Both:
    """Two programs side by side: their seconds, what their first (unmeasured) runs made, peak memory."""

    left: list[float]
    right: list[float]
    cpu: tuple[list[float], list[float]]  #: the same of processor time
    made: tuple[Any, Any]
    peaks: tuple[float, float]

    @property
    def cpu_speedup(self) -> float:
        """As ``speedup``, of processor time."""
        return speedup(*self.cpu)


def beside(
    job: str,
    mode: str,
    folder: Path,
    size: Size,
    *,
    peer: str,
    peer_mode: str | None = None,
    peer_python: str = sys.executable,
    pairs: int,
    threads: int,
) -> Both:
    """Measure ``pairs`` times in turn what s2s and ``peer`` do for a job, after a run of each to warm up.
    ``peer_mode``: the peer's mode where it is not the same; ``peer_python``: the interpreter that has it."""
    with (
        Worker("s2s", job, mode, folder=folder, size=size, threads=threads) as ours,
        Worker(
            *(peer, job, peer_mode or mode),
            folder=folder,
            size=size,
            threads=threads,
            python=peer_python,
        ) as theirs,
    ):
        made = (ours.measure()["made"], theirs.measure()["made"])
        if job == "train":  # the first run was a forward pass: let the optimizers make their state, too
            ours.measure()
            theirs.measure()
        answers: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])

        def seconds(which: int, worker: Worker) -> float:
            answers[which].append(worker.measure())
            return float(answers[which][-1]["seconds"])

        left, right = in_turn(partial(seconds, 0, ours), partial(seconds, 1, theirs), pairs)
    cpu = [[float(answer["cpu_seconds"]) for answer in side] for side in answers]
    return Both(
        left=left,
        right=right,
        cpu=(cpu[0], cpu[1]),
        made=made,
        peaks=(answers[0][-1]["peak_mb"], answers[1][-1]["peak_mb"]),
    )


def train_rows(
    folder: Path, size: Size, *, peer: str, pairs: int, threads: int, limits: dict[str, float]
) -> Iterator[Row]:
    """W2: one optimizer step (forward, backward, fused AdamW) on full batches."""
    both = beside("train", "", folder, size, peer=peer, pairs=pairs, threads=threads)
    losses = both.made
    yield Row(
        name="W2 step",
        unit="s",
        s2s=median(both.left) / size.steps,
        peer=median(both.right) / size.steps,
        peer_name=peer,
        speedup=speedup(both.left, both.right),
        cpu_speedup=both.cpu_speedup,
        wanted=_WANTED_STEP,
        limit=step_work(size) / limits["matmul_gflops"] / 1e9,
        s2s_mb=both.peaks[0],
        peer_mb=both.peaks[1],
        wanted_memory=WANTED_MEMORY,
        same=f"losses differ by {abs(losses[0] - losses[1]) / abs(losses[1]):.0e}",
    )


def startup_rows(
    folder: Path, size: Size, *, peer: str, pairs: int, threads: int, limits: dict[str, float]
) -> Iterator[Row]:
    """W3: commands from start to end, beside what a user of the peer would have to wait for."""
    for start in commands(folder):
        for command in (start.command, start.other):
            seconds_of(command)  # the files come into the cache
        least = min(seconds_of(start.least) for _ in range(3))
        left, right = in_turn(partial(seconds_of, start.command), partial(seconds_of, start.other), pairs)
        yield Row(
            name=f"W3 {start.name}",
            unit="s",
            s2s=median(left),
            peer=median(right),
            peer_name=start.named,
            speedup=speedup(left, right),
            limit=least,
        )
