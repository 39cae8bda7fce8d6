"""Data files → named fields of each row. Everything wrong with a file ends as a DataError that names it."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from seq2seq_cli.data.rows import BadRows, Fields
from seq2seq_cli.errors import DataError, nearest

#: The longest line, in bytes. A row is one example: far below.
MAX_LINE_BYTES = 64 * 2**20
#: A .gz may unpack to its size times the factor (text packs 3 to 30 times), but always to the floor.
MAX_UNPACK_FACTOR = 200
MAX_UNPACK_FLOOR = 64 * 2**20

Record = tuple[str, Mapping[str, object]]  # (file:line, fields)


def read_jsonl(path: Path, fields: Fields, bad: BadRows) -> Iterator[Record]:
    """One JSON object a line; blank lines are passed over."""
    for number, line in text_lines(path, bad):
        if line is None or not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line, object_pairs_hook=_unique)
        except json.JSONDecodeError as error:
            bad.add(f"broken JSON: {error.msg}", f"{where}:{error.colno}", "one object a line")
        except _DuplicateKeyError as error:
            bad.add(f"field {error.args[0]!r} appears twice", where, "keep one of them")
        except RecursionError:
            bad.add("JSON is nested too deeply", where)
        except ValueError as error:  # such as a number of 5,000 digits
            bad.add(f"broken JSON: {error}", where)
        else:
            if not isinstance(row, dict):
                bad.add("the row is not an object", where, 'write {"source": ..., "target": ...}')
            elif name := _surrogate(row, line):
                bad.add(f"field {name!r} has half of a surrogate pair (\\ud800 to \\udfff)", where)
            else:
                yield where, row


def read_csv(path: Path, fields: Fields, bad: BadRows) -> Iterator[Record]:
    """Comma-separated with a header; quoted values may hold newlines."""
    csv.field_size_limit(MAX_LINE_BYTES)
    damaged: set[int] = set()

    def physical() -> Iterator[str]:
        for number, line in text_lines(path, bad):
            if line is None:
                damaged.add(number)
            yield f"{line or ''}\n"

    # Strict, because a lone quote would otherwise swallow the rows up to the next one in silence.
    reader = csv.reader(physical(), strict=True)
    header: list[str] | None = None
    while True:
        start = reader.line_num + 1
        where = f"{path}:{start}"
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            bad.add(f"broken CSV: {error}", where, 'double a quote inside quotes (""), or use TSV')
            continue
        if not values or damaged.intersection(range(start, reader.line_num + 1)):
            continue
        if header is None:
            header = values
            _check_header(header, fields, where)
        elif len(values) != len(header):
            bad.add(
                f"{len(values)} values under {len(header)} names", where, "put texts with commas in quotes"
            )
        else:
            yield where, _numbered(values) | dict(zip(header, values, strict=True))


def read_tsv(path: Path, fields: Fields, bad: BadRows) -> Iterator[Record]:
    """Tab-separated, a row a line, no quoting. The first line is a header when it holds the names asked for.

    Columns can be asked for by number, from 1. Without a header the names ``source`` and ``target`` are
    columns 1 and 2 (a text alone in its line is the target of language modelling).
    """
    names: list[str] | None = None
    columns: dict[str, int] = {}
    wanted = 1
    for number, line in text_lines(path, bad):
        if not line:
            continue
        values = line.split("\t")
        where = f"{path}:{number}"
        if names is None:
            named = [name for name in fields.asked if not name.isdecimal()]
            numbered = [int(name) for name in fields.asked if name.isdecimal()]
            names = values if named and set(named) <= set(values) else []
            columns = {} if names else _positions(values, named, fields, where)
            wanted = max(len(names), *columns.values(), *numbered, 1)
            if names:
                _check_header(names, fields, where)
                continue
        if len(values) < wanted:
            bad.add(f"{len(values)} column(s), column {wanted} is missing", where, "separate columns by tabs")
            continue
        row = _numbered(values) | dict(zip(names, values, strict=False))
        yield where, row | {name: values[position - 1] for name, position in columns.items()}


def _positions(values: list[str], named: list[str], fields: Fields, where: str) -> dict[str, int]:
    """Columns of a file without a header: names that nobody chose stand for the first two."""
    chosen = [name for name in named if name not in ("source", "target")]
    if chosen:
        raise DataError(
            f"no column {chosen[0]!r} in the first line ({', '.join(values[:8])[:80]})",
            where=where,
            remedy="name the columns there, or ask for them by number (1, 2, ...)",
        )
    last = 2 if fields.source is not None or len(values) > 1 else 1
    return {name: 1 if name == "source" else last for name in named}


def read_text(path: Path, fields: Fields, bad: BadRows) -> Iterator[Record]:
    """One text a line, for language modelling: the line is the target."""
    for number, line in text_lines(path, bad):
        if line is not None:
            yield f"{path}:{number}", {fields.target: line}


def read_parquet(path: Path, fields: Fields, bad: BadRows) -> Iterator[Record]:
    """The rows of a Parquet file; ``where`` counts them from 1."""
    import pyarrow
    import pyarrow.parquet

    with reading(path), _open(path) as stream:
        packed = stream.read(MAX_UNPACK_FLOOR * 16 + 1) if _is_packed(path) else None
        if packed is not None and len(packed) > MAX_UNPACK_FLOOR * 16:
            raise DataError("unpacks to more than a Parquet file should", where=str(path))
        try:
            table = pyarrow.parquet.ParquetFile(path if packed is None else pyarrow.BufferReader(packed))
            _check_header(table.schema_arrow.names, fields, str(path))
            number = 0
            for batch in table.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}:{number}", row
        except pyarrow.ArrowException as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"broken Parquet: {reason}", where=str(path)) from None


def read_parallel(source_path: Path, target_path: Path, fields: Fields, bad: BadRows) -> Iterator[Record]:
    """Two text files, line by line. Raises with both counts when they are of different length."""
    source_lines, target_lines = text_lines(source_path, bad), text_lines(target_path, bad)
    counts = [0, 0]
    while True:
        pair = next(source_lines, None), next(target_lines, None)
        counts = [count + (item is not None) for count, item in zip(counts, pair, strict=True)]
        if pair[0] is None or pair[1] is None:
            break
        if pair[0][1] is not None and pair[1][1] is not None:
            row = {fields.source or "source": pair[0][1], fields.target: pair[1][1]}
            yield f"{source_path}:{counts[0]}", row
    counts[0] += sum(1 for _ in source_lines)
    counts[1] += sum(1 for _ in target_lines)
    if counts[0] != counts[1]:
        raise DataError(
            f"{source_path} has {counts[0]} lines and {target_path} has {counts[1]}",
            where=f"line {min(counts) + 1}",
            remedy="parallel files need one line for each other",
        )


# -- lines and bytes ----------------------------------------------------------------------------------------


def text_lines(path: Path, bad: BadRows) -> Iterator[tuple[int, str | None]]:
    """(number from 1, text) of each line; None for one that is not UTF-8, which is noted in ``bad``.

    A byte order mark at the start and a carriage return at the end of a line belong to the file format.
    """
    for number, raw in _raw_lines(path):
        try:
            line = raw.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            what = f"invalid UTF-8: byte 0x{raw[error.start]:02x} ({error.reason})"
            bad.add(what, f"{path}:{number}:{error.start + 1}", "convert the file to UTF-8 (iconv)")
            yield number, None
            continue
        yield number, line.removeprefix("\ufeff") if number == 1 else line


def _raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    total = 0
    with reading(path), _open(path) as stream:
        limit = max(MAX_UNPACK_FLOOR, MAX_UNPACK_FACTOR * path.stat().st_size) if _is_packed(path) else None
        number = 0
        while raw := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            total += len(raw)
            if len(raw) > MAX_LINE_BYTES:
                raise DataError(f"a line is longer than {MAX_LINE_BYTES} bytes", where=f"{path}:{number}")
            if limit is not None and total > limit:
                raise DataError(
                    f"unpacks to more than {limit} bytes", where=f"{path}:{number}", remedy="unpack it"
                )
            yield number, raw


def _is_packed(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if _is_packed(path) else path.open("rb")


def _begins_as_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what can go wrong while reading ``path`` into a :class:`DataError` that names it."""
    try:
        yield
    except EOFError:
        raise DataError("the file ends too early", where=str(path), remedy="fetch it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        if not _begins_as_gzip(path):
            what, remedy = "the name ends in .gz, and the file is no gzip", "name it without .gz"
            raise DataError(what, where=str(path), remedy=remedy) from None
        raise DataError(f"damaged gzip: {error}", where=str(path), remedy="fetch it again") from None
    except OSError as error:
        raise DataError(f"cannot read: {error.strerror or error}", where=str(path)) from None


# -- small checks -------------------------------------------------------------------------------------------


class _DuplicateKeyError(ValueError):
    pass


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    row = dict(pairs)
    if len(row) < len(pairs):
        seen: set[str] = set()
        raise _DuplicateKeyError(next(key for key, _ in pairs if key in seen or seen.add(key)))  # type: ignore[func-returns-value]
    return row


def _surrogate(row: Mapping[str, object], line: str) -> str | None:
    """The first field with half of a surrogate pair; only an escape can bring one in."""
    if "\\ud" not in line and "\\uD" not in line:
        return None
    for name, value in row.items():
        try:
            json.dumps([name, value], ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            return name.encode("utf-8", "replace").decode()
    return None


def _numbered(values: list[str]) -> dict[str, object]:
    return {str(number): value for number, value in enumerate(values, 1)}


def _check_header(names: list[str], fields: Fields, where: str) -> None:
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise DataError(f"column {min(twice)!r} appears twice", where=where)
    for name in fields.asked:
        if name not in names and not (name.isdecimal() and 1 <= int(name) <= len(names)):
            raise DataError(f"there is no column {name!r}", where=where, remedy=nearest(name, names))
