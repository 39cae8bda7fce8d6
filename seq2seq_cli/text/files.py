"""Which files of a published folder may be opened, and small ones read with every check."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seq2seq_cli.errors import CheckpointError

#: The largest published tokenizer.json has 34 MB. Empty lists take twenty times their size in memory, so the
#: limit is one on that, too.
MAX_FILE_BYTES = 48 * 2**20

_LARGEST_ID = 2**31 - 2


def regular_file(folder: Path, name: str) -> Path | None:
    """``folder/name`` when it may be opened; None when nothing is there.

    Raises CheckpointError for a name that is more than a file's name, for a link that leads out of the folder
    (links of the hub's cache into its ``blobs/`` excepted), and for pipes, devices and folders.
    """
    if name in ("", ".", "..") or any(mark in name for mark in "/\\:\0") or not _is_unicode(name):
        raise CheckpointError(f"{name[:100]!r} is not a plain file name", where=str(folder))
    path = folder / name
    where = str(path)
    try:
        path.lstat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"cannot be read: {error.strerror}", where=where) from error
    try:
        real = path.resolve(strict=True)
        mode = real.stat().st_mode
    except (OSError, RuntimeError) as error:  # RuntimeError: a circle of links, before Python 3.13
        raise CheckpointError("a link that leads nowhere", where=where) from error
    home = folder.resolve()
    if real.parent != home and not _is_cache_blob(real, home):
        raise CheckpointError(
            f"a link out of the folder (to {real})", where=where, remedy="copy the file into the folder"
        )
    if not stat.S_ISREG(mode):
        raise CheckpointError("not an ordinary file", where=where)
    return path


def _is_unicode(name: str) -> bool:
    """False for half a surrogate pair, which JSON can spell and no file's name can hold."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _is_cache_blob(real: Path, home: Path) -> bool:
    """Is ``real`` where the hub's cache keeps the contents of the snapshot ``home``?

    ``home`` is REPOSITORY/snapshots/REVISION or a folder in it; contents are in REPOSITORY/blobs/NAME, or in
    blobs/XX/NAME beside REPOSITORY where repositories share them (huggingface_hub 2).
    """
    for parent in list(home.parents)[:2]:
        if parent.name == "snapshots":
            shared = parent.parent.parent / "blobs"
            return real.parent == parent.parent / "blobs" or real.parent.parent == shared
    return False


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None when there is no such file."""
    if regular_file(path.parent, path.name) is None:
        return None
    check_size(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
        content = json.loads(text)
        if "\\ud" in text.lower():  # escapes can spell half a surrogate pair, which is no text
            json.dumps(content, ensure_ascii=False).encode("utf-8")
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
