"""Data sets on the hub, read through ``datasets``."""

from __future__ import annotations

import re
from collections.abc import Iterator

from seq2seq_cli.data.files import Record
from seq2seq_cli.data.rows import Fields
from seq2seq_cli.errors import DataError, HubError, nearest

#: owner/name[@revision][:config][#split]
_REFERENCE = re.compile(
    r"(?P<id>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?(:(?P<config>[\w.-]+))?(#(?P<split>\S+))?"
)


def is_hub_reference(text: str) -> bool:
    """True when ``text`` has the form ``owner/name[@revision][:config][#split]``."""
    return _REFERENCE.fullmatch(text) is not None


def read_hub(reference: str, fields: Fields, split: str, *, streaming: bool = False) -> Iterator[Record]:
    """The rows of a hub data set; ``#split`` in the reference wins over ``split``. ``streaming``: nothing is
    downloaded before it is read, and nothing kept.

    Raises :class:`HubError` when it cannot be had, :class:`DataError` when it has no such split or column.
    """
    match = _REFERENCE.fullmatch(reference)
    assert match is not None
    name = match["split"] or split
    import datasets

    try:
        how = {"streaming": True} if streaming else {}
        rows = datasets.load_dataset(
            match["id"], match["config"], split=name, revision=match["revision"], **how
        )
        columns = rows.column_names
        if columns is None:  # a stream may not know before it has read a row
            columns = list(next(iter(rows), {}))
    except ValueError as error:  # an unknown split or configuration
        raise DataError(_short(error), where=reference, remedy="choose with ID:CONFIG#SPLIT") from None
    except Exception as error:
        raise HubError(
            f"the data set cannot be loaded: {_short(error)}",
            where=reference,
            remedy="check the name and the connection, or log in with `hf auth login`",
        ) from error
    for column in fields.asked:
        if column not in columns:
            raise DataError(
                f"there is no column {column!r}", where=reference, remedy=nearest(column, columns)
            )
    for number, row in enumerate(rows, 1):
        yield f"{match['id']}[{name}]:{number}", row


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
