"""A worker: it loads the model once, and answers the lines that it is dealt until the dealer hangs up."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from seq2seq_cli import console
from seq2seq_cli.errors import S2SError
from seq2seq_cli.processes import launched
from seq2seq_cli.processes.link import BEAT, Link
from seq2seq_cli.text.lines import Counts, Output

#: what a dealer tells the workers that it starts: the socket's descriptor and the worker's number
VARIABLE = "S2S_WORKER"


class Writer(Protocol):
    """What answers lines: a text generator, or several that take turns."""

    @property
    def counts(self) -> Counts:
        """What befell the texts so far."""
        ...

    def texts(
        self,
        texts: Sequence[str],
        *,
        numbers: Sequence[int] | None,
        places: Sequence[str] | None,
        prefixes: Sequence[str | None] | None,
    ) -> list[Output]:
        """One output for each text; see ``TextGenerator.texts``."""
        ...


def link_to_dealer() -> Link | None:
    """The connection to the dealer, when this process is a worker. All but the first say nothing."""
    given = os.environ.pop(VARIABLE, None)
    if given is not None:
        descriptor, number = map(int, given.split(","))
        link = Link(socket.socket(fileno=descriptor))
    elif launched.rank() > 0:
        number, link = launched.rank(), launched.connect()
    else:
        return None
    if number > 0:
        console.verbosity = -1
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # it has nothing to save and nothing to say
    return link


def serve(link: Link, open_writer: Callable[[], Writer]) -> None:
    """Answer what comes until the dealer has no more, or has gone. Errors of the user are the dealer's to
    report; any other one ends this process, which the dealer sees."""
    threading.Thread(target=_beat, args=[link], daemon=True).start()
    try:
        writer, reply = open_writer(), dict[str, Any]()
        while (task := _exchange(link, reply)) is not None:
            outputs = writer.texts(
                task["texts"], numbers=task["numbers"], places=task["places"], prefixes=task["prefixes"]
            )
            reply = {
                "outputs": [[output.texts, output.scores, output.tokens] for output in outputs],
                "counts": vars(writer.counts),
            }
    except S2SError as error:
        findings = [[each.what, each.where, each.remedy] for each in error.findings]
        _exchange(link, {"error": findings, "exit_code": error.exit_code})


def _exchange(link: Link, reply: dict[str, Any]) -> dict[str, Any] | None:
    """Send a reply and wait for the next task; None when there is nobody any more."""
    with suppress(EOFError, OSError):
        link.send(reply)
        return link.receive()
    return None


def _beat(link: Link) -> None:
    with suppress(OSError):
        while True:
            link.beat()
            time.sleep(BEAT)
