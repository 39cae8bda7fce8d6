"""Faults on demand, so that tests can kill a save at a known place.

``S2S_FAIL=POINT:ACTION[:COUNT]``, read once at import: when POINT is passed for the COUNT-th time (default
the first), ``kill`` ends the process with SIGKILL, ``stop`` halts it with SIGSTOP, ``sleepN`` delays it by
N seconds, and ``EIO``, ``ENOSPC``, ... raise that OSError. Points of a save: ``save:after:FILE`` (written and
on disk), ``save:before-rename``, ``save:after-rename``.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import time

_SLEEP = re.compile(r"sleep\d+")

_point, _action, _count = "", "", 1
_passed = 0


def _read(text: str) -> None:
    """Take over one setting; a wrong one is an error rather than a test that tests nothing."""
    global _point, _action, _count, _passed
    body, _, last = text.rpartition(":")
    count = int(last) if last.isdecimal() else 1
    _point, _, _action = (body if last.isdecimal() else text).rpartition(":")
    _count, _passed = count, 0
    if text and not (
        _point and (_action in ("kill", "stop") or _SLEEP.fullmatch(_action) or hasattr(errno, _action))
    ):
        raise ValueError(f"S2S_FAIL={text!r} is not POINT:ACTION[:COUNT]")


_read(os.environ.get("S2S_FAIL", ""))


def failpoint(point: str) -> None:
    """Fail here when S2S_FAIL asks for it."""
    global _passed
    if point != _point:
        return
    _passed += 1
    if _passed == _count:
        if _action in ("kill", "stop"):
            os.kill(os.getpid(), signal.SIGKILL if _action == "kill" else signal.SIGSTOP)
            return
        if _SLEEP.fullmatch(_action):
            time.sleep(int(_action.removeprefix("sleep")))
            return
        number = getattr(errno, _action)
        raise OSError(number, os.strerror(number), point)
