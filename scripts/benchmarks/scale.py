"""W6: how time and memory grow with the batch, the lengths, the beams and the number of lines."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import Both, beside
from benchmarks.workload import QUICK, Size, write_pair

#: the words of the lines that are written
_WORDS = ("show", "all", "customers", "list", "the", "orders", "of", "a", "count", "products", "by")


@dataclass(frozen=True, kw_only=True)
class Curve:
    """What is varied, over which values, beside what size of everything else."""

    name: str
    values: tuple[int, ...]
    size: Size
    strategy: str = "greedy"

    def at(self, value: int) -> tuple[Size, str]:
        """The size and the mode of one point."""
        if self.name == "batch":
            return replace(self.size, sources=value), self.strategy
        if self.name == "source length":
            return replace(self.size, shortest=value, longest=value), self.strategy
        if self.name == "target length":
            return replace(self.size, new_tokens=value), self.strategy
        return self.size, f"beam{value}"


def curves(size: Size, *, quick: bool) -> list[Curve]:
    """Batch, source length, target length, beams; the rest of each stands still."""
    base = replace(size, shortest=32, longest=32, sources=8, new_tokens=8 if quick else 32)
    if quick:
        tiny = [
            ("batch", (1, 2, 4)),
            ("source length", (16, 32)),
            ("target length", (4, 8)),
            ("beams", (1, 2)),
        ]
        return [Curve(name=name, values=values, size=base) for name, values in tiny]
    few = replace(base, sources=4)
    return [
        Curve(name="batch", values=doubled(1, 256), size=base),
        Curve(name="source length", values=doubled(16, 2048), size=replace(few, new_tokens=16)),
        Curve(name="target length", values=doubled(16, 1024), size=few),
        Curve(name="beams", values=doubled(1, 16), size=base),
    ]


def doubled(first: int, last: int) -> tuple[int, ...]:
    """first, 2 * first, ... last."""
    return tuple(first * 2**step for step in range(int(math.log2(last // first)) + 1))


def positions(size: Size, *, quick: bool) -> Size:
    """``size`` with room for the longest source."""
    longest = max(max(curve.values) for curve in curves(size, quick=quick) if curve.name == "source length")
    return replace(size, source_positions=max(longest, size.source_positions))


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One program at one point: seconds of the clock and of the processor (medians), peak memory."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


@dataclass(frozen=True, kw_only=True)
class Point:
    """``work``: floating-point operations, ``limit``: the seconds that the machine needs for them; both None
    for lines, whose number is all that matters."""

    curve: str
    value: int
    work: float | None
    limit: float | None
    s2s: Reading
    peer: Reading | None = None

    def as_json(self) -> dict[str, Any]:
        """Every figure."""
        return asdict(self)


def work_of(size: Size, strategy: str) -> float:
    """Floating-point operations of encoding every source and writing every token."""
    beams = 1 if strategy == "greedy" else int(strategy.removeprefix("beam"))
    width, length, tokens = size.hidden_size, size.longest, size.new_tokens
    once = size.encoder_weights + size.num_layers * 2 * width**2  # with the keys and values of the source
    encode = length * (2 * once + 4 * size.num_layers * length * width)
    attended = length + (tokens + 1) / 2
    decode = beams * tokens * (2 * size.token_weights + 4 * size.num_layers * attended * width)
    return size.sources * (encode + decode)


def limit_of(size: Size, strategy: str, limits: dict[str, float]) -> float:
    """Seconds: the operations at the machine's best rate, or the decoder's weights once a token, whichever
    takes longer."""
    arithmetic = work_of(size, strategy) / limits["matmul_gflops"] / 1e9
    return max(arithmetic, size.new_tokens * 4 * size.token_weights / limits["matvec_gbytes"] / 1e9)


def exponent(values: Sequence[float], measured: Sequence[float]) -> float:
    """p of measured ~ values^p, by least squares of the logarithms over the upper half of the values: what
    stands still has stopped to matter there."""
    first = min(len(values) // 2, len(values) - 2)
    x = [math.log(value) for value in values[first:]]
    y = [math.log(value) for value in measured[first:]]
    centre = sum(x) / len(x)
    return sum((a - centre) * b for a, b in zip(x, y, strict=True)) / sum((a - centre) ** 2 for a in x)


def growth(points: Sequence[Point]) -> dict[str, float]:
    """Exponents of one curve: of the arithmetic, and of both programs' processor time and memory."""
    values = [point.value for point in points]
    found = {
        "s2s time": exponent(values, [point.s2s.cpu_seconds for point in points]),
        "s2s memory": exponent(values, [point.s2s.peak_mb for point in points]),
    }
    peers = [point.peer for point in points if point.peer is not None]
    if len(peers) == len(points):
        found["peer time"] = exponent(values, [peer.cpu_seconds for peer in peers])
        found["peer memory"] = exponent(values, [peer.peak_mb for peer in peers])
    work = [point.work for point in points if point.work is not None]
    if len(work) == len(points):
        found["arithmetic"] = exponent(values, work)
    return found


def decode_points(
    folder: Path, size: Size, *, quick: bool, peer: str, pairs: int, threads: int, limits: dict[str, float]
) -> Iterator[Point]:
    """Every point of every curve, s2s and the peer in turn, each point in processes of its own: the peak of
    one must not hide that of another."""
    write_pair(folder, positions(size, quick=quick))
    for curve in curves(size, quick=quick):
        for value in curve.values:
            sized, mode = curve.at(value)
            both = beside("decode", mode, folder, sized, peer=peer, pairs=pairs, threads=threads)
            yield Point(
                curve=curve.name,
                value=value,
                work=work_of(sized, mode),
                limit=limit_of(sized, mode, limits),
                s2s=reading(both, 0),
                peer=reading(both, 1),
            )


def reading(both: Both, side: int) -> Reading:
    """What one of two programs took."""
    return Reading(
        seconds=median((both.left, both.right)[side]),
        cpu_seconds=median(both.cpu[side]),
        peak_mb=both.peaks[side],
    )


def line_points(folder: Path, counts: Sequence[int], threads: int) -> Iterator[Point]:
    """``s2s generate`` over files of so many lines, with a tiny model."""
    write_pair(folder, QUICK, tokenizer=True)
    for count in counts:
        source = folder.with_name(f"{count}.txt")
        write_lines(source, count)
        target = source.with_suffix(".out")
        command = [sys.executable, "-m", "seq2seq_cli", "generate", "-q", "-m", str(folder)]
        command += ["--max-new-tokens", "4", "-i", str(source), "-o", str(target)]
        reading = watched(command, threads)
        written = sum(1 for _ in target.open("rb"))
        if written != count:
            raise RuntimeError(f"s2s generate wrote {written} lines for {count}")
        yield Point(curve="lines", value=count, work=None, limit=None, s2s=reading)


def write_lines(path: Path, count: int) -> None:
    """So many lines of three to eight words (seed 0)."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            file.write(" ".join(draw.choices(_WORDS, k=draw.randint(3, 8))) + "\n")


def watched(command: Sequence[str], threads: int) -> Reading:
    """One run of a command. RuntimeError, with its last words, when it fails."""
    begun, peak = time.perf_counter(), 0.0
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
    )
    while True:
        peak = max(peak, _peak(process.pid))
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        if ended:
            break
        time.sleep(0.01)
    seconds = time.perf_counter() - begun
    assert process.stderr is not None
    with process.stderr as stderr:
        words = stderr.read().decode(errors="replace").strip()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} failed ({process.returncode}):\n{words}")
    return Reading(seconds=seconds, cpu_seconds=usage.ru_utime + usage.ru_stime, peak_mb=peak)


def _peak(process: int) -> float:
    """The most memory (MB) that a process has held so far; 0 where nothing says so, or no longer."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)
