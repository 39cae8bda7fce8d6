"""What each token adds to a text, byte by byte: for looking at outputs while they are written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import tokenizers

if TYPE_CHECKING:
    from seq2seq_cli.text.words import Words

_BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")
#: how the families over words mark a token that ends a word, or one that does not
_ENDS_WORD, _GOES_ON = "</w>", "@@"


def spellings(backend: tokenizers.Tokenizer, words: Words | None, size: int) -> list[bytes]:
    """What each of ``size`` ids adds to a text behind another token, in UTF-8; parts of characters where the
    tokenizer works on bytes. Added tokens are spelled as they are written, ids without a token empty.

    A space between words belongs to the word behind it, but to the one before it where tokens are marked at
    the end of words (GPT, XLM, CTRL).
    """
    tokens = [backend.id_to_token(number) or "" for number in range(size)]
    added = {number: str(token) for number, token in backend.get_added_tokens_decoder().items()}
    steps = list(_decoder_steps(json.loads(backend.to_str()).get("decoder")))
    if words is not None:
        spelled = _of_words(tokens)
    elif any(step["type"] == "ByteLevel" for step in steps):
        characters = _byte_characters()
        spelled = [_of_bytes(token, characters) for token in tokens]
    elif suffix := next((step["suffix"] for step in steps if step["type"] == "BPEDecoder"), ""):
        spelled = [_marked(token, suffix).encode() for token in tokens]
    else:
        spelled = _behind_another(backend, tokens)
    for number, text in added.items():
        if number < size:
            spelled[number] = text.encode()
    return spelled


def _decoder_steps(decoder: Any) -> Iterator[dict[str, Any]]:
    """The steps that a tokenizer.json's decoder is made of."""
    if isinstance(decoder, dict):
        for step in decoder.get("decoders", [decoder]):
            yield from _decoder_steps(step) if "decoders" in step else [step]


def _byte_characters() -> dict[str, int]:
    """The character that stands for each byte in byte-level vocabularies (GPT-2): printable ones for
    themselves, the others from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {**{chr(byte): byte for byte in plain}, **{chr(256 + n): byte for n, byte in enumerate(others)}}


def _of_bytes(token: str, characters: dict[str, int]) -> bytes:
    if all(character in characters for character in token):
        return bytes(characters[character] for character in token)
    return token.encode()


def _of_words(tokens: list[str]) -> list[bytes]:
    """CTRL marks what goes on, XLM what ends, Transformer-XL's tokens are whole words."""
    if any(token.endswith(_GOES_ON) for token in tokens):
        texts = [t.removesuffix(_GOES_ON) if t.endswith(_GOES_ON) else f"{t} " for t in tokens]
    elif any(token.endswith(_ENDS_WORD) for token in tokens):
        texts = [_marked(token, _ENDS_WORD) for token in tokens]
    else:
        texts = [f" {token}" for token in tokens]
    return [text.encode() for text in texts]


def _marked(token: str, suffix: str) -> str:
    return token.removesuffix(suffix) + " " if token.endswith(suffix) else token


def _behind_another(backend: tokenizers.Tokenizer, tokens: list[str]) -> list[bytes]:
    """By decoding each token behind one that is a letter or two."""
    alone = backend.decode_batch([[number] for number in range(len(tokens))], skip_special_tokens=False)
    base = next((n for n, text in enumerate(alone) if text.isalnum() and text == tokens[n].strip("▁")), 0)
    pairs = [[base, number] for number in range(len(tokens))]
    spelled = []
    for token, text in zip(tokens, backend.decode_batch(pairs, skip_special_tokens=False), strict=True):
        if byte := _BYTE.fullmatch(token):
            spelled.append(bytes([int(byte[1], 16)]))
        else:
            spelled.append(text.removeprefix(alone[base]).encode())
    return spelled
