"""Tokens of a vocabulary in a form to be read, and texts before and after they are tokens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from seq2seq_cli.errors import DataError


@cache
def _octets() -> dict[str, int]:
    """The letter that stands for each byte in vocabularies over bytes (Radford et al. 2019): itself where it
    can be seen, else the next one from U+0100 on."""
    seen = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    unseen = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(256 + n): byte for n, byte in enumerate(unseen)}


def of_bytes(token: str) -> str:
    r"""The text of a token over bytes; bytes that make no whole letter are written ``\xe2``."""
    octets = _octets()
    if any(letter not in octets for letter in token):
        return token
    return bytes(octets[letter] for letter in token).decode("utf-8", "backslashreplace")


def of_signs(token: str) -> str:
    """The text of a token whose vocabulary marks the space before a word, or the end of one, by a sign."""
    if token.endswith("</w>"):
        token = token.removesuffix("</w>") + " "
    return token.replace("▁", " ")


def check_unicode(texts: Sequence[str]) -> None:
    """DataError for a text that is not valid Unicode (a lone surrogate)."""
    for number, text in enumerate(texts, 1):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(
                f"text {number} has a lone surrogate (U+{ord(text[error.start]):04X})",
                where=f"character {error.start + 1}",
                remedy="replace it by U+FFFD",
            ) from None


#: The published clean-up after decoding: a space before these is dropped, in this order.
_GLUED = ((" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"))
_CONTRACTIONS = ("n't", "'m", "'s", "'ve", "'re")


def clean_up(text: str) -> str:
    """The clean-up that some tokenizers were published with."""
    for spaced, glued in (*_GLUED, *((f" {c}", c) for c in _CONTRACTIONS)):
        text = text.replace(spaced, glued)
    return text
