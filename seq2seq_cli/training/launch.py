"""Several processes on one machine, as Accelerate's environment variables describe them to each.

``accelerate launch`` and torchrun work as well; they report every end but success as exit code 1, with a
traceback. These processes end as one would: the signal goes to all of them, the exit code comes from them.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

#: seconds that the others get to end by themselves once one has failed
_GRACE = 10.0
#: the end of a pipe that is open while the parent lives
_ALIVE = "S2S_PARENT_PIPE"


def launch(arguments: Sequence[str], *, processes: int) -> int:
    """Run ``python -m seq2seq_cli ARGUMENTS`` in ``processes`` processes; the exit code of the first that
    failed, 0 when none did. SIGTERM and SIGINT are passed on, so that they save and stop."""
    alive, ours = os.pipe()
    port = _free_port()
    children = [_start(arguments, rank, processes, port, alive) for rank in range(processes)]
    os.close(alive)

    def pass_on(number: int, frame: FrameType | None) -> None:
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return _wait(children)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for child in children:
            if child.poll() is None:
                child.kill()
            child.wait()
        os.close(ours)


def follow_parent() -> None:
    """End, as after a SIGTERM, when the process that launched this one has gone; its end of a pipe tells."""
    alive = os.environ.pop(_ALIVE, "")
    if not alive.isdecimal():
        return

    def wait() -> None:
        with suppress(OSError):
            os.read(int(alive), 1)
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True, name="parent").start()


def _start(
    arguments: Sequence[str], rank: int, processes: int, port: int, alive: int
) -> subprocess.Popen[bytes]:
    threads = max(1, (os.cpu_count() or 1) // processes)
    environment = {
        "OMP_NUM_THREADS": str(threads),
        "TORCH_CPP_LOG_LEVEL": "ERROR",  # DDP's hints about speed
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        _ALIVE: str(alive),
    }
    # a session of its own: a Ctrl-C reaches it once, from here, not a second time from the terminal
    return subprocess.Popen(
        [sys.executable, "-m", "seq2seq_cli", *arguments],
        env=environment,
        start_new_session=True,
        pass_fds=(alive,),
    )


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait(children: Sequence[subprocess.Popen[bytes]]) -> int:
    """Until all have ended, or one has failed and the others had their time."""
    failed, deadline = 0, float("inf")
    while True:
        codes = [child.poll() for child in children]
        ended = [code for code in codes if code is not None]
        bad = next((code for code in ended if code), 0)
        if bad and not failed:
            failed, deadline = bad, time.monotonic() + _GRACE
        if len(ended) == len(children) or time.monotonic() > deadline:
            if failed < 0:  # killed: 1, but for a signal that was passed on
                return 128 - failed if -failed in (signal.SIGTERM, signal.SIGINT) else 1
            return failed
        time.sleep(0.05)
