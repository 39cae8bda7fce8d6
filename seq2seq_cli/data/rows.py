"""What a data set is made of: rows, and an account of the bad ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seq2seq_cli import console
from seq2seq_cli.errors import DataError, Finding, counted, nearest

#: This many findings are reported together; a file in the wrong format would fill the screen.
MAX_FINDINGS = 20
#: With ``on_bad_row="skip"`` more than this share of bad rows is refused.
MAX_SKIPPED = 0.01


@dataclass(frozen=True, kw_only=True)
class Row:
    """One example.

    ``target`` is what is learnt, ``references`` all accepted targets (the target alone where there are no
    others), ``where`` is ``file:line``.
    """

    source: str
    target: str
    references: tuple[str, ...]
    where: str


@dataclass(frozen=True, kw_only=True)
class Fields:
    """The names under which the texts of a row are found; ``source`` is None for language modelling."""

    source: str | None
    target: str
    references: str | None = None
    reference_separator: str | None = None

    @property
    def asked(self) -> tuple[str, ...]:
        """The names that every row must have."""
        return tuple(name for name in (self.source, self.target, self.references) if name is not None)

    def row(self, fields: Mapping[str, object], where: str, bad: BadRows) -> Row | None:
        """The row that ``fields`` hold; None, with the reason in ``bad``, when they do not hold one."""
        source = "" if self.source is None else _text(fields, self.source, where, bad)
        if source is None:
            return None
        target = _text(fields, self.target, where, bad)
        if target is None:
            return None
        references = self._references(fields, target, where, bad)
        if references is None:
            return None
        if self.reference_separator is not None:
            target = target.split(self.reference_separator)[0]
        return Row(source=source, target=target, references=references, where=where)

    def _references(
        self, fields: Mapping[str, object], target: str, where: str, bad: BadRows
    ) -> tuple[str, ...] | None:
        value: Any = fields.get(self.references or "references")
        if self.references is not None and isinstance(value, str):
            value = [value]
        if isinstance(value, list) and value and all(isinstance(text, str) for text in value):
            return tuple(value)
        if self.references is not None:
            what = (
                "is missing" if self.references not in fields else f"is {_kind(value)}, not a list of texts"
            )
            bad.add(f"field {self.references!r} {what}", where)
            return None
        return tuple(target.split(self.reference_separator)) if self.reference_separator else (target,)


def _text(fields: Mapping[str, object], name: str, where: str, bad: BadRows) -> str | None:
    value = fields.get(name)
    if isinstance(value, str):
        return value
    if name not in fields:
        bad.add(f"field {name!r} is missing", where, nearest(name, fields))
    else:
        remedy = "write it in quotes" if isinstance(value, int | float) else ""
        bad.add(f"field {name!r} is {_kind(value)}, not a text", where, remedy)
    return None


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return f"a number ({value})"
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return "a list" if value else "an empty list"
    return "an object" if isinstance(value, Mapping) else f"a {type(value).__name__}"


class BadRows:
    """Counts rows that cannot be used; raises one :class:`DataError` for up to 20 of them, or skips a few."""

    def __init__(self, *, skip: bool) -> None:
        self.count = 0
        self._skip = skip
        self._findings: list[Finding] = []

    def add(self, what: str, where: str, remedy: str = "") -> None:
        """Note one bad row. Raises when no more findings fit and bad rows are errors."""
        self.count += 1
        if len(self._findings) < MAX_FINDINGS:
            self._findings.append(Finding(what, where, remedy))
        if len(self._findings) == MAX_FINDINGS and not self._skip:
            told = counted(self._findings, or_more=True)
            more = [Finding("there may be more; reading stopped here")] if len(told) > 1 else []
            raise DataError(findings=[*told, *more])

    def settle(self, good: int) -> None:
        """To be called when all rows are read: ``good`` of them could be used."""
        if not self.count:
            return
        if not self._skip:
            raise DataError(findings=counted(self._findings))
        total = good + self.count
        if self.count > MAX_SKIPPED * total:
            limit = Finding(
                f"{self.count} of {total} rows are bad, and at most {MAX_SKIPPED:.0%} may be skipped",
                remedy="mend the file",
            )
            told = counted(self._findings, or_more=self.count > len(self._findings))
            raise DataError(findings=[limit, *told])
        console.warn(f"{self.count} of {total} rows skipped, the first: {self._findings[0]}")
