"""SIGTERM and SIGINT as a wish that the loop asks about, so that it stops where its state is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from seq2seq_cli import console
from seq2seq_cli.errors import StoppedError


class StopRequest:
    """Which signal asked the run to stop; 0 while none did.

    ``at_once``: until training begins there is nothing to save, and a signal ends the program where it is.
    """

    def __init__(self) -> None:
        self.signal_number = 0
        self.at_once = True

    def __bool__(self) -> bool:
        return self.signal_number != 0

    def receive(self, number: int, frame: FrameType | None = None) -> None:
        """The handler: take note, and at a second SIGINT stop at once."""
        if self.at_once:
            raise StoppedError("stopped before training began", signal_number=number)
        if number == signal.SIGINT and self.signal_number == signal.SIGINT:
            raise StoppedError(
                "stopped at once", signal_number=number, remedy="the last checkpoint is as it was"
            )
        self.signal_number = number
        if number == signal.SIGINT:
            console.say("stopping after this batch; press Ctrl-C again to stop at once without saving")

    def raise_if_set(self, what: str, remedy: str = "") -> None:
        """StoppedError when a signal came; for places with nothing to save."""
        if self.signal_number:
            raise StoppedError(what, signal_number=self.signal_number, remedy=remedy)


@contextmanager
def listening() -> Iterator[StopRequest]:
    """Take over both signals for the block (in the main thread; elsewhere nobody can)."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, request.receive) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
