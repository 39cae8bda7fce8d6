"""Summaries of documents of any length: what is too long for the model is split, summarised and joined."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal

from seq2seq_cli.errors import DataError, Finding

Long = Literal["split", "truncate", "error"]
#: behind a sentence's end mark (with its quotes or brackets), at white space; CJK marks need no space
_SENTENCE_END = re.compile(r"(?<=[.!?…][\"')\]»”’])\s+|(?<=[.!?…])\s+|(?<=[。！？])\s*")


def sentences(text: str) -> list[str]:
    """The sentences of a text, by end marks and white space (it knows no abbreviations)."""
    parts = (part.strip() for part in _SENTENCE_END.split(text))
    return [part for part in parts if part]


def pieces(text: str, *, length: Callable[[str], int], limit: int) -> list[str]:
    """``text`` in pieces of at most ``limit`` tokens (as ``length`` counts them), cut at sentence ends; a
    longer sentence is cut between words, a longer word anywhere."""
    units = [unit for sentence in sentences(text) for unit in _fitting(sentence, length=length, limit=limit)]
    packed: list[str] = []
    size = 0
    for unit in units:
        tokens = length(unit)
        if packed and size + tokens <= limit:
            packed[-1] += " " + unit
            size += tokens
        else:
            packed.append(unit)
            size = tokens
    return packed


def _fitting(text: str, *, length: Callable[[str], int], limit: int) -> list[str]:
    """Halves, and halves of these, until each fits."""
    if length(text) <= limit or len(text) < 2:
        return [text]
    words = text.split()
    joint = " " if len(words) > 1 else ""
    parts: Sequence[str] = words if joint else text
    middle = len(parts) // 2
    halves = (joint.join(parts[:middle]), joint.join(parts[middle:]))
    return [unit for half in halves for unit in _fitting(half, length=length, limit=limit)]


def summarize(
    documents: Sequence[str],
    *,
    write: Callable[[list[str]], list[str]],
    length: Callable[[str], int],
    limit: int,
    long: Long,
    places: Sequence[str] | None = None,
) -> list[str]:
    """A summary of each document, in order.

    write: summaries of a list of sources, each at most ``limit`` tokens long as ``length`` counts them.
    places: what the documents are called in messages.
    A longer document is split into pieces at sentence ends; the summaries of the pieces are joined, and
    summarised again while they are too long and still getting shorter. DataError under long="error".
    """
    texts = [" ".join(document.split()) for document in documents]
    if long == "error":
        sizes = list(map(length, texts))
        findings = [
            Finding(
                f"a document of {tokens} tokens is longer than the {limit} that the model takes",
                places[number] if places else f"document {number + 1}",
                "use --long split or --long truncate",
            )
            for number, tokens in enumerate(sizes)
            if tokens > limit
        ]
        if findings:
            raise DataError(findings=findings)
    waiting = {number for number, text in enumerate(texts) if long == "split" and length(text) > limit}
    while waiting:
        order = sorted(waiting)
        parts = {number: pieces(texts[number], length=length, limit=limit) for number in order}
        written = iter(write([piece for number in order for piece in parts[number]]))
        for number in order:
            joined = " ".join(next(written) for _ in parts[number])
            shorter = length(joined) < length(texts[number])
            texts[number] = joined
            if not shorter or length(joined) <= limit:
                waiting.discard(number)
    return write(texts)
