"""``s2s generate``: one line in, one line out, in order."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from seq2seq_cli import console
from seq2seq_cli.cli.options import (
    BatchTokens,
    Device,
    Dtype,
    Errors,
    FieldName,
    InputFile,
    Jsonl,
    ModelReference,
    OutputFile,
    Overwrite,
    RecipeFile,
    Truncation,
    new_app,
    with_generation_options,
)
from seq2seq_cli.errors import DataError, Finding, UsageError, counted

if TYPE_CHECKING:
    from seq2seq_cli.decoding.engine import Output

app = new_app()
#: how many wrong lines behind the first one an error looks for
_LISTED = 19
#: the lines, whether another one is there without waiting, and what the input is called
Source = tuple[Iterable[str], Callable[[], bool], str]


@app.command()
@with_generation_options
def generate(
    text: Annotated[list[str] | None, typer.Argument(help="Texts; default: the lines of stdin.")] = None,
    model: ModelReference = None,
    recipe: RecipeFile = None,
    input_file: InputFile = None,
    output: OutputFile = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="With -o: go on behind the last whole line.")
    ] = False,
    overwrite: Overwrite = False,
    jsonl: Jsonl = False,
    field: FieldName = None,
    scores: Annotated[
        bool, typer.Option("--scores", help="Write the score and a tab before each text.")
    ] = False,
    echo: Annotated[bool, typer.Option("--echo", help="Write the input before its continuation.")] = False,
    batch_tokens: BatchTokens = 4096,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    errors: Errors = "strict",
    truncation: Truncation = "truncate",
    *,
    generation: dict[str, Any],
) -> None:
    """Write one line of text for each line that comes in.

    Asking for a sampling option (--temperature, --top-k, --top-p) turns sampling on. Defaults come from the
    recipe, else from the checkpoint.
    """
    from seq2seq_cli.cli.running import (
        make_generator,
        move,
        open_model,
        report_cuts,
        source_prefix,
        with_preset,
    )
    from seq2seq_cli.text.destination import Destination

    if (generation.get("num_return_sequences") or 1) > 1 and not jsonl:
        raise UsageError(
            "one line in, one line out: several outputs need --jsonl", where="--num-return-sequences"
        )
    if text and input_file is not None:
        raise UsageError("give texts or a file, not both", where="-i")
    refuse_unused(resume=resume, overwrite=overwrite, output=output, field=field, jsonl=jsonl)
    with ExitStack() as stack:
        lines, ready, name = _source(stack, text, input_file, errors)
        target = stack.enter_context(Destination(output, overwrite=overwrite, resumable=True, resume=resume))
        if target.is_complete:
            console.say(f"{output} is complete, nothing to do")
            return
        asked = with_preset(generation)
        bundle, options = open_model(model, recipe, given=asked)
        move(bundle, device, dtype)
        generator = make_generator(
            bundle,
            recipe_options=options,
            given=asked,
            batch_tokens=batch_tokens,
            truncate=truncation == "truncate",
            echo=echo,
            with_scores=scores or jsonl,
        )
        if target.done:
            console.say(f"{target.done} lines are there already, going on with line {target.done + 1}")
        named = (field or "source") if jsonl else None
        work = Lines(prefix=source_prefix(bundle), field=named, scores=scores, name=name)
        generator.skip(target.done)
        for group in work.groups(lines, ready, skip=target.done):
            sources, places = [line.source for line in group], [line.where for line in group]
            target.write(joined(work.results(group, generator.texts(sources, places=places))))
    report_cuts(generator)


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line that came in: what the model reads of it, the JSON object it was, and where it stood."""

    source: str
    row: dict[str, Any]
    where: str


class Lines:
    """From input lines to sources, and from outputs to output lines: text, or JSON with a ``field``."""

    def __init__(self, *, prefix: str, field: str | None, scores: bool, name: str) -> None:
        self._prefix = prefix
        self._field = field
        self._scores = scores
        self._name = name

    def groups(
        self, lines: Iterable[str], ready: Callable[[], bool], *, skip: int = 0
    ) -> Iterator[list[Line]]:
        """Lists of the lines that are there. DataError for a wrong one, and for those behind it that have
        arrived."""
        from seq2seq_cli.text.stream import groups

        return groups(self._parsed(islice(enumerate(lines, start=1), skip, None), ready), ready=ready)

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
        row, where = dict[str, Any](), f"{self._name}:{number}"
        if self._field is not None:
            row, line = self._object(line, self._field, where)
        return Line(source=self._prefix + line if line.strip() else line, row=row, where=where)

    def _object(self, line: str, field: str, where: str) -> tuple[dict[str, Any], str]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            remedy = 'one object a line, as {"source": "..."}'
            raise DataError(f"not a JSON object: {error}", where=where, remedy=remedy) from None
        if not isinstance(row, dict):
            raise DataError("not a JSON object", where=where, remedy='write {"source": "..."}')
        source = row.get(field)
        if not isinstance(source, str):
            what = "has no field" if field not in row else "has no text in field"
            raise DataError(f"the object {what} {field!r}", where=where, remedy="name it with --field")
        try:
            source.encode("utf-8")
        except UnicodeEncodeError:
            what = f"field {field!r} has a lone surrogate"
            raise DataError(what, where=where, remedy="escape both halves of the pair, or neither") from None
        return row, source

    def results(self, group: list[Line], outputs: list[Output]) -> list[str]:
        """One line for each output; whatever would break a line is a space in it."""
        from seq2seq_cli.text.lines import one_line

        pairs = zip(group, outputs, strict=True)
        if self._field is not None:
            return [self._json(line.row, output) for line, output in pairs]
        texts = [one_line(output.texts[0]) for output in outputs]
        if self._scores:
            return [f"{o.scores[0]:.4f}\t{text}" for o, text in zip(outputs, texts, strict=True)]
        return texts

    def texts(self, group: list[Line], texts: list[str]) -> list[str]:
        """As ``results``, for plain texts."""
        from seq2seq_cli.text.lines import one_line

        if self._field is None:
            return [one_line(text) for text in texts]
        pairs = zip(group, texts, strict=True)
        return [json.dumps({**line.row, "prediction": text}, ensure_ascii=False) for line, text in pairs]

    def _json(self, row: dict[str, Any], output: Output) -> str:
        found = [{"text": t, "score": s} for t, s in zip(output.texts, output.scores, strict=True)]
        added: dict[str, Any] = {"prediction": output.texts[0]}
        if len(found) > 1:
            added = {"predictions": found}
        elif self._scores:
            added["score"] = output.scores[0]
        return json.dumps({**row, **added}, ensure_ascii=False)


def refuse_unused(
    *, output: Path | None, overwrite: bool, field: str | None, jsonl: bool, resume: bool = False
) -> None:
    """UsageError for options that would change nothing."""
    if (resume or overwrite) and (output is None or str(output) == "-"):
        raise UsageError("--resume and --overwrite go with an output file", remedy="add -o FILE")
    if field is not None and not jsonl:
        raise UsageError("a field is one of JSON objects", where="--field", remedy="add --jsonl")


def _source(stack: ExitStack, text: list[str] | None, input_file: Path | None, errors: str) -> Source:
    """The input lines, whether more are there, and what the input is called in messages."""
    from seq2seq_cli.text.lines import read_lines
    from seq2seq_cli.text.stream import PipeReader

    if text:
        return text, lambda: True, "argument"
    if input_file is not None and str(input_file) != "-":
        file = stack.enter_context(open_lines(input_file))
        return read_lines(file, name=str(input_file), errors=errors), lambda: True, str(input_file)
    if sys.stdin is None or sys.stdin.isatty():
        console.say("reading lines from the terminal; end with Ctrl-D")
    reader = PipeReader(0)
    return read_lines(reader, name="stdin", errors=errors), reader.ready, "stdin"


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
