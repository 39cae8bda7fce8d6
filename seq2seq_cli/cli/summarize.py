"""``s2s summarize``: generate for documents."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from seq2seq_cli import console
from seq2seq_cli.cli.options import (
    BatchTokens,
    Device,
    Dtype,
    Errors,
    FieldName,
    Jsonl,
    ModelReference,
    OutputFile,
    Overwrite,
    Quantize,
    RecipeFile,
    new_app,
    with_generation_options,
)
from seq2seq_cli.errors import DataError, UsageError

if TYPE_CHECKING:
    from seq2seq_cli.cli.inputs import Line, Lines
    from seq2seq_cli.decoding.engine import TextGenerator

app = new_app()


@app.command()
@with_generation_options
def summarize(
    files: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE]...", help="Documents, one a file; default: stdin.")
    ] = None,
    model: ModelReference = None,
    recipe: RecipeFile = None,
    output: OutputFile = None,
    overwrite: Overwrite = False,
    lines: Annotated[bool, typer.Option("--lines", help="Stdin has one document a line.")] = False,
    jsonl: Jsonl = False,
    field: FieldName = None,
    long: Annotated[
        Literal["split", "truncate", "error"], typer.Option("--long", help="What to do with long documents.")
    ] = "split",
    batch_tokens: BatchTokens = 4096,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    quantize: Quantize = None,
    errors: Errors = "strict",
    *,
    generation: dict[str, Any],
) -> None:
    """Shorten documents of any length; one line for each.

    A document longer than the model takes is split at sentence ends, the parts are summarised, and the
    summaries joined and summarised again. Options are those of generate; the default preset is summarize.
    """
    from seq2seq_cli.cli.inputs import joined, refuse_unused
    from seq2seq_cli.cli.running import (
        make_generator,
        move,
        open_model,
        report,
        with_preset,
    )
    from seq2seq_cli.recipe import load_recipe
    from seq2seq_cli.text.destination import Destination

    if (generation.get("num_return_sequences") or 1) > 1:
        raise UsageError("summarize writes one summary a document", where="--num-return-sequences")
    refuse_unused(output=output, overwrite=overwrite, objects={"--field": field is not None}, jsonl=jsonl)
    chosen = None if recipe is None else load_recipe(recipe)
    with ExitStack() as stack:
        target = stack.enter_context(Destination(output, overwrite=overwrite))
        asked = with_preset(generation)
        default_preset = None if "preset" in generation else "summarize"
        bundle, options = open_model(model, chosen, given=asked, default_preset=default_preset)
        move(bundle, device, dtype, quantize=quantize)
        generator = make_generator(
            bundle,
            recipe_options=options,
            given=asked,
            default_preset=default_preset,
            batch_tokens=batch_tokens,
        )
        named = (field or "source") if jsonl else None
        for work, group in _groups(stack, files or [], named, one_a_line=lines or jsonl, errors=errors):
            texts = _summaries(generator, group, long)
            target.write(joined(work.texts(group, texts)))
    report(generator.counts)


def _summaries(generator: TextGenerator, documents: list[Line], long: Any) -> list[str]:
    from seq2seq_cli.tasks.summarize import summarize as work

    def write(sources: list[str]) -> list[str]:
        return [output.texts[0] for output in generator.texts(sources)]

    taken = generator.length(generator.prefix) if generator.prefix else 0
    return work(
        [document.source for document in documents],
        write=write,
        length=generator.length,
        limit=generator.source_limit - taken,
        long=long,
        places=[document.where for document in documents],
    )


def _groups(
    stack: ExitStack, files: list[str], field: str | None, *, one_a_line: bool, errors: str
) -> Iterator[tuple[Lines, list[Line]]]:
    """Lists of documents as they arrive, each with what writes their lines."""
    from seq2seq_cli.cli.inputs import Form, Line, Lines, open_source

    if not one_a_line:
        work = Lines(Form(), name="")
        yield (
            work,
            [
                Line(number=number, source=_document(name, errors), row={}, where=name)
                for number, name in enumerate(files or ["-"])
            ],
        )
        return
    for name in files or ["-"]:
        source = open_source(stack, [], Path(name), errors)
        work = Lines(Form(field=field), name=source.name)
        for group in work.groups(source.lines, source.ready):
            yield work, group


def _document(name: str, errors: str) -> str:
    """The whole of one file, or of stdin."""
    shown = "stdin" if name == "-" else name
    try:
        raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        remedy = "check the path, or use - for stdin"
        raise DataError(f"cannot be read: {error.strerror}", where=shown, remedy=remedy) from None
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        if errors == "strict":
            where = f"{shown}:{line}:{column}"
            raise DataError("invalid UTF-8", where=where, remedy="--errors replace") from None
        console.warn(f"invalid UTF-8, read with U+FFFD in place · {shown}:{line}:{column}")
        return raw.decode("utf-8", "replace")
