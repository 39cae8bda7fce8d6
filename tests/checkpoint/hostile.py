"""A process that loads foreign folders, so that its memory can be limited and its end survived.

``Loader`` is the test's end: it asks the process to load one folder after another, and tells what became of
each. The process measures the memory of each load by itself.
"""

from __future__ import annotations

import json
import os
import resource
import selectors
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

#: memory that the process may ask for on top of its own, in bytes
LIMIT = 1536 * 2**20
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Outcome:
    """loaded, refused by one of our errors, or one of the ends that must not be."""

    kind: Literal["loaded", "refused", "memory", "traceback", "crash", "hang"]
    text: str = ""  #: the error, or the last lines of a traceback
    seconds: float = 0.0
    megabytes: float = 0.0  #: how much the process grew for this load, at most

    @property
    def is_handled(self) -> bool:
        return self.kind in ("loaded", "refused")


class Loader:
    """Loads in another process, which is started anew when it dies or has to be killed."""

    def __init__(self, *, patience: float = 60.0) -> None:
        self.patience = patience  #: seconds for one load: busy machines are slow, and a hang is for ever
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def load(self, folder: Path, *, role: str | None = None, **more: Any) -> Outcome:
        """What loading ``folder`` comes to. ``use=True`` writes a few tokens with it as well; ``combine=...``
        are keywords of ``seq2seq_cli.combine``, which is called instead."""
        order = json.dumps({"folder": str(folder), "role": role, **more})
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.checkpoint.hostile"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            self._answer(self.patience)  # ready
        assert self._process.stdin is not None
        self._process.stdin.write(order.encode() + b"\n")
        self._process.stdin.flush()
        answer = self._answer(self.patience)
        if answer is not None:
            return Outcome(**json.loads(answer))
        died = self._process.poll()
        self._stop()
        return Outcome("hang") if died is None else Outcome("crash", f"exit code {died}")

    def _answer(self, patience: float) -> bytes | None:
        assert self._process is not None
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(patience):
                return None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
        return line or None


def _one(order: dict[str, Any]) -> None:
    import torch

    import seq2seq_cli
    from seq2seq_cli.model import Stack

    if "combine" in order:
        seq2seq_cli.combine(order["folder"], **order["combine"])
        return
    pair = seq2seq_cli.load(order["folder"], role=order["role"])
    if not order.get("use"):
        return
    text = "the cat Sat, on 3 mats"
    if order["role"] is None and pair.source_tokenizer is not None:
        pair.generate([text], max_new_tokens=2, num_beams=1, do_sample=False)
    elif pair.source_tokenizer is not None:
        pair.source_tokenizer.decode(pair.source_tokenizer.encode([text])[0])
    elif isinstance(pair.model, Stack):
        with torch.no_grad():
            pair.model(torch.tensor([[5, 6, 7]]))


def _megabytes(what: str) -> float:
    """VmRSS: memory that this process holds now; VmHWM: the most since the mark was set."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what))


def main() -> None:
    """The process."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warnings.simplefilter("error")
    import traceback

    import torch

    import seq2seq_cli
    from seq2seq_cli.errors import S2SError

    assert seq2seq_cli.load
    torch.set_num_threads(1)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + LIMIT
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    print(file=answers, flush=True)
    for line in sys.stdin:
        Path("/proc/self/clear_refs").write_text("5")  # sets the mark of VmHWM back
        before, begun = _megabytes("VmRSS"), time.monotonic()
        kind, text = "loaded", ""
        try:
            _one(json.loads(line))
        except S2SError as error:
            kind, text = "refused", f"{type(error).__name__}: {error}"[:5000]
        except BaseException as error:
            kind, text = "traceback", "".join(traceback.format_exception(error)[-3:])[:5000]
            if isinstance(error, MemoryError) or "alloc" in str(error):
                kind = "memory"
        answer = {"kind": kind, "text": text}
        answer |= {"seconds": time.monotonic() - begun, "megabytes": _megabytes("VmHWM") - before}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
