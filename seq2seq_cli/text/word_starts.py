"""Where words begin among the ids of a text, whatever kind of tokenizer made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tokenizers
from tokenizers import AddedToken

from seq2seq_cli.text.words import Words


def of_pipeline(backend: tokenizers.Tokenizer, texts: Sequence[str], *, special: bool) -> list[list[int]]:
    """The ids of each text; a piece that goes on with the word before it as ``~id``.

    A word is what the pre-tokenizer keeps together (for BERT punctuation is a word of its own), and ends at
    white space where there is none, or where it splits nothing.
    """
    found = []
    for text, encoding in zip(
        texts, backend.encode_batch(list(texts), add_special_tokens=special), strict=True
    ):
        ids: list[int] = []
        word_before: int | None = None
        end_before = 0
        for number, word, (start, end) in zip(encoding.ids, encoding.word_ids, encoding.offsets, strict=True):
            goes_on = word is not None and word == word_before
            # the white space may belong to the piece (Metaspace) or lie in front of it (ByteLevel)
            if goes_on and any(sign.isspace() for sign in text[end_before : max(end_before, start) + 1]):
                goes_on = False
            ids.append(~number if goes_on else number)
            word_before, end_before = word, max(end, end_before)
        found.append(ids)
    return found


def of_words(
    words: Words, texts: Sequence[str], added: Mapping[str, tuple[int, AddedToken]]
) -> list[list[int]]:
    """The same over a family's own rule, without its template."""
    return [
        [
            piece if place == 0 else ~piece
            for word in words.spelled(text, added)
            for place, piece in enumerate(word)
        ]
        for text in texts
    ]
