"""How much a folder's own rules can lengthen a text: bounded from tokenizer.json, before any text is read.

The library runs replacements without a limit on memory, and ends the process when that runs out. So every
step is given the most by which it multiplies a text and the most that it adds, and a pipeline whose steps
make too much of it together is refused.

A character counts as many bytes as it has in its longest normal form. Then Unicode's own rules (NFKD makes
33 bytes of the 3 of U+FDFA), which pipelines may repeat as they like, never make a text longer.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import normalizers

from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.text.backends import rust_errors

#: ten times what published pipelines reach
MOST_GROWTH = 128.0
#: far above any published pipeline or template
_MOST_STEPS, _MOST_PIECES = 256, 32
#: what Unicode's own rules make of a character, at most: U+FDFA
_LONGEST_FORM = 33
#: characters of one or two bytes
_SHORT_CHARACTERS = 0x800
_INSIDE = ("normalizers", "pretokenizers", "decoders", "processors")
#: one character or class, repeated at least once: a pattern that matches no empty text
_NEVER_EMPTY = re.compile(r"(\[\^?[^\[\]\\]+\]|\\?[^\\()|*?+{}\[\]^$])(\+|\{[1-9]\d*,?\d*\})?")


def check_growth(published: Mapping[str, Any], file: Path) -> None:
    """CheckpointError where the rules of a tokenizer.json can make far too much of a text.

    What is not as the library wants it is left for the library to refuse.
    """
    growths = [_affine(_steps(published.get(name), file), file) for name in ("decoder", "normalizer")]
    for growth, name in zip(growths, ("decoder", "normalizer"), strict=True):
        _refuse_above(growth, name, file)
    growth = growths[1]
    for step in _steps(published.get("pre_tokenizer"), file):
        growth *= _of_split(step)
    _refuse_above(growth, "pre_tokenizer", file)
    for step in _steps(published.get("post_processor"), file):
        pieces = [step.get("single"), step.get("pair")]
        special = step.get("special_tokens")
        if isinstance(special, dict):
            pieces += [each.get("ids") for each in special.values() if isinstance(each, dict)]
        if any(isinstance(each, list) and len(each) > _MOST_PIECES for each in pieces):
            raise CheckpointError(f"a template of more than {_MOST_PIECES} pieces", where=str(file))


def check_charsmap(charsmap: bytes, file: Path) -> float:
    """The growth by SentencePiece's compiled rules of normalisation, in characters' longest forms.

    CheckpointError where it is far too much: the rules' texts stand in them one after the other, with a zero
    behind each.
    """
    texts = charsmap[4 + int.from_bytes(charsmap[:4], "little") :]
    longest = max(map(len, texts.split(b"\0")), default=0)
    _refuse_above(longest / _LONGEST_FORM, "compiled rules of normalisation", file)
    with rust_errors(file, "the compiled rules of normalisation are not accepted"):
        rules = normalizers.Precompiled(charsmap)
        short = max(
            len(rules.normalize_str(letter).encode("utf-8")) / _weight(letter)
            for letter in map(chr, range(1, _SHORT_CHARACTERS))
        )
    growth = max(1.0, short, longest / _LONGEST_FORM)
    _refuse_above(growth, "compiled rules of normalisation", file)
    return growth


def _refuse_above(growth: float, name: str, file: Path) -> None:
    if not growth <= MOST_GROWTH:
        raise CheckpointError(
            f"its {name} can make a text {growth:.3g} times as long, and we accept {MOST_GROWTH:.0f}",
            where=str(file),
            remedy="do not use this tokenizer",
        )


def _steps(step: object, file: Path) -> Iterator[Mapping[str, Any]]:
    """The steps of a pipeline in their order, whatever they are nested in."""
    waiting, count = [step], 0
    while waiting:
        step = waiting.pop()
        if not isinstance(step, dict):
            continue
        count += 1
        if count > _MOST_STEPS:
            raise CheckpointError(f"a pipeline of more than {_MOST_STEPS} steps", where=str(file))
        yield step
        for key in _INSIDE:
            inside = step.get(key)
            waiting += reversed(inside) if isinstance(inside, list) else []


def _affine(steps: Iterator[Mapping[str, Any]], file: Path) -> float:
    """How many times as long the steps make a text of one byte, together."""
    times, more, compiled = 1.0, 0.0, 0
    for step in steps:
        factor, added = 1.0, 0.0
        if "content" in step and "pattern" in step:
            factor = _of_replace(step["pattern"], step["content"])
        elif "prepend" in step:
            added = _size(step["prepend"])
        elif isinstance(step.get("precompiled_charsmap"), str):
            factor = _of_compiled(step["precompiled_charsmap"], file)
            factor *= _LONGEST_FORM if compiled else 1  # on what the first has made, it may begin anew
            compiled += 1
        elif step.get("type") == "ByteLevel":
            factor = max(map(_weight, _BYTES))
        elif step.get("handle_chinese_chars"):
            factor = 5 / 3  # a space on either side of three bytes
        times, more = times * factor, more * factor + added
        if times + more > MOST_GROWTH:
            break
    return times + more


def _of_replace(pattern: object, content: object) -> float:
    size = _size(content)
    if isinstance(pattern, dict):
        text, expression = pattern.get("String"), pattern.get("Regex")
        if isinstance(text, str) and text:
            return max(1.0, size / len(text.encode("utf-8", "replace")))
        if isinstance(expression, str) and _NEVER_EMPTY.fullmatch(expression):
            return max(1.0, size)
    return 1.0 + size  # between all bytes


def _of_compiled(encoded: str, file: Path) -> float:
    try:
        return check_charsmap(base64.b64decode(encoded, validate=True), file)
    except binascii.Error:
        return 1.0  # the library refuses it


def _of_split(step: Mapping[str, Any]) -> float:
    """Of a step that splits a text; what it puts in front stands in front of every part."""
    if "replacement" in step:
        return 2.0 * max(1, len(str(step["replacement"]).encode("utf-8", "replace")))
    if step.get("type") == "ByteLevel" or "use_regex" in step:
        return 4.0 if step.get("add_prefix_space", True) else 2.0
    return 1.0


def _size(text: object) -> float:
    return float(sum(map(_weight, text))) if isinstance(text, str) else 0.0


@cache
def _weight(letter: str) -> int:
    """The bytes of a character in its longest normal form."""
    forms = {
        form for each in (letter, letter.lower()) for form in (each, unicodedata.normalize("NFKD", each))
    }
    return max(len(form.encode("utf-8", "replace")) for form in forms)


#: the characters that stand for bytes, which are all below this (Radford et al. 2019)
_BYTES = [chr(number) for number in range(0x144)]
