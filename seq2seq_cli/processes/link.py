"""What passes between dealer and worker: JSON objects over a socket, and beats that say a worker is alive."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

#: seconds between two beats of a worker, and without any after which it counts as lost
BEAT, SILENCE = 2.0, 60.0


class Link:
    """One end of a connection. With ``limit`` a message that stops half-way is waited for so many seconds.

    EOFError or OSError when the other end has gone.
    """

    def __init__(self, ends_in: socket.socket, *, limit: float | None = None) -> None:
        if limit is not None:
            seconds = struct.pack("ll", max(1, int(limit)), 0)
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                ends_in.setsockopt(socket.SOL_SOCKET, option, seconds)
        ends_in.setblocking(True)
        self._connection = Connection(ends_in.detach())
        self._sending = threading.Lock()

    def fileno(self) -> int:
        """The socket, to wait for."""
        return self._connection.fileno()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one object."""
        self._send(json.dumps(message).encode("ascii"))

    def beat(self) -> None:
        """Send a sign of life."""
        self._send(b"")

    def receive(self) -> dict[str, Any] | None:
        """The next object; None for a beat."""
        data = self._connection.recv_bytes()
        if not data:
            return None
        message: dict[str, Any] = json.loads(data)
        return message

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def _send(self, data: bytes) -> None:
        with self._sending:
            self._connection.send_bytes(data)
