"""``s2s generate``: one line in, one line out, in order."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
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
from seq2seq_cli.errors import DataError, UsageError

if TYPE_CHECKING:
    from seq2seq_cli.decoding.engine import Output

app = new_app()
#: number of the line -> the line, and whether another one is there without waiting
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
    field: FieldName = "source",
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
        LineFile,
        make_generator,
        move,
        open_model,
        report_cuts,
        source_prefix,
        with_preset,
    )

    if (generation.get("num_return_sequences") or 1) > 1 and not jsonl:
        raise UsageError(
            "one line in, one line out: several outputs need --jsonl", where="--num-return-sequences"
        )
    if text and input_file is not None:
        raise UsageError("give texts or a file, not both", where="-i")
    if (resume or overwrite) and is_stdout(output):
        raise UsageError("--resume and --overwrite go with an output file", remedy="add -o FILE")
    with ExitStack() as stack:
        lines, ready, name = _source(stack, text, input_file, errors)
        target = None
        if output is not None and not is_stdout(output):
            target = LineFile(output, resume=resume, overwrite=overwrite)
            if target.is_complete:
                console.say(f"{output} is complete, nothing to do")
                return
        asked = with_preset(generation)
        bundle, options = open_model(model, recipe)
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
        write = write_stdout if target is None else target.write
        start = 0 if target is None else target.done
        if start:
            console.say(f"{start} lines are there already, going on with line {start + 1}")
        work = Lines(prefix=source_prefix(bundle), jsonl=jsonl, field=field, scores=scores, name=name)
        generator.skip(start)
        for group in work.groups(lines, ready, skip=start):
            write(work.results(group, generator.texts([source for source, _ in group])))
        if target is not None:
            target.close()
    report_cuts(generator)


class Lines:
    """From input lines to sources, and from outputs to output lines, in text or JSON."""

    def __init__(self, *, prefix: str, jsonl: bool, field: str, scores: bool, name: str) -> None:
        self._prefix = prefix
        self._jsonl = jsonl
        self._field = field
        self._scores = scores
        self._name = name

    def groups(
        self, lines: Iterable[str], ready: Callable[[], bool], *, skip: int
    ) -> Iterator[list[tuple[str, dict[str, Any]]]]:
        """Lists of (source, the JSON object it came from) of the lines that are there."""
        from seq2seq_cli.text.stream import groups

        numbered = (self._parse(line, number) for number, line in enumerate(lines, start=1) if number > skip)
        return groups(numbered, ready=ready)

    def _parse(self, line: str, number: int) -> tuple[str, dict[str, Any]]:
        row: dict[str, Any] = {}
        if self._jsonl:
            row, line = self._object(line, f"{self._name}:{number}")
        return (self._prefix + line if line.strip() else line), row

    def _object(self, line: str, where: str) -> tuple[dict[str, Any], str]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"not a JSON object: {error}", where=where) from None
        if not isinstance(row, dict):
            raise DataError("not a JSON object", where=where, remedy='write {"source": "..."}')
        source = row.get(self._field)
        if not isinstance(source, str):
            what = "has no field" if self._field not in row else "has no text in field"
            raise DataError(f"the object {what} {self._field!r}", where=where, remedy="name it with --field")
        try:
            source.encode("utf-8")
        except UnicodeEncodeError:
            raise DataError(f"field {self._field!r} has a lone surrogate", where=where) from None
        return row, source

    def results(self, group: list[tuple[str, dict[str, Any]]], outputs: list[Output]) -> list[str]:
        """One line for each output; whatever would break a line is a space in it."""
        from seq2seq_cli.text.lines import one_line

        if self._jsonl:
            return [self._json(row, output) for (_, row), output in zip(group, outputs, strict=True)]
        lines = [one_line(output.texts[0]) for output in outputs]
        if self._scores:
            return [f"{o.scores[0]:.4f}\t{line}" for o, line in zip(outputs, lines, strict=True)]
        return lines

    def texts(self, group: list[tuple[str, dict[str, Any]]], texts: list[str]) -> list[str]:
        """As ``results``, for plain texts."""
        from seq2seq_cli.text.lines import one_line

        if not self._jsonl:
            return [one_line(text) for text in texts]
        pairs = zip(group, texts, strict=True)
        return [json.dumps({**row, "prediction": text}, ensure_ascii=False) for (_, row), text in pairs]

    def _json(self, row: dict[str, Any], output: Output) -> str:
        found = [{"text": t, "score": s} for t, s in zip(output.texts, output.scores, strict=True)]
        added: dict[str, Any] = {"prediction": output.texts[0]}
        if len(found) > 1:
            added = {"predictions": found}
        elif self._scores:
            added["score"] = output.scores[0]
        return json.dumps({**row, **added}, ensure_ascii=False)


def is_stdout(output: Path | None) -> bool:
    """True when results go to stdout: no file was named, or ``-``."""
    return output is None or str(output) == "-"


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
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from None


def write_stdout(lines: list[str]) -> None:
    """Lines to stdout, flushed, so that a reader has them now."""
    sys.stdout.buffer.write("".join(line + "\n" for line in lines).encode("utf-8", "replace"))
    sys.stdout.flush()
