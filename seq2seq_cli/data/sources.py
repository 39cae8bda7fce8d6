"""Rows from wherever a recipe says: JSONL, CSV, TSV, Parquet, text files (each also .gz) and the hub."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from seq2seq_cli import console
from seq2seq_cli.data import files
from seq2seq_cli.data.cache import cache_folder
from seq2seq_cli.data.hub import is_hub_reference, read_hub
from seq2seq_cli.data.mapped import NoRoomError, kept
from seq2seq_cli.data.rows import BadRows, Fields, Row
from seq2seq_cli.errors import DataError, Finding, UsageError


class Parallel(Protocol):
    """Two parallel text files, as the recipe has them."""

    @property
    def source(self) -> str: ...
    @property
    def target(self) -> str: ...


#: A path or hub id, several of them, or two parallel text files.
Spec = str | Path | Sequence[str | Path] | Mapping[str, str | Path] | Parallel

#: good rows of a stream behind which the bad ones among them are counted
_LOOK_AT = 10_000

_Reader = Callable[[Path, Fields, BadRows], Iterator[files.Record]]
_READERS: dict[str, _Reader] = {
    ".jsonl": files.read_jsonl,
    ".ndjson": files.read_jsonl,
    ".json": files.read_jsonl,
    ".csv": files.read_csv,
    ".tsv": files.read_tsv,
    ".parquet": files.read_parquet,
    ".txt": files.read_text,
}


def read_rows(
    spec: Spec,
    *,
    source: str | None = "source",
    target: str = "target",
    references: str | None = None,
    reference_separator: str | None = None,
    split: str = "train",
    on_bad_row: str = "error",
) -> Sequence[Row]:
    """All rows of ``spec``, in order; many of them are mapped from disk instead of held in memory.

    ``source`` and ``target`` name the fields (or number the columns, from 1); ``source=None`` is language
    modelling, where a row has a target alone and a plain text file gives one row a line. More accepted
    targets come from the field ``references`` (by default a list of that name, where there is one) or from
    splitting the target at ``reference_separator``. ``split`` is what is read of a hub data set.

    Bad rows are reported together, up to 20; ``on_bad_row="skip"`` leaves out up to 1 % of the rows with a
    warning. Raises :class:`DataError` for files and rows, :class:`HubError` for the hub.
    """
    if on_bad_row not in ("error", "skip"):
        raise UsageError(f"on_bad_row is error or skip, not {on_bad_row!r}")
    fields = Fields(
        source=source, target=target, references=references, reference_separator=reference_separator
    )

    def read(folder: Path | None) -> Sequence[Row]:
        bad = BadRows(skip=on_bad_row == "skip")
        rows = kept(_good_rows(spec, fields, split, bad, streaming=False), folder)
        bad.settle(len(rows))
        return rows

    folder = cache_folder()
    try:
        return read(folder)
    except NoRoomError as error:
        console.warn(f"rows are kept in memory, because {folder} takes no file: {error.__cause__}")
        return read(None)


def stream_rows(
    spec: Spec,
    *,
    source: str | None = "source",
    target: str = "target",
    references: str | None = None,
    reference_separator: str | None = None,
    split: str = "train",
    on_bad_row: str = "error",
) -> Iterator[Row]:
    """The rows that :func:`read_rows` gives, one at a time, none of them kept.

    A bad row is an error when the next good one is come to; with ``on_bad_row="skip"`` the share of bad rows
    so far is looked at behind every 10,000 rows and at the end.
    """
    fields = Fields(
        source=source, target=target, references=references, reference_separator=reference_separator
    )
    skip = on_bad_row == "skip"
    bad, good, told = BadRows(skip=skip), 0, 0
    for row in _good_rows(spec, fields, split, bad, streaming=True):
        good += 1
        if bad.count > told and (not skip or good % _LOOK_AT == 0):
            bad.settle(good)
            told = bad.count
        yield row
    if bad.count > told:
        bad.settle(good)


def _good_rows(spec: Spec, fields: Fields, split: str, bad: BadRows, *, streaming: bool) -> Iterator[Row]:
    for part in _parts(spec):
        good, before = 0, bad.count
        for where, record in _records(part, fields, split, bad, streaming=streaming):
            if (row := fields.row(record, where, bad)) is not None:
                good += 1
                yield row
        if not good and bad.count == before:
            raise DataError("there are no rows", where=" and ".join(map(str, part)))


def check_paths(spec: Spec, *, source: str | None = "source") -> None:
    """Raise :class:`DataError` for every file of ``spec`` that is not there; cheap, before models load."""
    findings: list[Finding] = []
    for part in _parts(spec):
        for path in part:
            try:
                _reader(path, source) if len(part) == 1 else _existing(path)
            except DataError as error:
                findings += error.findings
    if findings:
        raise DataError(findings=findings)


def _parts(spec: Spec) -> Iterator[tuple[str] | tuple[str, str]]:
    """Each as (path or hub id,) or (source path, target path)."""
    if isinstance(spec, str | Path):
        yield (str(spec),)
    elif isinstance(spec, Mapping):
        if set(spec) != {"source", "target"}:
            raise UsageError("parallel files are {source: FILE, target: FILE}")
        yield str(spec["source"]), str(spec["target"])
    elif isinstance(spec, Sequence):
        if not spec:
            raise UsageError("the list of data files is empty")
        for item in spec:
            yield from _parts(item)
    else:
        yield spec.source, spec.target


def _records(
    part: tuple[str] | tuple[str, str], fields: Fields, split: str, bad: BadRows, *, streaming: bool
) -> Iterator[files.Record]:
    if len(part) == 2:
        return files.read_parallel(_existing(part[0]), _existing(part[1]), fields, bad)
    reader = _reader(part[0], fields.source)
    if reader is None:
        return read_hub(part[0], fields, split, streaming=streaming)
    return reader(Path(part[0]), fields, bad)


def _reader(name: str, source: str | None) -> _Reader | None:
    """Who reads ``name``; None for the hub."""
    path = Path(name)
    suffix = Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    on_hub = is_hub_reference(name) and suffix not in _READERS and not path.parent.is_dir()
    if on_hub and not path.exists():
        return None
    _existing(name)
    reader = _READERS.get(suffix)
    if reader is None and source is None:
        reader = files.read_text
    if reader is None:
        known = " ".join(_READERS)
        raise DataError(
            f"unknown kind of data file {suffix!r}", where=name, remedy=f"known: {known}, each also .gz"
        )
    if reader is files.read_text and source is not None:
        raise DataError(
            "a text file has one text a line, and no source with it",
            where=name,
            remedy="give {source: FILE, target: FILE}, or use it for causal_lm or masked_lm",
        )
    return reader


def _existing(name: str) -> Path:
    path = Path(name)
    if path.is_dir():
        raise DataError("this is a folder, not a data file", where=name, remedy="name the files in it")
    if not path.exists():
        raise DataError("there is no such file", where=name, remedy="paths start at the current folder")
    return path
