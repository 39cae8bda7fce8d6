"""``s2s evaluate``: generate on a data set and score the result."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seq2seq_cli import console
from seq2seq_cli.cli.options import (
    BatchTokens,
    Device,
    Dtype,
    ModelReference,
    OutputFile,
    Overwrite,
    new_app,
    with_generation_options,
)
from seq2seq_cli.errors import Finding, UsageError, nearest
from seq2seq_cli.text.destination import Destination

if TYPE_CHECKING:
    from seq2seq_cli.data.rows import Row
    from seq2seq_cli.recipe import Recipe

app = new_app()
_PREDICTIONS = "generated_predictions.jsonl"


@app.command()
@with_generation_options
def evaluate(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="[RECIPE]", help="Recipe whose output and test rows are taken.")
    ] = None,
    model: ModelReference = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="FILE", help="Rows; default: the recipe's data.test.")
    ] = None,
    source: Annotated[str | None, typer.Option("--source", help="Field of the source.")] = None,
    target: Annotated[str | None, typer.Option("--target", help="Field of the target.")] = None,
    references: Annotated[
        str | None, typer.Option("--references", help="Field with all accepted targets.")
    ] = None,
    reference_separator: Annotated[
        str | None, typer.Option("--reference-separator", help="Splits one text into accepted targets.")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", metavar="FILE", help="Score a file that exists.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option("--metrics", help="Names with commas between; default: all.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, metavar="N", help="First N rows only.")
    ] = None,
    english: Annotated[bool, typer.Option("--english", help="ROUGE with English stemming.")] = False,
    output: OutputFile = None,
    overwrite: Overwrite = False,
    batch_tokens: BatchTokens = 4096,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    *,
    generation: dict[str, Any],
) -> None:
    """Generate on a data set and score the result: one JSON object on stdout.

    The predictions are written beside the model (generated_predictions.jsonl), or to -o FILE; with -o - they
    stand on stdout, one a line, before the line with the scores.
    """
    names = _names(metrics, from_texts=predictions is not None)
    fields = {
        "source": source,
        "target": target,
        "references": references,
        "reference_separator": reference_separator,
    }
    if predictions is not None:
        flags = {"model": model, "data": data, "output": output, "overwrite": overwrite}
        _refuse_beside_predictions(recipe, {**flags, **fields, **generation})
        _score_file(predictions, names, limit=limit, english=english)
        return
    chosen = _recipe(recipe)
    given_rows = _rows(chosen, data, fields)[:limit]
    with ExitStack() as stack:
        written = None if output is None else stack.enter_context(Destination(output, overwrite=overwrite))
        result = _generate_and_score(
            given_rows,
            names,
            needs_loss=metrics is not None,
            model=model,
            recipe=chosen,
            generation=generation,
            destination=written,
            keep_longer=limit is not None and not overwrite,
            batch_tokens=batch_tokens,
            device=device,
            dtype=dtype,
            english=english,
        )
    indent = None if written is not None and written.is_stdout else 2
    print(json.dumps({**result, "rows": len(given_rows)}, indent=indent))


def _score_file(path: Path, names: list[str], *, limit: int | None, english: bool) -> None:
    """Print the scores of predictions that exist."""
    from seq2seq_cli.evaluation.predictions import read_predictions
    from seq2seq_cli.evaluation.run import scores

    rows = read_predictions(path)[:limit]
    print(json.dumps({**scores(rows, names, english=english), "rows": len(rows)}, indent=2))


def _refuse_beside_predictions(recipe: Path | None, options: dict[str, Any]) -> None:
    """A file that exists is scored as it is: nothing is read, generated or written."""
    given = {"RECIPE": recipe, **{"--" + name.replace("_", "-"): v for name, v in options.items()}}
    named = [name for name, value in given.items() if value not in (None, False)]
    if named:
        raise UsageError(
            f"--predictions does not go with {', '.join(named)}",
            where="s2s evaluate",
            remedy="leave one of them out",
        )


def _names(metrics: str | None, *, from_texts: bool) -> list[str]:
    """The metrics that ``--metrics`` names; without it all that can be had."""
    from seq2seq_cli.evaluation.metrics import METRICS
    from seq2seq_cli.recipe.sections import LOSS_METRICS

    known = [*METRICS, *LOSS_METRICS]
    if metrics is None:
        return [*METRICS] if from_texts else known
    asked = [name.strip() for name in metrics.split(",") if name.strip()]
    if not asked:
        raise UsageError("no metric is named", where="--metrics", remedy="known: " + ", ".join(known))
    findings = [
        Finding(f"unknown metric {name!r}", "--metrics", nearest(name, known))
        for name in asked
        if name not in known
    ]
    findings += [
        Finding(
            f"{name} needs the model, not only its texts",
            "--metrics",
            "name -m and --data instead of --predictions",
        )
        for name in asked
        if from_texts and name in LOSS_METRICS
    ]
    if findings:
        raise UsageError(findings=findings)
    return asked


def _recipe(path: Path | None) -> Recipe | None:
    if path is None:
        return None
    from seq2seq_cli.recipe import PAIRED, load_recipe, where_of

    recipe = load_recipe(path)
    if recipe.training.objective not in PAIRED:
        what = f"evaluate scores what is written for a source, and {recipe.training.objective} has none"
        remedy = "the run's all_results.json has its validation loss; to score what it writes, -m and --data"
        raise UsageError(what, where=where_of(recipe, "training.objective"), remedy=remedy)
    return recipe


def _rows(recipe: Recipe | None, data: str | None, fields: dict[str, str | None]) -> Sequence[Row]:
    """The rows to evaluate on: --data, else the recipe's test rows; fields that no flag names are those of
    the recipe, else the usual ones."""
    from seq2seq_cli.data.sources import read_rows
    from seq2seq_cli.recipe import DataSection

    section = DataSection() if recipe is None else recipe.data
    rows = section.test if data is None else data
    if rows is None:
        remedy = "add --data FILE, or data.test to the recipe"
        raise UsageError("no rows to evaluate on", where="" if recipe is None else recipe.file, remedy=remedy)
    named = {name: getattr(section, name) if flag is None else flag for name, flag in fields.items()}
    return read_rows(rows, split="test", on_bad_row=section.on_bad_row, **named)


def _generate_and_score(
    rows: Sequence[Row],
    names: list[str],
    *,
    needs_loss: bool,
    model: str | None,
    recipe: Recipe | None,
    generation: dict[str, Any],
    destination: Destination | None,
    keep_longer: bool,
    batch_tokens: int,
    device: str,
    dtype: str,
    english: bool,
) -> dict[str, Any]:
    """The scores. Predictions go to ``destination``; without one to the model's folder, where ``keep_longer``
    keeps a file of more rows than these. Without ``needs_loss`` a model that has none is scored all the same.
    """
    from seq2seq_cli.cli.running import (
        make_generator,
        move,
        open_model,
        report,
        with_preset,
    )
    from seq2seq_cli.evaluation.predictions import write_predictions
    from seq2seq_cli.evaluation.run import LOSS_METRICS, loss, predict, scores
    from seq2seq_cli.model import Seq2Seq

    asked = with_preset(generation)
    bundle, options = open_model(model, recipe, given=asked)
    asks_loss = any(name in LOSS_METRICS for name in names)
    if asks_loss and not isinstance(bundle.model, Seq2Seq):
        if needs_loss:
            what = "loss and perplexity are those of an encoder-decoder, and this is none"
            raise UsageError(what, where=bundle.reference, remedy="name other --metrics")
        console.say(f"{bundle.reference} is no encoder-decoder: no loss, and its texts are what it writes on")
        asks_loss = False
    move(bundle, device, dtype)
    generator = make_generator(bundle, recipe_options=options, given=asked, batch_tokens=batch_tokens)
    place = Path(bundle.reference if Path(bundle.reference).is_dir() else ".") / _PREDICTIONS
    kept = destination is None and keep_longer and _lines(place) > len(rows)
    if kept:
        console.say(f"{place} holds predictions of more rows and is kept; -o FILE writes these")
    found = predict(generator, rows, tell=lambda done: console.say(f"{done} of {len(rows)} rows"))
    report(generator.counts)
    if destination is not None:
        write_predictions(destination, found)
    elif not kept:
        with Destination(place, overwrite=True) as beside:
            write_predictions(beside, found)
        console.say(f"predictions: {place}")
    result: dict[str, Any] = scores(found, names, english=english)
    if asks_loss:
        lengths = ("max_source_length", "max_target_length")
        cut = {name: getattr(recipe.data, name) for name in lengths} if recipe is not None else {}
        values = loss(bundle, rows, prefix=generator.prefix, batch_tokens=batch_tokens, **cut)
        result = {**{name: values[name] for name in LOSS_METRICS if name in names}, **result}
    return result


def _lines(path: Path) -> int:
    """How many lines a file has; none where there is no file."""
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        return sum(1 for _ in file)
