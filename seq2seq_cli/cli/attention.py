"""``s2s generate --attention FILE``: what the tokens of an output looked at, as numbers or as a picture."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seq2seq_cli.cli.inputs import Lines, Source, joined
from seq2seq_cli.errors import DataError, UsageError
from seq2seq_cli.text.destination import Destination

if TYPE_CHECKING:
    from seq2seq_cli.decoding.alignment import Alignment
    from seq2seq_cli.processes.worker import Writer

_ENDINGS = (".npz", ".svg")
AttentionFile = Annotated[
    Path | None,
    typer.Option(
        "--attention",
        metavar="FILE",
        help="Write what each token of the output saw of the input: .npz or .svg. Takes one input.",
    ),
]


def refuse_attention(path: Path, beside: dict[str, bool], *, output: Path | None) -> None:
    """UsageError for a FILE of another ending, and for what stands ``beside`` it and does not go with it."""
    if path.suffix not in _ENDINGS:
        what = f"{str(path)!r} ends in neither {' nor '.join(_ENDINGS)}"
        raise UsageError(what, where="--attention", remedy="numbers are written as .npz, a picture as .svg")
    named = [name for name, value in beside.items() if value]
    if named:
        remedy = "give it one input, and leave the others out"
        raise UsageError(f"does not go with {', '.join(named)}", where="--attention", remedy=remedy)
    if output == path:
        raise UsageError(f"{path} is the file of -o, too", where="--attention", remedy="name another")


def attend(
    path: Path,
    open_generator: Callable[[], Writer],
    work: Lines,
    source: Source,
    target: Destination,
    *,
    overwrite: bool,
) -> None:
    """Answer the one line of an input, and write what its output saw of it into the file ``path``."""
    from seq2seq_cli.cli.running import report
    from seq2seq_cli.decoding.engine import TextGenerator

    first = _only_line(source)
    with Destination(path, overwrite=overwrite) as picture:
        generator = open_generator()
        assert isinstance(generator, TextGenerator)
        for (line,) in work.groups(first, source.ready):
            output, alignment = generator.aligned(line.source, place=line.where)
            picture.write_bytes(drawn(alignment, path))
            target.write(joined(work.results([line], [output])))
    report(generator.counts)


def _only_line(source: Source) -> list[str]:
    """UsageError where there are more, DataError where there is none."""
    first = list(islice(source.lines, 2))
    if len(first) > 1:
        remedy = "give it one line"
        raise UsageError("--attention takes one input", where=f"{source.name}:2", remedy=remedy)
    if not first:
        raise DataError("there is no line in it, and --attention needs one", where=source.name)
    return first


def drawn(alignment: Alignment, path: Path) -> bytes:
    """The file as its ending says: the arrays of an .npz, or an .svg with the mean of all heads, over all
    layers and layer by layer."""
    if path.suffix == ".npz":
        return _arrays(alignment)
    from seq2seq_cli.pictures import heat_maps

    by_layer = alignment.weights.mean(dim=1)
    panels = [("all layers", by_layer.mean(dim=0).tolist())]
    if len(by_layer) > 1:
        panels += [(f"layer {n}", layer.tolist()) for n, layer in enumerate(by_layer, start=1)]
    return heat_maps(panels, alignment.target_tokens, alignment.source_tokens).encode("utf-8", "replace")


def _arrays(alignment: Alignment) -> bytes:
    from io import BytesIO

    import numpy

    file = BytesIO()
    numpy.savez_compressed(
        file,
        attention=alignment.weights.numpy(),
        source_ids=numpy.array(alignment.source_ids),
        target_ids=numpy.array(alignment.target_ids),
        source_tokens=numpy.array(alignment.source_tokens),
        target_tokens=numpy.array(alignment.target_tokens),
    )
    return file.getvalue()
