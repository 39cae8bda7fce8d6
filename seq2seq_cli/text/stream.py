"""Reading a pipe without waiting: what has arrived is worked on together, what has not is not waited for."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

_CHUNK = 1 << 16
T = TypeVar("T")


class PipeReader:
    """A byte stream on a file descriptor that can tell whether a whole line is there already."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = bytearray()
        self._searched = 0  # no newline before this place
        self._ended = False

    def ready(self) -> bool:
        """True when ``readline`` will return at once."""
        while not self._has_line() and not self._ended:
            if not select.select([self._descriptor], [], [], 0)[0]:
                return False
            self._fill()
        return True

    def readline(self, limit: int = -1) -> bytes:
        """The next line with its newline, at most ``limit`` bytes of it; b"" at the end."""
        while not self._has_line() and not self._ended and not 0 <= limit <= len(self._buffer):
            self._fill()
        end = self._buffer.find(b"\n", self._searched) + 1 or len(self._buffer)
        if limit >= 0:
            end = min(end, limit)
        line = bytes(self._buffer[:end])
        del self._buffer[:end]
        self._searched = 0
        return line

    def _has_line(self) -> bool:
        place = self._buffer.find(b"\n", self._searched)
        if place < 0:
            self._searched = len(self._buffer)
            return False
        self._searched = place
        return True

    def _fill(self) -> None:
        chunk = os.read(self._descriptor, _CHUNK)
        self._ended = not chunk
        self._buffer += chunk


def groups(
    items: Iterable[T],
    *,
    ready: Callable[[], bool] = lambda: True,
    size: Callable[[T], int] = lambda item: 1,
    first: int = 32,
    most: int = 1024,
    largest: int = 1 << 22,
) -> Iterator[list[T]]:
    """Lists of the items that are there, in order. The first lists are short, so that the first results
    come soon; later ones grow, so that batches fill. Ends a list when nothing more is ``ready``, and when its
    sizes add up to ``largest``, so that a thousand books do not lie in memory together."""
    limit, group, total = first, list[T](), 0
    for item in items:
        group.append(item)
        total += size(item)
        if len(group) >= limit or total >= largest or not ready():
            yield group
            limit, group, total = min(2 * limit, most), [], 0
    if group:
        yield group
