"""One program in a process of its own, which answers until its input ends.

Each line that comes in asks for one measurement; the answer is a line of JSON with the seconds it took (of
the clock and of the processor), what it made, and the most memory that the process has ever held (MB). The
parent keeps two of them side by side and asks them in turn.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.workload import Size, as_arguments

#: what says to every program how many threads it has; the child does not import torch for that
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")


class Worker:
    """The parent's end. RuntimeError, with the child's last words, when the child dies."""

    def __init__(
        self,
        program: str,
        job: str,
        mode: str,
        *,
        folder: Path,
        size: Size,
        threads: int,
        python: str = sys.executable,
    ) -> None:
        self.name = f"{program} {job} {mode}".strip()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        order: dict[str, Any] = {"program": program, "job": job, "mode": mode, "folder": str(folder)}
        order |= {"size": as_arguments(size), "threads": threads}
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.worker", json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **dict.fromkeys(_THREADS, str(threads)), "TOKENIZERS_PARALLELISM": "false"},
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._process.kill()
        self._process.communicate()
        self._errors.close()

    def measure(self) -> dict[str, Any]:
        """One measurement: {"seconds": ..., "cpu_seconds": ..., "made": ..., "peak_mb": ...}."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self._process.wait()
            self._errors.seek(0)
            words = self._errors.read().decode(errors="replace").strip()
            raise RuntimeError(f"{self.name} failed (exit code {self._process.returncode}):\n{words}")
        found: dict[str, Any] = json.loads(answer)
        return found


def main() -> None:
    """The child's end."""
    order = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing that a library prints may get between the answers
    from benchmarks.programs import JOBS

    make = JOBS[order["program"], order["job"]]
    job = make(Path(order["folder"]), order["mode"], Size(**order["size"]))
    for _ in sys.stdin:
        begun, cpu = time.perf_counter(), time.process_time()
        made = job()
        answer = {
            "seconds": time.perf_counter() - begun,
            "cpu_seconds": time.process_time() - cpu,
            "made": made,
            "peak_mb": peak_megabytes(),
        }
        print(json.dumps(answer), file=answers, flush=True)


def peak_megabytes() -> float:
    """The most memory that this process has held at one time. (What getrusage says begins with what the
    parent held when it started this process.)"""
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1024**2 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
