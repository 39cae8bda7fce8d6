"""Rows that are read as they are needed: a window of them at a time, for data larger than memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from seq2seq_cli.data.dataset import Summary
from seq2seq_cli.data.rows import Row

if TYPE_CHECKING:
    from seq2seq_cli.data.batch import Batch


class _Window(Protocol):
    lengths: NDArray[np.int64]
    row_numbers: NDArray[np.int64]
    summary: Summary

    def __len__(self) -> int: ...
    def batch(self, indices: Sequence[int], *, epoch: int = 0) -> Batch: ...
    @property
    def content_hash(self) -> str: ...


W = TypeVar("W", bound=_Window)


class Windows:
    """Window 0, 1, 2, ... of ``size`` rows of a stream; behind its last row the stream begins again.

    ``open_rows`` gives the rows from the first one on. What is asked for next is read on from where the last
    window ended, anything else from the beginning: the rows of a window depend on its number alone.
    """

    def __init__(self, open_rows: Callable[[], Iterator[Row]], size: int) -> None:
        self._open, self._size = open_rows, size
        self._in_all: int | None = None  # known when the stream has ended once
        self._rows, self._next = open_rows(), 0

    def __getitem__(self, number: int) -> list[Row]:
        while True:
            wanted = number if self._in_all is None else number % self._in_all
            if wanted < self._next:
                self._rows, self._next = self._open(), 0
            rows = list(islice(self._rows, self._size))
            if not rows:
                self._in_all = self._next
            elif self._next == wanted:
                self._next += 1
                return rows
            else:
                self._next += 1


class StreamedDataset(Generic[W]):
    """A data set for each window, made when a batch of its epoch is first asked for: an epoch is a window.

    Two windows are held, the first and the last one asked for. ``lengths``, ``row_numbers``, ``summary`` and
    ``content_hash`` are those of the first window.
    """

    def __init__(self, windows: Windows, make: Callable[[Sequence[Row]], W]) -> None:
        self._windows, self._make = windows, make
        self.rows: Sequence[Row] = windows[0]
        self._first = make(self.rows)
        self._current: tuple[int, Sequence[Row], W] = (0, self.rows, self._first)
        self.lengths, self.row_numbers = self._first.lengths, self._first.row_numbers
        self.summary = self._first.summary
        self._last = 0

    def __len__(self) -> int:
        return len(self._first)

    def window(self, epoch: int) -> W:
        """The data of one epoch."""
        if epoch == 0:
            return self._first
        if self._current[0] != epoch:
            rows = self._windows[epoch]
            self._current = (epoch, rows, self._make(rows))
        return self._current[2]

    def batch(self, indices: Sequence[int], *, epoch: int = 0) -> Batch:
        """The rows ``indices`` of the window ``epoch`` as one batch."""
        self._last = epoch
        return self.window(epoch).batch(indices, epoch=epoch)

    def where(self, row: int) -> str:
        """The place of a row of the window that the last batch came from."""
        return (self.rows if self._last == 0 else self._current[1])[row].where

    @property
    def content_hash(self) -> str:
        """SHA-256 of all ids of the first window."""
        return self._first.content_hash
