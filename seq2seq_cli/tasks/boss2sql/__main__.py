"""``python -m seq2seq_cli.tasks.boss2sql``: make the data, run SQL from a pipe, score predictions."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from seq2seq_cli.errors import DataError, S2SError
from seq2seq_cli.tasks.boss2sql.ask import answers
from seq2seq_cli.tasks.boss2sql.execution import execution_accuracy
from seq2seq_cli.tasks.boss2sql.files import write_data
from seq2seq_cli.text.lines import read_lines

app = typer.Typer(
    help="A boss asks in English, the model writes SQL: its data, its answers and its score.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Database = Annotated[Path, typer.Argument(help="the company.sqlite that 'data' wrote")]


@app.command()
def data(
    folder: Annotated[Path, typer.Argument(help="where to write; made when missing")],
    seed: Annotated[int, typer.Option(help="another seed is another company, split and choice")] = 0,
    train: Annotated[int, typer.Option(min=1, help="training pairs")] = 7000,
    dev: Annotated[int, typer.Option(min=1, help="validation pairs")] = 300,
    test: Annotated[int, typer.Option(min=1, help="test pairs")] = 500,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace the files of an earlier run")
    ] = False,
) -> None:
    """Write the database, the question-SQL pairs of each split, and SQL on its own."""
    write_data(folder, seed=seed, train=train, dev=dev, test=test, overwrite=overwrite)


@app.command()
def ask(database: Database) -> None:
    """Run the SQL lines of stdin and print each with its result."""
    for block in answers(read_lines(sys.stdin.buffer, name="stdin"), database):
        _print(block)


@app.command()
def score(
    predictions: Annotated[
        Path, typer.Argument(help="JSONL with a prediction and its reference in each row")
    ],
    database: Database,
    prediction_field: Annotated[str, typer.Option(help="the field with the model's SQL")] = "prediction",
    reference_field: Annotated[str, typer.Option(help="the field with the right SQL")] = "target",
) -> None:
    """Print execution accuracy, exact match and the share of invalid SQL as JSON."""
    fields = (prediction_field, reference_field)
    rows = [_fields(line, fields, f"{predictions}:{n}") for n, line in enumerate(_lines(predictions), 1)]
    written, right = ([row[place] for row in rows] for place in (0, 1))
    _print(json.dumps(execution_accuracy(written, right, database)))


def _print(text: str) -> None:
    """One result to stdout at once; ends the program, silently, when its reader has gone."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Else the interpreter would try once more to write what is left in the buffer.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(141) from None


def _lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as stream:
            return list(read_lines(stream, name=str(path)))
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from None


def _fields(line: str, names: tuple[str, str], where: str) -> tuple[str, str]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"not JSON: {error}", where=where) from None
    missing = [name for name in names if not isinstance(row, dict) or not isinstance(row.get(name), str)]
    if missing:
        raise DataError(
            f"no text in field {missing[0]!r}",
            where=where,
            remedy="name the field with --prediction-field or --reference-field",
        )
    return row[names[0]], row[names[1]]


def main() -> int:
    """Run one command; the exit code as ``seq2seq_cli.errors`` lists them."""
    try:
        return int(app(standalone_mode=False) or 0)
    except S2SError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return 128 + signal.SIGINT
    except Exception as error:
        # Typer's usage errors: their class has moved between its versions, their methods have not.
        if not hasattr(error, "format_message"):
            raise
        message = error.format_message()
        print(f"{message.rstrip('.')} · see: python -m seq2seq_cli.tasks.boss2sql --help", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
