"""Texts become the ids that a model reads, cut where they are longer than it takes."""

from __future__ import annotations

from collections.abc import Sequence

from seq2seq_cli.errors import DataError, Finding
from seq2seq_cli.text.lines import Counts
from seq2seq_cli.text.tokenizer import Tokenizer

#: how many inputs that are too long an error lists
_LISTED = 10


class Reader:
    """Reads sources (``has_source``), whose end is cut off, or prompts, whose beginning is.

    ``limit`` is the most ids that a text may have. ``prefix`` stands before every text. Prompts should begin
    with one of ``control_ids`` where there are any, and keep it when they are cut. ``counts`` learns of texts
    that were cut, and of prompts without such a beginning.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        limit: int,
        has_source: bool,
        truncate: bool,
        prefix: str,
        control_ids: frozenset[int],
        counts: Counts,
    ) -> None:
        self._tokenizer = tokenizer
        self._limit = limit
        self._has_source = has_source
        self._truncate = truncate
        self._prefix = prefix
        self._control_ids = control_ids
        self._counts = counts

    def __call__(self, texts: Sequence[str], places: Sequence[str]) -> list[list[int]]:
        """The ids of each text; none for one that gives no token. DataError that names the ``places`` of
        those that are too long, unless they may be cut."""
        texts = [self._prefix + text for text in texts]
        before, after = map(list, self._tokenizer.template)
        if self._has_source:
            plain = self._tokenizer.encode(texts)
            self._tell_long(plain, self._limit, places)
            kept = self._limit - len(after)
            return [ids if len(ids) <= self._limit else ids[:kept] + after for ids in plain]
        limit = self._limit - len(before)
        plain = self._tokenizer.encode(texts, special=False)
        self._tell_long(plain, limit, places)
        return [before + self._last(ids, limit) if ids else [] for ids in plain]

    def _last(self, ids: list[int], limit: int) -> list[int]:
        """The last ids of a prompt, behind its control code."""
        code = ids[:1] if ids[0] in self._control_ids else []
        self._counts.uncoded += bool(self._control_ids and not code)
        return ids if len(ids) <= limit else code + ids[len(ids) - (limit - len(code)) :]

    def _tell_long(self, plain: list[list[int]], limit: int, places: Sequence[str]) -> None:
        """Count the texts that are too long, or refuse them."""
        long = [number for number, ids in enumerate(plain) if len(ids) > limit]
        if long and not self._truncate:
            told = [_too_long(plain[n], limit, places[n]) for n in long[:_LISTED]]
            more = [Finding(f"and {len(long) - _LISTED} more")] if len(long) > _LISTED else []
            raise DataError(findings=[*told, *more])
        self._counts.truncated += len(long)


def _too_long(ids: list[int], limit: int, place: str) -> Finding:
    return Finding(
        f"an input of {len(ids)} tokens is longer than the {limit} that the model takes",
        place,
        "shorten it, or use --truncation truncate",
    )
