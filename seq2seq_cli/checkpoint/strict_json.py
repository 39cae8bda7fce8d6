"""JSON from files that nobody here wrote: no duplicate keys, no NaN, errors with their place."""

from __future__ import annotations

import json
import math
import re
import reprlib
from typing import NoReturn

from seq2seq_cli.errors import CheckpointError

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|-?Infinity|NaN|-?[0-9][0-9.eE+-]*', re.DOTALL)


_shortened = reprlib.Repr()
_shortened.maxstring = 100


def shown(value: object) -> str:
    """A foreign value for an error message, cut to a readable length and depth."""
    return _shortened.repr(value)


class _RefusedValueError(ValueError):
    """Raised inside the parser's hooks, which are not told where in the text they are."""

    def __init__(self, what: str, token: str, *, is_key: bool) -> None:
        super().__init__(what)
        self.token, self.is_key = token, is_key


def parse_json(text: str, *, where: str) -> object:
    """The value of one JSON document.

    ``where`` names the file in error messages. Raises CheckpointError (``file:line:column``) for text that is
    not JSON, a key that an object has twice, NaN, infinities, and nesting deeper than Python's parser goes.
    """
    try:
        value: object = json.loads(
            text, object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=_finite
        )
    except json.JSONDecodeError as error:
        raise CheckpointError(
            f"not valid JSON: {error.msg}", where=f"{where}:{error.lineno}:{error.colno}"
        ) from error
    except _RefusedValueError as error:
        raise CheckpointError(
            str(error), where=f"{where}:{_place(text, error)}", remedy="correct the file"
        ) from error
    except RecursionError as error:
        raise CheckpointError("JSON nested too deeply", where=where) from error
    except ValueError as error:  # an integer of thousands of digits
        raise CheckpointError(f"not usable JSON: {error}", where=where) from error
    return value


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _RefusedValueError(f"duplicate key {shown(key)}", key, is_key=True)
            seen.add(key)
    return result


def _refuse_constant(token: str) -> NoReturn:
    raise _RefusedValueError(f"{token} is not a JSON number", token, is_key=False)


def _finite(token: str) -> float:
    value = float(token)
    if math.isinf(value):
        raise _RefusedValueError(f"the number {token[:20]} is too large", token, is_key=False)
    return value


def _place(text: str, error: _RefusedValueError) -> str:
    """``line:column`` of the refused token: walks the text once, which only a refused file has to pay for."""
    keys: list[set[str]] = []  # the keys met so far in each object or array that is open
    matches = list(_TOKEN.finditer(text))
    for number, match in enumerate(matches):
        token = match.group()
        if token in "{[":
            keys.append(set())
        elif token in "}]":
            keys.pop()
        elif not error.is_key and token == error.token:
            return _line_column(text, match.start())
        elif token[0] == '"' and number + 1 < len(matches) and matches[number + 1].group() == ":":
            key = json.loads(token)
            if error.is_key and key == error.token and key in keys[-1]:
                return _line_column(text, match.start())
            keys[-1].add(key)
    return "1:1"


def _line_column(text: str, offset: int) -> str:
    return f"{text.count(chr(10), 0, offset) + 1}:{offset - text.rfind(chr(10), 0, offset)}"
