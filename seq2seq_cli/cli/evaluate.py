"""``s2s evaluate``: generate on a data set and score the result."""

from __future__ import annotations

import json
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
    new_app,
    with_generation_options,
)
from seq2seq_cli.errors import UsageError, nearest

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
    batch_tokens: BatchTokens = 4096,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    *,
    generation: dict[str, Any],
) -> None:
    """Generate on a data set and score the result: one JSON object on stdout.

    The predictions are written beside the model (generated_predictions.jsonl), or to -o FILE.
    """
    names = _names(metrics, from_texts=predictions is not None)
    if predictions is not None:
        from seq2seq_cli.evaluation.predictions import read_predictions
        from seq2seq_cli.evaluation.run import scores

        if recipe is not None or model is not None or data is not None:
            raise UsageError("--predictions scores a file and takes no model or data", where="s2s evaluate")
        rows = read_predictions(predictions)[:limit]
        print(json.dumps({**scores(rows, names, english=english), "rows": len(rows)}, indent=2))
        return
    loaded = _recipe(recipe)
    overrides = {
        "source": source,
        "target": target,
        "references": references,
        "reference_separator": reference_separator,
    }
    given_rows = _rows(loaded, data, overrides)[:limit]
    result = _generate_and_score(
        given_rows,
        names,
        model=model,
        recipe=recipe,
        generation=generation,
        output=output,
        batch_tokens=batch_tokens,
        device=device,
        dtype=dtype,
        english=english,
    )
    print(json.dumps({**result, "rows": len(given_rows)}, indent=2))


def _names(metrics: str | None, *, from_texts: bool) -> list[str]:
    from seq2seq_cli.evaluation.metrics import METRICS

    known = [*METRICS] if from_texts else [*METRICS, "loss", "perplexity"]
    asked = [name.strip() for name in metrics.split(",") if name.strip()] if metrics else known
    unknown = [name for name in asked if name not in known]
    if unknown:
        what = f"unknown metric {unknown[0]!r}"
        raise UsageError(what, where="--metrics", remedy=nearest(unknown[0], known))
    return asked


def _recipe(path: Path | None) -> Recipe | None:
    if path is None:
        return None
    from seq2seq_cli.recipe import load_recipe

    return load_recipe(path)


def _rows(recipe: Recipe | None, data: str | None, fields: dict[str, str | None]) -> list[Row]:
    """The rows to evaluate on: --data, else the recipe's test rows; fields that no flag names are those of
    the recipe, else the usual ones."""
    from seq2seq_cli.data.sources import read_rows
    from seq2seq_cli.recipe import DataSection

    section = DataSection() if recipe is None else recipe.data
    rows = section.test if data is None else data
    if rows is None:
        raise UsageError("no rows to evaluate on", remedy="add --data FILE, or data.test to the recipe")
    named = {name: getattr(section, name) if flag is None else flag for name, flag in fields.items()}
    return read_rows(rows, split="test", on_bad_row=section.on_bad_row, **named)


def _generate_and_score(
    rows: list[Row],
    names: list[str],
    *,
    model: str | None,
    recipe: Path | None,
    generation: dict[str, Any],
    output: Path | None,
    batch_tokens: int,
    device: str,
    dtype: str,
    english: bool,
) -> dict[str, Any]:
    from seq2seq_cli.cli.running import (
        make_generator,
        move,
        open_model,
        report_cuts,
        source_prefix,
        with_preset,
    )
    from seq2seq_cli.evaluation.predictions import write_predictions
    from seq2seq_cli.evaluation.run import LOSS_METRICS, loss, predict, scores
    from seq2seq_cli.model import Seq2Seq

    asked = with_preset(generation)
    bundle, options = open_model(model, recipe)
    move(bundle, device, dtype)
    generator = make_generator(bundle, recipe_options=options, given=asked, batch_tokens=batch_tokens)
    prefix = source_prefix(bundle)
    found = predict(
        generator, rows, prefix=prefix, tell=lambda done: console.say(f"{done} of {len(rows)} rows")
    )
    report_cuts(generator)
    place = output or Path(bundle.reference if Path(bundle.reference).is_dir() else ".") / _PREDICTIONS
    write_predictions(place, found)
    console.say(f"predictions: {place}")
    result: dict[str, Any] = scores(found, names, english=english)
    if any(name in LOSS_METRICS for name in names) and isinstance(bundle.model, Seq2Seq):
        values = loss(bundle, rows, prefix=prefix, batch_tokens=batch_tokens)
        result = {**{name: values[name] for name in LOSS_METRICS if name in names}, **result}
    return result
