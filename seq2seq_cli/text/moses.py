"""Moses' words (Koehn et al. 2007) as XLM and Transformer-XL were trained on them.

sacremoses has the rules, the tables of Unicode properties and the lists of abbreviations; the published
tokenizers are defined by it. It is imported where it is used: no other family pays for that.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence

from seq2seq_cli.errors import DataError

#: Moses' replace-unicode-punctuation: one character for another. A full stop takes the space after it along.
_PUNCTUATION = str.maketrans(
    dict(zip("，、”“∶：？《》）！（；」「～’━〈〉【】％", ',,""::?"")!(;""~\'-<>[]%', strict=True))
    | {"…": "..."}
    | {chr(ord("０") + digit): str(digit) for digit in range(10)}
)
_WIDE_FULL_STOP = re.compile(r"[。．]\s*")
#: Romanian of WMT16: the cedilla written for the comma, then no diacritics.
_ROMANIAN = str.maketrans("ŞşŢţȘșȚțĂăÂâÎî", "SsTtSsTtAaAaIi")


def tokenizer(
    language: str, *, split_hyphens: bool = False, protected: Sequence[str] = ()
) -> Callable[[str], list[str]]:
    """What cuts a text into Moses' words. With ``split_hyphens`` as for WikiText-103: punctuation is
    normalised first, ``a-b`` becomes ``a @-@ b``, ``1.5`` becomes ``1 @.@ 5``; words that match a
    ``protected`` pattern stay whole."""
    from sacremoses import MosesPunctNormalizer, MosesTokenizer

    moses = MosesTokenizer(lang=language)
    if not split_hyphens:
        return lambda text: list(moses.tokenize(text, return_str=False, escape=False))
    normalizer = MosesPunctNormalizer(lang=language)
    sign = re.compile(r"(?<=\d)[,.](?=\d)")

    def words(text: str) -> list[str]:
        try:
            whole = moses.tokenize(
                normalizer.normalize(text),
                aggressive_dash_splits=True,
                return_str=False,
                escape=False,
                protected_patterns=list(protected),
            )
        except ValueError as error:  # its limit, of a thousand protected words
            raise DataError(f"a text cannot be cut into words: {error}") from None
        return [word for part in whole for word in sign.sub(r" @\g<0>@ ", part).split()]

    return words


def detokenizer(language: str) -> Callable[[Sequence[str]], str]:
    """What joins Moses' words to a text."""
    from sacremoses import MosesDetokenizer

    moses = MosesDetokenizer(lang=language)
    return lambda words: str(moses.detokenize(list(words)))


def number_signs(text: str) -> str:
    """``5 @,@ 000`` back to ``5,000``."""
    return text.replace(" @,@ ", ",").replace(" @.@ ", ".")


def printable(text: str, language: str) -> str:
    """A text with ASCII punctuation as far as there is one, and without control characters (XLM)."""
    text = _WIDE_FULL_STOP.sub(". ", text).translate(_PUNCTUATION)
    text = _punctuation(language)(text)
    text = "".join(letter for letter in text if unicodedata.category(letter)[0] != "C")
    return text.translate(_ROMANIAN) if language == "ro" else text


def _punctuation(language: str) -> Callable[[str], str]:
    from sacremoses import MosesPunctNormalizer

    normalizer = MosesPunctNormalizer(lang=language)
    return lambda text: str(normalizer.normalize(text))


def lower_without_accents(words: list[str]) -> list[str]:
    """Lower case, decomposed, without combining marks; a word of nothing but marks is gone (XLM)."""
    text = unicodedata.normalize("NFD", " ".join(words).lower())
    text = "".join(letter for letter in text if unicodedata.category(letter) != "Mn")
    return [word for word in text.lower().split(" ") if word]
