"""``generated_predictions.jsonl``: one JSON object a line with source, prediction and references."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seq2seq_cli.errors import DataError, Finding, counted
from seq2seq_cli.text.destination import Destination
from seq2seq_cli.text.lines import read_lines

#: How many wrong lines an error lists before it counts the rest.
_LISTED = 10
_REMEDY = 'one object a line, as {"prediction": "...", "references": ["..."]}'


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One scored line: what was asked, what the model wrote, and what would have been right."""

    source: str
    prediction: str
    references: tuple[str, ...]


def read_predictions(path: Path) -> list[Prediction]:
    """Read a file of objects with ``prediction`` and ``references`` (a list) or ``target`` (one text).

    ``source`` may be missing; of ``predictions: [{"text": ...}, ...]``, as generate writes several, the first
    counts. Other fields are ignored, and so are blank lines. DataError with every wrong line (``file:line``).
    """
    rows: list[Prediction] = []
    findings: list[Finding] = []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(read_lines(file, name=str(path)), start=1):
                if not line.strip():
                    continue
                try:
                    rows.append(_parse(line))
                except (ValueError, RecursionError) as error:
                    what = "nested too deeply" if isinstance(error, RecursionError) else str(error)
                    findings.append(Finding(what, f"{path}:{number}", _REMEDY))
    except OSError as error:
        remedy = "check the path"
        raise DataError(f"cannot be read: {error.strerror}", where=str(path), remedy=remedy) from error
    if findings:
        told = counted(findings)
        rest = len(told) - _LISTED
        more = [Finding(f"and {rest} more findings", str(path))] if rest > 0 else []
        raise DataError(findings=[*told[:_LISTED], *more])
    if not rows:
        raise DataError("the file is empty", where=str(path), remedy=_REMEDY)
    return rows


def write_predictions(destination: Destination, rows: Iterable[Prediction]) -> None:
    """Write the rows, one a line. Raises ResourceError."""
    for row in rows:
        fields = {"source": row.source, "prediction": row.prediction, "references": list(row.references)}
        destination.write(json.dumps(fields, ensure_ascii=False) + "\n")


def _parse(line: str) -> Prediction:
    """One line; a ValueError says what is wrong with it."""
    try:
        row = json.loads(line, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON: {error.msg} (column {error.colno})") from error
    if not isinstance(row, dict):
        raise ValueError("a JSON object is expected on every line")
    if "references" in row:
        references = row["references"]
        if not isinstance(references, list) or not references:
            raise ValueError("field 'references' is not a list with at least one text")
    elif "target" in row:
        references = [row["target"]]
    else:
        raise ValueError("no field 'references' or 'target'")
    return Prediction(
        source=_text("source", row.get("source", "")),
        prediction=_text("prediction", _best(row)),
        references=tuple(_text("references", reference) for reference in references),
    )


def _best(row: dict[str, Any]) -> object:
    if "prediction" in row:
        return row["prediction"]
    several = row.get("predictions")
    if isinstance(several, list) and several and isinstance(several[0], dict):
        return several[0].get("text")
    raise ValueError("no field 'prediction'")


def _text(field: str, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"field {field!r} holds {type(value).__name__}, not text")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError(f"field {field!r} holds half a surrogate pair, which is no character")
    return value


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a field stands twice in one object")
    return result
