"""``s2s generate``: one line in, one line out, in order."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seq2seq_cli import cli, console
from seq2seq_cli.cli.attention import AttentionFile, attend, refuse_attention
from seq2seq_cli.cli.inputs import Form, Line, Lines, Source, joined, open_source, refuse_unused
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
    Processes,
    Quantize,
    RecipeFile,
    Truncation,
    new_app,
    with_generation_options,
)
from seq2seq_cli.errors import UsageError
from seq2seq_cli.processes import launched
from seq2seq_cli.text.destination import Destination

if TYPE_CHECKING:
    from seq2seq_cli.processes.worker import Writer
    from seq2seq_cli.text.lines import Output

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
    prefix_field: Annotated[
        str | None,
        typer.Option(
            "--prefix-field", metavar="NAME", help="With --jsonl: field of what the output begins with."
        ),
    ] = None,
    scores: Annotated[
        bool, typer.Option("--scores", help="Write the score and a tab before each text.")
    ] = False,
    token_scores: Annotated[
        bool, typer.Option("--token-scores", help="With --jsonl: the score of each token, too.")
    ] = False,
    echo: Annotated[bool, typer.Option("--echo", help="Write the input before its continuation.")] = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="Write each word as it is found; takes one input.")
    ] = False,
    attention: AttentionFile = None,
    batch_tokens: BatchTokens = 4096,
    num_processes: Processes = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    quantize: Quantize = None,
    errors: Errors = "strict",
    truncation: Truncation = "truncate",
    *,
    generation: dict[str, Any],
) -> None:
    """Write one line of text for each line that comes in.

    Asking for a sampling option (--temperature, --top-k, --top-p) turns sampling on. Defaults come from the
    recipe, else from the checkpoint.
    """
    from seq2seq_cli.cli.running import Setup, open_writer, with_preset
    from seq2seq_cli.recipe import Turns, load

    asked = Asked(
        text=text or [],
        input_file=input_file,
        errors=errors,
        output=output,
        resume=resume,
        overwrite=overwrite,
        form=Form(
            field=(field or "source") if jsonl else None,
            prefix_field=prefix_field,
            scores=scores,
            token_scores=token_scores,
        ),
        stream=stream,
        attention=attention,
        processes=num_processes or 1,
        is_shared=_is_shared(num_processes, recipe),
    )
    refuse_unused(
        output=attention or output,
        overwrite=overwrite,
        resume=resume,
        objects={
            "--field": field is not None,
            "--prefix-field": prefix_field is not None,
            "--token-scores": token_scores,
        },
        jsonl=jsonl,
    )
    _check(asked, generation)
    chosen = None if recipe is None else load(recipe)
    if isinstance(chosen, Turns):
        beside = {"--model": model is not None, "--stream": stream, "--attention": attention is not None}
        beside |= {"--scores": scores, "--token-scores": token_scores}
        _refuse_together("a recipe of turns", beside, {**generation, "num_beams": None})
    setup = Setup(
        device=device,
        dtype=dtype,
        quantize=quantize,
        given=with_preset(generation),
        batch_tokens=batch_tokens,
        truncate=truncation == "truncate",
        echo=echo,
        with_scores=scores or jsonl,
        token_scores=token_scores,
    )
    _answer(asked, lambda: open_writer(model, chosen, setup))


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a call asks for beside a model and its options: where lines come from, what becomes of them, and
    how many ``processes`` it is to start; ``is_shared``: whether several share the lines."""

    text: list[str]
    input_file: Path | None
    errors: str
    output: Path | None
    resume: bool
    overwrite: bool
    form: Form
    stream: bool
    attention: Path | None
    processes: int
    is_shared: bool


def _check(asked: Asked, generation: dict[str, Any]) -> None:
    """UsageError for what does not go together."""
    if asked.text and asked.input_file is not None:
        raise UsageError("give texts or a file, not both", where="-i")
    jsonl = asked.form.field is not None
    if (generation.get("num_return_sequences") or 1) > 1 and not jsonl:
        raise UsageError(
            "one line in, one line out: several outputs need --jsonl", where="--num-return-sequences"
        )
    if asked.form.prefix_field is not None and "prefix" in generation:
        what = "does not go with --prefix"
        raise UsageError(what, where="--prefix-field", remedy="leave one of them out")
    beside = {
        "several inputs": len(asked.text) > 1,
        "--num-processes": asked.is_shared,
        "--resume": asked.resume,
        "--jsonl": jsonl,
    }
    if asked.attention is not None:
        refuse_attention(asked.attention, {**beside, "--stream": asked.stream}, output=asked.output)
    if asked.stream:
        _refuse_together("--stream", {**beside, "--scores": asked.form.scores}, generation)


def _answer(asked: Asked, open_it: Callable[[], Writer]) -> None:
    """Answer the lines in the way that is asked for; in a process that gets them from another, its share."""
    if asked.is_shared and _worked_for_another(open_it):
        return
    with ExitStack() as stack:
        source = open_source(stack, asked.text, asked.input_file, asked.errors)
        target = stack.enter_context(
            Destination(asked.output, overwrite=asked.overwrite, resumable=True, resume=asked.resume)
        )
        if target.is_complete:
            console.say(f"{asked.output} is complete, nothing to do")
            if launched.world() > 1:
                launched.dismiss()
            return
        work = Lines(asked.form, name=source.name)
        if asked.stream:
            _stream(open_it, work, source, target)
        elif asked.attention is not None:
            attend(asked.attention, open_it, work, source, target, overwrite=asked.overwrite)
        elif asked.is_shared:
            _deal(asked.processes, work, source, target)
        else:
            _generate(open_it(), work, source, target)


def _generate(generator: Writer, work: Lines, source: Source, target: Destination) -> None:
    """Answer the lines in this process."""
    from seq2seq_cli.cli.running import report

    def answer(group: list[Line]) -> list[Output]:
        return generator.texts(
            [line.source for line in group],
            numbers=[line.number for line in group],
            places=[line.where for line in group],
            prefixes=[line.prefix for line in group],
        )

    groups = work.groups(source.lines, source.ready, skip=target.done)
    _write(((group, answer(group)) for group in groups), work, source, target)
    report(generator.counts)


def _is_shared(num_processes: int | None, recipe: Path | None) -> bool:
    """Whether several processes share the lines: those of a launch, or as many as were asked for."""
    world = launched.world()
    if world > 1 and num_processes not in (None, world):
        what = f"--num-processes {num_processes} inside a launch of {world} processes"
        raise UsageError(what, where="s2s generate", remedy="leave it out")
    several = world > 1 or (num_processes or 1) > 1
    if several and str(recipe) == "-":
        raise UsageError("several processes cannot share stdin", remedy="give the recipe as a file")
    return several


def _worked_for_another(open_writer: Callable[[], Writer]) -> bool:
    """True when this process is one of those that get their lines from another, and all are answered."""
    from seq2seq_cli.processes.worker import link_to_dealer, serve

    link = link_to_dealer()
    if link is not None:
        serve(link, open_writer)
    return link is not None


def _deal(processes: int, work: Lines, source: Source, target: Destination) -> None:
    """Have the lines answered by several processes."""
    from seq2seq_cli.cli.running import report
    from seq2seq_cli.processes.dealer import Dealer

    remedy = "run it again with --resume" if target.is_resumable else "run it again"
    with Dealer[Line](remedy=remedy) as dealer:
        dealer.start(cli.given, processes=processes)
        groups = work.groups(source.lines, source.ready, skip=target.done)
        answers = dealer.answers(groups, ready=source.ready, descriptor=source.descriptor)
        _write(answers, work, source, target)
        report(dealer.counts)


def _write(
    answered: Iterator[tuple[list[Line], list[Output]]], work: Lines, source: Source, target: Destination
) -> None:
    """Write the answers as they come, with a bar on stderr unless a terminal shows the answers themselves."""
    if target.done:
        console.say(f"{target.done} lines are there already, going on with line {target.done + 1}")
    shown = not (target.is_stdout and sys.stdout.isatty())
    with console.progress(source.count, done=target.done, shown=shown) as advance:
        for group, outputs in answered:
            target.write(joined(work.results(group, outputs)))
            advance(len(group))


def _stream(open_generator: Callable[[], Writer], work: Lines, source: Source, target: Destination) -> None:
    """Answer the one line of an input that has no other, as far as can be seen without waiting."""
    from seq2seq_cli.cli.running import report
    from seq2seq_cli.decoding.engine import TextGenerator
    from seq2seq_cli.text.lines import one_line

    first = list(islice(source.lines, 1))
    _refuse_more(source)
    generator = open_generator()
    assert isinstance(generator, TextGenerator)
    for (line,) in work.groups(first, source.ready):
        generator.stream(line.source, lambda piece: target.write(one_line(piece)), place=line.where)
        target.write("\n")
    _refuse_more(source)
    report(generator.counts)


def _refuse_more(source: Source) -> None:
    if source.ready() and next(source.lines, None) is not None:
        remedy = "give it one line, or leave --stream out"
        raise UsageError("--stream takes one input", where=f"{source.name}:2", remedy=remedy)


def _refuse_together(what: str, flags: dict[str, bool], generation: dict[str, Any]) -> None:
    """UsageError for what needs the whole output, or several."""
    numbers = {name: (generation.get(name) or 1) > 1 for name in ("num_beams", "num_return_sequences")}
    beside = {**flags, **{"--" + name.replace("_", "-"): value for name, value in numbers.items()}}
    named = [name for name, value in beside.items() if value]
    if named:
        raise UsageError(
            f"{what} does not go with {', '.join(named)}",
            where="s2s generate",
            remedy="leave one of them out",
        )
