"""``s2s generate``: one line in, one line out, in order."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

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
from seq2seq_cli.errors import UsageError

if TYPE_CHECKING:
    from seq2seq_cli.cli.inputs import Line, Lines, Source
    from seq2seq_cli.decoding.engine import Output, TextGenerator
    from seq2seq_cli.text.destination import Destination

app = new_app()


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
    stream: Annotated[
        bool, typer.Option("--stream", help="Write each word as it is found; takes one input.")
    ] = False,
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
    from seq2seq_cli.cli.inputs import Lines, open_source, refuse_unused
    from seq2seq_cli.cli.running import make_generator, move, open_model, report_cuts, with_preset
    from seq2seq_cli.text.destination import Destination

    if (generation.get("num_return_sequences") or 1) > 1 and not jsonl:
        raise UsageError(
            "one line in, one line out: several outputs need --jsonl", where="--num-return-sequences"
        )
    if text and input_file is not None:
        raise UsageError("give texts or a file, not both", where="-i")
    refuse_unused(resume=resume, overwrite=overwrite, output=output, field=field, jsonl=jsonl)
    if stream:
        _refuse_beside_stream(text or [], jsonl=jsonl, scores=scores, resume=resume, generation=generation)
    with ExitStack() as stack:
        source = open_source(stack, text or [], input_file, errors)
        target = stack.enter_context(Destination(output, overwrite=overwrite, resumable=True, resume=resume))
        if target.is_complete:
            console.say(f"{output} is complete, nothing to do")
            return
        lines = _one(source) if stream else source.lines
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
        if target.done:
            console.say(f"{target.done} lines are there already, going on with line {target.done + 1}")
        named = (field or "source") if jsonl else None
        work = Lines(field=named, scores=scores, name=source.name)
        groups = work.groups(lines, source.ready, skip=target.done)
        if stream:
            _stream(generator, groups, target)
            _refuse_more(source)
        else:
            _write(((group, _answers(generator, group)) for group in groups), work, source, target)
    report_cuts(generator.truncated, generator.unreadable)


def _answers(generator: TextGenerator, group: list[Line]) -> list[Output]:
    return generator.texts(
        [line.source for line in group],
        numbers=[line.number for line in group],
        places=[line.where for line in group],
    )


def _write(
    answered: Iterator[tuple[list[Line], list[Output]]], work: Lines, source: Source, target: Destination
) -> None:
    """Write the answers as they come, with a bar on stderr unless a terminal shows the answers themselves."""
    from seq2seq_cli.cli.inputs import joined

    shown = not (target.is_stdout and sys.stdout.isatty())
    with console.progress(source.count, done=target.done, shown=shown) as advance:
        for group, outputs in answered:
            target.write(joined(work.results(group, outputs)))
            advance(len(group))


def _stream(generator: TextGenerator, groups: Iterator[list[Line]], target: Destination) -> None:
    from seq2seq_cli.text.lines import one_line

    for (line,) in groups:
        generator.stream(line.source, lambda piece: target.write(one_line(piece)), place=line.where)
        target.write("\n")


def _one(source: Source) -> Iterator[str]:
    """The first line of an input that has no other, as far as can be seen without waiting."""
    first = list(islice(source.lines, 1))
    _refuse_more(source)
    return iter(first)


def _refuse_more(source: Source) -> None:
    if source.ready() and next(source.lines, None) is not None:
        remedy = "give it one line, or leave --stream out"
        raise UsageError("--stream takes one input", where=f"{source.name}:2", remedy=remedy)


def _refuse_beside_stream(
    text: list[str], *, jsonl: bool, scores: bool, resume: bool, generation: dict[str, Any]
) -> None:
    """UsageError for what needs the whole output, or several."""
    beside = {
        "several inputs": len(text) > 1,
        "--jsonl": jsonl,
        "--scores": scores,
        "--resume": resume,
        "--num-beams": (generation.get("num_beams") or 1) > 1,
        "--num-return-sequences": (generation.get("num_return_sequences") or 1) > 1,
    }
    named = [name for name, value in beside.items() if value]
    if named:
        raise UsageError(
            f"--stream does not go with {', '.join(named)}",
            where="s2s generate",
            remedy="leave one of them out",
        )
