"""Rows that are many: kept on disk as an Arrow table and mapped, so that they take memory only while read."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, overload

from seq2seq_cli.data.rows import Row

if TYPE_CHECKING:
    import pyarrow as pa

#: Fewer characters than these stay in memory.
FEW = 2**24
_ROWS_AT_ONCE = 4096


class NoRoomError(Exception):
    """The rows cannot be written; the reason is its cause."""


def kept(rows: Iterable[Row], folder: Path | None) -> Sequence[Row]:
    """All of ``rows``: a list while they are few or ``folder`` is None, else mapped from a file there, which
    has no name and is gone when the process is. NoRoomError where it cannot be written."""
    rows = iter(rows)
    few, characters = [], 0
    for row in rows:
        few.append(row)
        characters += len(row.source) + len(row.target)
        if characters > FEW:
            break
    else:
        return few
    if folder is None:
        return [*few, *rows]
    return MappedRows(_written(chain(few, rows), folder))


def _written(rows: Iterator[Row], folder: Path) -> pa.Table:
    import pyarrow as pa

    texts = [(name, pa.large_binary()) for name in ("source", "target")]
    schema = pa.schema([*texts, ("references", pa.list_(pa.large_binary())), ("where", pa.large_binary())])
    with _writing():
        folder.mkdir(parents=True, exist_ok=True)
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed below
    try:
        with _writing():
            writer = pa.ipc.new_file(file, schema)
        while some := [_cells(row) for row in islice(rows, _ROWS_AT_ONCE)]:
            columns = map(pa.array, zip(*some, strict=True), schema.types)
            batch = pa.record_batch(list(columns), schema=schema)
            with _writing():
                writer.write_batch(batch)
        with _writing():
            writer.close()
            file.flush()
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    finally:
        with suppress(OSError):  # what could not be written still waits in its buffer
            file.close()
    return pa.ipc.open_file(pa.BufferReader(pa.py_buffer(mapped))).read_all()


@contextmanager
def _writing() -> Iterator[None]:
    """A block whose OSError is not about the rows' own files."""
    try:
        yield
    except OSError as error:
        raise NoRoomError from error


def _cells(row: Row) -> tuple[bytes, bytes, list[bytes] | None, bytes]:
    """A row as its columns have it; the references only where they are not the target alone."""
    references = None if row.references == (row.target,) else [_bytes(text) for text in row.references]
    return _bytes(row.source), _bytes(row.target), references, _bytes(row.where)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogatepass")


class MappedRows(Sequence[Row]):
    """The rows of a table, each made when it is asked for."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        if isinstance(index, slice):
            numbers = range(*index.indices(len(self)))
            if numbers.step == 1:
                return MappedRows(self._table.slice(numbers.start, len(numbers)))
            return [self[number] for number in numbers]
        return _row(*(column[index].as_py() for column in self._table.columns))

    def __iter__(self) -> Iterator[Row]:
        for batch in self._table.to_batches():
            yield from map(_row, *(column.to_pylist() for column in batch.columns))


def _row(source: bytes, target: bytes, references: list[bytes] | None, where: bytes) -> Row:
    text = _text(target)
    return Row(
        source=_text(source),
        target=text,
        references=(text,) if references is None else tuple(map(_text, references)),
        where=_text(where),
    )
