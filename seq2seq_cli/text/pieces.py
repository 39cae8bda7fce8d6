"""Tokens of a vocabulary in a form to be read."""

from __future__ import annotations

from functools import cache


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
