"""Which ids begin, end and pad a target: as set, as published, or as new tokens where there are none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from seq2seq_cli import console
from seq2seq_cli.combiner.sides import Opened, first
from seq2seq_cli.errors import Finding, UsageError
from seq2seq_cli.model import SpecialIds, Stack
from seq2seq_cli.model.resize import add_tokens

#: what a new token is called, by its name in tokenizer_config.json
_SPELT = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}


@dataclass(frozen=True, kw_only=True)
class _Known:
    """What is known before tokens are added; None where nothing is."""

    start: int | None
    eos: int | None
    pad: int | None
    bos: int | None


def special_ids(
    own: Mapping[str, Any], decoder: Opened, stack: Stack, *, generator: torch.Generator | None = None
) -> tuple[SpecialIds, Opened, dict[str, int]]:
    """Start, eos, pad and bos of the pair; the decoder's side as it is then; fresh values by parameter.

    As set, else the decoder's config, else its tokenizer. A decoder without a bos starts from its cls, or
    where the family has an eos only, from that; without a pad it is padded with eos, which is harmless
    because masks come from lengths. A family that was published without any of them gets rows for them at
    the end of its vocabulary, in ``stack`` and in its tokenizer. UsageError when an id stays unknown.
    """
    known = _known(own, decoder, stack.config.vocab_size)
    fresh: dict[str, int] = {}
    if decoder.family.lacks_special_tokens and None in (known.start, known.eos, known.pad):
        known, decoder, fresh = _with_new_tokens(known, decoder, stack, generator)
    named = (
        ("decoder_start_token_id", known.start),
        ("eos_token_id", known.eos),
        ("pad_token_id", known.pad),
    )
    missing = [
        Finding(
            f"no {name} is known for the decoder ({decoder.origin})", remedy=f"give it with --set {name}=ID"
        )
        for name, value in named
        if value is None
    ]
    if missing or known.eos is None:
        raise UsageError(findings=missing)
    ids = SpecialIds(start=known.start, eos=(known.eos,), pad=known.pad, bos=known.bos)
    return ids, decoder, fresh


def _known(own: Mapping[str, Any], decoder: Opened, vocab_size: int) -> _Known:
    config, tokenizer = decoder.config, decoder.tokenizer

    def given(key: str) -> int | None:
        value = own.get(key, config.get(key))
        if key in own and (
            not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < vocab_size
        ):
            raise UsageError(f"{key}={value!r} is not an id of the decoder's {vocab_size} tokens")
        if isinstance(value, list):
            value = value[0] if value else None
        return value if isinstance(value, int) and 0 <= value < vocab_size else None

    def from_tokenizer(*names: str) -> int | None:
        return first(*(getattr(tokenizer, name) for name in names)) if tokenizer is not None else None

    published = decoder.family.options
    eos_only = published.get("eos_token_id") is not None and published.get("bos_token_id") is None
    eos = first(given("eos_token_id"), from_tokenizer("eos_id", "sep_id"))
    bos = first(given("bos_token_id"), from_tokenizer("bos_id", "cls_id"))
    pad = first(given("pad_token_id"), from_tokenizer("pad_id"), eos)
    start = first(given("decoder_start_token_id"), bos, eos if eos_only else None)
    return _Known(start=start, eos=eos, pad=pad, bos=bos)


def _with_new_tokens(
    known: _Known, decoder: Opened, stack: Stack, generator: torch.Generator | None
) -> tuple[_Known, Opened, dict[str, int]]:
    """Tokens for what is missing: in the tokenizer where there is one, as rows of the stack where it is too
    short."""
    by_name = {"bos_token": known.start, "eos_token": known.eos, "pad_token": known.pad}
    new = {name: _SPELT[name] for name, value in by_name.items() if value is None}
    tokenizer = decoder.tokenizer
    if tokenizer is not None:
        tokenizer = tokenizer.extended(new)
        ids = {name: getattr(tokenizer, name.replace("token", "id")) for name in new}
    else:
        ids = {name: stack.config.vocab_size + place for place, name in enumerate(new)}
    count = max(0, max(ids.values()) + 1 - stack.config.vocab_size)
    fresh = add_tokens(stack, count, generator=generator) if count else {}
    added = ", ".join(f"{new[name]} = {value}" for name, value in ids.items())
    console.say(f"{decoder.family.name} was published without them, so the decoder gets new tokens: {added}")
    config = {**decoder.config, **{f"{name}_id": value for name, value in ids.items()}}
    config["vocab_size"] = stack.config.vocab_size
    found = _Known(
        start=first(known.start, ids.get("bos_token")),
        eos=first(known.eos, ids.get("eos_token")),
        pad=first(known.pad, ids.get("pad_token")),
        bos=first(known.bos, ids.get("bos_token")),
    )
    return found, replace(decoder, config=config, tokenizer=tokenizer), fresh
