"""Small published files, read with every check that hostile ones call for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seq2seq_cli.errors import CheckpointError

#: No published tokenizer file comes near this; the limit keeps a hostile one from filling the memory.
MAX_FILE_BYTES = 64 * 2**20

_LARGEST_ID = 2**31 - 2


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None when there is no such ordinary file."""
    if not path.is_file():
        return None
    check_size(path)
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else "nested too deeply"
        raise CheckpointError(f"not valid JSON: {reason}", where=str(path), remedy="fetch it again") from None
    except OSError as error:
        raise CheckpointError(f"cannot read: {error.strerror}", where=str(path)) from None
    return dict(mapping(content, path))


def check_size(path: Path) -> None:
    """Refuse a file that is larger than any tokenizer file."""
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        raise CheckpointError(
            f"{size} bytes are too many for a tokenizer file (limit {MAX_FILE_BYTES})", where=str(path)
        )


def mapping(value: object, path: Path) -> Mapping[str, Any]:
    """``value`` when it is a JSON object; ``path`` is where it was read."""
    if not isinstance(value, dict):
        raise CheckpointError(f"an object was expected, not {type(value).__name__}", where=str(path))
    return value


def token_id(value: object, path: Path) -> int:
    """``value`` as a token id: a number, or its digits."""
    try:
        number = int(str(value))
    except ValueError:
        number = -1
    if not 0 <= number <= _LARGEST_ID:
        raise CheckpointError(f"{value!r} is not a token id", where=str(path))
    return number
