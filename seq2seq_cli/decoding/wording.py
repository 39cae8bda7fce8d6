"""Options that are texts become token ids: the one place where that happens."""

from __future__ import annotations

from dataclasses import replace

from seq2seq_cli.decoding.grammar import Language
from seq2seq_cli.decoding.options import Decoding, Wording
from seq2seq_cli.decoding.stop import Stop
from seq2seq_cli.errors import UsageError
from seq2seq_cli.text.tokenizer import Tokenizer


def spell(decoding: Decoding, tokenizer: Tokenizer) -> Decoding:
    """The same options with their texts spelled in the target's tokens. UsageError for a text without any."""
    wording = decoding.wording
    bad = [ids for word in wording.bad_words for ids in forms(word, tokenizer, "bad_words")]
    bias = [(ids, x) for word, x in wording.sequence_bias for ids in forms(word, tokenizer, "sequence_bias")]
    forced = [
        tuple(ids for phrase in phrases for ids in forms(phrase, tokenizer, "force_words"))
        for phrases in wording.force_words
    ]
    if () in forced:
        phrase = "|".join(wording.force_words[forced.index(())])
        raise UsageError(f"force_words: {phrase} cannot be spelled in the target's tokens")
    return replace(
        decoding,
        force_words_ids=(*decoding.force_words_ids, *forced),
        bad_words_ids=(*decoding.bad_words_ids, *bad),
        sequence_bias=(*decoding.sequence_bias, *bias),
        prefix_ids=opening(wording.prefix, tokenizer) if wording.prefix else decoding.prefix_ids,
        stop=Stop(wording.stop, tokenizer.spellings) if wording.stop else decoding.stop,
        language=Language(wording.grammar, tokenizer, decoding.eos) if wording.grammar else decoding.language,
        wording=Wording(),
    )


def forms(word: str, tokenizer: Tokenizer, option: str) -> list[tuple[int, ...]]:
    """The ids of a word at the start of a text and behind a space; those that the vocabulary cannot spell,
    and therefore nobody can write, are left out."""
    found = dict.fromkeys(map(tuple, tokenizer.encode([word, f" {word}"], special=False)))
    if not any(found):
        raise UsageError(f"{option}: {word!r} gives no token", remedy="leave it out")
    return [ids for ids in found if ids and tokenizer.unk_id not in ids]


def opening(text: str, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The ids of a text that outputs begin with."""
    (ids,) = tokenizer.encode([text], special=False)
    if not ids:
        raise UsageError(f"prefix: {text!r} gives no token", remedy="leave it out")
    return tuple(ids)


def refuse_unspelled(decoding: Decoding) -> None:
    """UsageError when texts are left that only a tokenizer could make ids of."""
    names = decoding.wording.names()
    if names:
        raise UsageError(
            f"{', '.join(names)}: texts need the target's tokenizer",
            remedy="give generate_ids tokenizer=pair.target_tokenizer, or use pair.generate",
        )
