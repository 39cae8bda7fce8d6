"""``s2s summarize``: generate for documents."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

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
    RecipeFile,
    new_app,
    with_generation_options,
)
from seq2seq_cli.errors import DataError, UsageError

if TYPE_CHECKING:
    from seq2seq_cli.decoding.engine import TextGenerator

app = new_app()
Row = tuple[str, dict[str, Any]]


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
    field: FieldName = "source",
    long: Annotated[
        Literal["split", "truncate", "error"], typer.Option("--long", help="What to do with long documents.")
    ] = "split",
    batch_tokens: BatchTokens = 4096,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    errors: Errors = "strict",
    *,
    generation: dict[str, Any],
) -> None:
    """Shorten documents of any length; one line for each.

    A document longer than the model takes is split at sentence ends, the parts are summarised, and the
    summaries joined and summarised again. Options are those of generate; the default preset is summarize.
    """
    from seq2seq_cli.cli.generate import Lines, is_stdout, write_stdout
    from seq2seq_cli.cli.running import (
        LineFile,
        make_generator,
        move,
        open_model,
        report_cuts,
        source_prefix,
        with_preset,
    )

    if (generation.get("num_return_sequences") or 1) > 1:
        raise UsageError("summarize writes one summary a document", where="--num-return-sequences")
    with ExitStack() as stack:
        target = None if is_stdout(output) or output is None else LineFile(output, overwrite=overwrite)
        asked = with_preset(generation)
        bundle, options = open_model(model, recipe)
        move(bundle, device, dtype)
        generator = make_generator(
            bundle,
            recipe_options=options,
            given=asked,
            default_preset=None if "preset" in generation else "summarize",
            batch_tokens=batch_tokens,
        )
        work = Lines(prefix="", jsonl=jsonl, field=field, scores=False, name="stdin")
        for group in _groups(stack, files or [], work, one_a_line=lines or jsonl, errors=errors):
            texts = _summaries(generator, [text for text, _ in group], long, prefix=source_prefix(bundle))
            written = work.texts(group, texts)
            write_stdout(written) if target is None else target.write(written)
        if target is not None:
            target.close()
    report_cuts(generator)


def _summaries(generator: TextGenerator, documents: list[str], long: Any, *, prefix: str) -> list[str]:
    from seq2seq_cli.tasks.summarize import summarize as work

    def write(sources: list[str]) -> list[str]:
        prefixed = [prefix + source if source.strip() else source for source in sources]
        return [output.texts[0] for output in generator.texts(prefixed)]

    limit = generator.source_limit - generator.length(prefix) if prefix else generator.source_limit
    return work(documents, write=write, length=generator.length, limit=limit, long=long)


def _groups(
    stack: ExitStack, files: list[str], work: Any, *, one_a_line: bool, errors: str
) -> Iterator[list[Row]]:
    """Lists of (document, the JSON object it came from), as they arrive."""
    from seq2seq_cli.cli.generate import open_lines
    from seq2seq_cli.text.lines import read_lines
    from seq2seq_cli.text.stream import PipeReader

    if one_a_line:
        if not files:
            reader = PipeReader(0)
            yield from work.groups(read_lines(reader, name="stdin", errors=errors), reader.ready, skip=0)
        for name in files:
            file = stack.enter_context(open_lines(Path(name)))
            yield from work.groups(read_lines(file, name=name, errors=errors), lambda: True, skip=0)
        return
    yield [(_document(name, errors), {}) for name in files or ["-"]]


def _document(name: str, errors: str) -> str:
    """The whole of one file, or of stdin."""
    try:
        raw = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return raw.decode("utf-8", errors)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=name) from None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        raise DataError("invalid UTF-8", where=f"{name}:{line}:{column}", remedy="--errors replace") from None
