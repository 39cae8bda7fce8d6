"""What generate and summarize read and write: lines in, lines out."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from seq2seq_cli import console
from seq2seq_cli.errors import DataError, Finding, UsageError, counted

if TYPE_CHECKING:
    from seq2seq_cli.text.lines import Output

#: how many wrong lines behind the first one an error looks for
_LISTED = 19
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where lines come from: the lines, whether another one is there without waiting, what the input is
    called, the file descriptor it is read from (None: arguments), how many lines it has in all (None: that
    only its end will tell; to be asked before the first is read)."""

    lines: Iterator[str]
    ready: Callable[[], bool]
    name: str
    descriptor: int | None
    count: Callable[[], int | None]


def open_source(stack: ExitStack, text: Sequence[str], input_file: Path | None, errors: str) -> Source:
    """The texts of the command line, else the lines of the file, else those of stdin."""
    from seq2seq_cli.text.lines import read_lines
    from seq2seq_cli.text.stream import PipeReader

    if text:
        return Source(
            lines=iter(text), ready=lambda: True, name="argument", descriptor=None, count=lambda: len(text)
        )
    number, name = 0, "stdin"
    if input_file is not None and str(input_file) != "-":
        file, name = stack.enter_context(open_lines(input_file)), str(input_file)
        number = file.fileno()
        if stat.S_ISREG(os.fstat(number).st_mode):
            lines = read_lines(file, name=name, errors=errors)
            return Source(
                lines=lines,
                ready=lambda: True,
                name=name,
                descriptor=number,
                count=lambda: count_lines(number),
            )
    elif sys.stdin is None or sys.stdin.isatty():
        console.say("reading lines from the terminal; end with Ctrl-D")
    reader = PipeReader(number)
    return Source(
        lines=read_lines(reader, name=name, errors=errors),
        ready=reader.ready,
        name=name,
        descriptor=number,
        count=lambda: count_lines(number),
    )


def count_lines(descriptor: int) -> int | None:
    """How many lines a file holds from where it is read next; None for what is no regular file."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return None
    place, found, last = os.lseek(descriptor, 0, os.SEEK_CUR), 0, b"\n"
    while chunk := os.pread(descriptor, _CHUNK, place):
        place, found, last = place + len(chunk), found + chunk.count(b"\n"), chunk[-1:]
    return found + (last != b"\n")


@dataclass(frozen=True, kw_only=True)
class Form:
    """What lines are: texts, or JSON objects with a text in their ``field``, and where ``prefix_field`` is
    given what the output begins with in that one."""

    field: str | None = None
    prefix_field: str | None = None
    scores: bool = False  #: the score of an output is written with it
    token_scores: bool = False  #: and in an object its tokens, each with its score


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line that came in: its number (from 0), its text, the JSON object it was, where it stood, and what
    its output begins with (None: no line has such a prefix of its own)."""

    number: int
    source: str
    row: dict[str, Any]
    where: str
    prefix: str | None = None


class Lines:
    """From input lines to sources, and from outputs to output lines; ``name`` is what the input is called."""

    def __init__(self, form: Form, *, name: str) -> None:
        self._form = form
        self._name = name

    def groups(
        self, lines: Iterable[str], ready: Callable[[], bool], *, skip: int = 0
    ) -> Iterator[list[Line]]:
        """Lists of the lines that are there. DataError for a wrong one, and for those behind it that have
        arrived."""
        from seq2seq_cli.text.stream import groups

        numbered = islice(enumerate(lines, start=1), skip, None)
        return groups(self._parsed(numbered, ready), ready=ready, size=lambda line: len(line.source))

    def _parsed(self, lines: Iterator[tuple[int, str]], ready: Callable[[], bool]) -> Iterator[Line]:
        for number, line in lines:
            try:
                yield self._parse(line, number)
            except DataError as error:
                found = [*error.findings, *islice(self._wrong_behind(lines, ready), _LISTED)]
                raise DataError(findings=counted(found, or_more=len(found) > _LISTED)) from None

    def _wrong_behind(self, lines: Iterator[tuple[int, str]], ready: Callable[[], bool]) -> Iterator[Finding]:
        while ready():
            try:
                number, line = next(lines, (0, ""))
                if number == 0:
                    return
                self._parse(line, number)
            except DataError as error:
                yield from error.findings

    def _parse(self, line: str, number: int) -> Line:
        form, where = self._form, f"{self._name}:{number}"
        if form.field is None:
            return Line(number=number - 1, source=line, row={}, where=where)
        row, prefix = _object(line, where), None
        source = _text(row, form.field, where, option="--field")
        if form.prefix_field is not None:
            prefix = _text(row, form.prefix_field, where, option="--prefix-field")
        return Line(number=number - 1, source=source, row=row, where=where, prefix=prefix)

    def results(self, group: list[Line], outputs: list[Output]) -> list[str]:
        """One line for each output; whatever would break a line is a space in it."""
        from seq2seq_cli.text.lines import one_line

        pairs = zip(group, outputs, strict=True)
        if self._form.field is not None:
            return [self._json(line.row, output) for line, output in pairs]
        texts = [one_line(output.texts[0]) for output in outputs]
        if self._form.scores:
            return [f"{o.scores[0]:.4f}\t{text}" for o, text in zip(outputs, texts, strict=True)]
        return texts

    def texts(self, group: list[Line], texts: list[str]) -> list[str]:
        """As ``results``, for plain texts."""
        from seq2seq_cli.text.lines import one_line

        if self._form.field is None:
            return [one_line(text) for text in texts]
        pairs = zip(group, texts, strict=True)
        return [json.dumps({**line.row, "prediction": text}, ensure_ascii=False) for line, text in pairs]

    def _json(self, row: dict[str, Any], output: Output) -> str:
        found: list[dict[str, Any]] = [
            {"text": text, "score": score} for text, score in zip(output.texts, output.scores, strict=True)
        ]
        if self._form.token_scores:
            tokens = output.tokens or [()] * len(found)  # nothing was written for an empty line
            for one, told in zip(found, tokens, strict=True):
                one["tokens"] = [{"text": text, "score": score} for text, score in told]
        if len(found) > 1:
            added: dict[str, Any] = {"predictions": found}
        else:
            (one,) = found
            added = {"prediction": one.pop("text"), **one}
            if not self._form.scores:
                del added["score"]
        return json.dumps({**row, **added}, ensure_ascii=False)


def _object(line: str, where: str) -> dict[str, Any]:
    """The JSON object that a line is; DataError for any other."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        remedy = 'one object a line, as {"source": "..."}'
        raise DataError(f"not a JSON object: {error}", where=where, remedy=remedy) from None
    if not isinstance(row, dict):
        raise DataError("not a JSON object", where=where, remedy='write {"source": "..."}')
    return row


def _text(row: dict[str, Any], field: str, where: str, *, option: str) -> str:
    """The text in a field, which ``option`` names; DataError where there is none."""
    text = row.get(field)
    if not isinstance(text, str):
        what = "has no field" if field not in row else "has no text in field"
        raise DataError(f"the object {what} {field!r}", where=where, remedy=f"name it with {option}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        what = f"field {field!r} has a lone surrogate"
        raise DataError(what, where=where, remedy="escape both halves of the pair, or neither") from None
    return text


def refuse_unused(
    *, output: Path | None, overwrite: bool, resume: bool = False, objects: dict[str, bool], jsonl: bool
) -> None:
    """UsageError for options that would change nothing; ``objects`` are those about JSON objects, and whether
    each is given."""
    if (resume or overwrite) and (output is None or str(output) == "-"):
        raise UsageError("--resume and --overwrite go with an output file", remedy="add -o FILE")
    for option, is_given in objects.items():
        if is_given and not jsonl:
            raise UsageError("lines are no JSON objects", where=option, remedy="add --jsonl")


def open_lines(path: Path) -> BinaryIO:
    """A file of lines, opened; DataError when that does not work."""
    try:
        return path.open("rb")
    except OSError as error:
        remedy = "check the path, or use - for stdin"
        raise DataError(f"cannot be read: {error.strerror}", where=str(path), remedy=remedy) from None


def joined(lines: list[str]) -> str:
    """Lines as they are written."""
    return "".join(line + "\n" for line in lines)
