"""One side of a pair: where it comes from, its config with the settings for it, its stack."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from seq2seq_cli.checkpoint.bundle import TARGET_TOKENIZER
from seq2seq_cli.checkpoint.files import read_config
from seq2seq_cli.checkpoint.halves import is_encoder_decoder, open_half
from seq2seq_cli.checkpoint.loading import build_stack, stack_config, stored_layers
from seq2seq_cli.checkpoint.references import resolve
from seq2seq_cli.checkpoint.report import LoadReport
from seq2seq_cli.checkpoint.strict_json import shown
from seq2seq_cli.errors import CheckpointError, Finding, UsageError, nearest
from seq2seq_cli.families import Family, Role, family_named, family_of
from seq2seq_cli.model import Stack
from seq2seq_cli.text.tokenizer import Tokenizer

#: settings of the combined model itself: never split into a prefix and a key of one side
RESERVED = ("decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id")
#: keys of a published config.json that describe the file, not the model
_FILE_KEYS = ("architectures", "_name_or_path", "transformers_version", "torch_dtype", "dtype", "auto_map")


@dataclass(frozen=True, kw_only=True)
class Side:
    """Where one half comes from: a checkpoint (``reference``), or ``family`` and ``config`` from scratch.

    ``random``: the checkpoint's architecture and tokenizer, fresh weights. ``tokenizer`` replaces the
    folder's. ``settings`` override the side's config.json, by its own keys.
    """

    reference: str | None = None
    family: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: Tokenizer | None = None
    random: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A side that was found: ``weights`` None = everything fresh. ``own`` is the folder's config.json before
    anything was set (None: there is no folder), ``typed`` what the settings were called by who gave them."""

    family: Family
    config: dict[str, Any]
    own: Mapping[str, Any] | None
    typed: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, Tensor] | None
    tokenizer: Tokenizer | None
    where: str
    origin: str


def open_side(side: Side, name: str) -> Opened:
    """Find what ``side`` names; ``name`` is encoder or decoder."""
    if side.family is not None:
        family = family_named(side.family)
        config: dict[str, Any] = {"model_type": family.name, **family.options}
        if side.tokenizer is not None:
            config |= _ids_of(side.tokenizer) | {"vocab_size": side.tokenizer.vocab_size}
        config |= _checked(side.config, family, f"{name} config")
        half = Opened(
            family=family,
            config=config,
            own=None,
            weights=None,
            tokenizer=side.tokenizer,
            where=f"{name} config",
            origin=f"{family.name} from scratch",
        )
        return with_settings(half, side.settings)
    if side.reference is None:
        raise UsageError(f"the {name} names neither a checkpoint nor a family")
    folder = resolve(side.reference).folder
    found = open_half(folder, name, with_weights=not side.random)
    family = family_of(found.config, where=found.where)
    target = name == "decoder" and is_encoder_decoder(read_config(folder))
    tokenizer = side.tokenizer or (Tokenizer.from_folder(folder / TARGET_TOKENIZER) if target else None)
    own = {key: value for key, value in found.config.items() if key not in _FILE_KEYS}
    config = dict(own)
    if side.random and side.tokenizer is not None:
        config |= _ids_of(side.tokenizer) | {"vocab_size": side.tokenizer.vocab_size}
    half = Opened(
        family=family,
        config={**family.options, **config},
        own=own,
        weights=None if side.random else found.weights,
        tokenizer=tokenizer or Tokenizer.from_folder(folder),
        where=found.where,
        origin=side.reference + (" (random weights)" if side.random else ""),
    )
    return with_settings(half, side.settings)


def with_settings(
    half: Opened, settings: Mapping[str, Any], typed: Mapping[str, str] | None = None
) -> Opened:
    """The side with some of its config.json overridden; ``typed`` is what the keys were called, where that
    is not their own name. UsageError for a key that its family lacks."""
    checked = _checked(settings, half.family, half.family.name)
    names = {key: (typed or {}).get(key, key) for key in settings}
    return replace(half, config={**half.config, **checked}, typed={**half.typed, **names})


def build(
    half: Opened, role: Role, *, may_be_fresh: Callable[[str], bool], generator: torch.Generator
) -> tuple[Stack, LoadReport]:
    """A side as a stack that its tokenizer fits, with the weights it has.

    CheckpointError for a folder that does not do; UsageError where its own config.json would, and a setting
    is to blame, or where there is no folder.
    """
    given, stored = half.own is None, None
    if half.own is not None and half.typed:
        with suppress(CheckpointError):  # what is set may be what mends it
            stored = stored_layers(stack_config(half.family, half.own, role, where=half.where))
            given = True
    try:
        config = stack_config(half.family, half.config, role, where=half.where)
    except CheckpointError as error:
        if not given:
            raise
        raise UsageError(findings=[_blamed(finding, half) for finding in error.findings]) from None
    stack, report = build_stack(
        half.family,
        config,
        half.weights,
        published=half.config,
        where=half.where,
        may_be_fresh=may_be_fresh,
        layers=stored,
        generator=generator,
    )
    if half.tokenizer is not None:
        half.tokenizer.check_fits(stack.config.vocab_size)
    return stack, report


def _blamed(finding: Finding, half: Opened) -> Finding:
    """The finding with the settings that it is about in place of the folder's file."""
    about = [key for key in half.typed if re.search(rf"(?<!\w){re.escape(key)}(?!\w)", finding.what)]
    named = ", ".join(f"{half.typed[key]}={shown(half.config[key])}" for key in about or half.typed)
    return replace(finding, where=named or half.where)


def _checked(settings: Mapping[str, Any], family: Family, where: str) -> Mapping[str, Any]:
    if unknown := family.unknown(settings, lambda _: where):
        raise UsageError(findings=unknown)
    return settings


def _ids_of(tokenizer: Tokenizer) -> dict[str, Any]:
    """The ids that a tokenizer has, as config.json names them."""
    ids = {
        "pad_token_id": tokenizer.pad_id,
        "bos_token_id": first(tokenizer.bos_id, tokenizer.cls_id),
        "eos_token_id": first(tokenizer.eos_id, tokenizer.sep_id),
    }
    return {key: value for key, value in ids.items() if value is not None}


def split_settings(
    settings: Mapping[str, Any], encoder: Family, decoder: Family
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Settings of the encoder, of the decoder and of the combined model, by the prefix rule."""
    sides: dict[str, dict[str, Any]] = {"encoder": {}, "decoder": {}}
    own: dict[str, Any] = {}
    findings = []
    for key, value in settings.items():
        if key in RESERVED:
            own[key] = value
            continue
        prefix, _, rest = key.partition("_")
        targets = {prefix: rest} if prefix in sides else {"encoder": key, "decoder": key}
        for side, option in targets.items():
            family = encoder if side == "encoder" else decoder
            if option in family.options:
                sides[side][option] = value
            elif len(targets) == 2 and option in (decoder if side == "encoder" else encoder).options:
                other = "decoder" if side == "encoder" else "encoder"
                findings.append(
                    Finding(
                        f"{key!r} goes to both sides, but {family.name} has no such option",
                        remedy=f"write {other}_{key} to set it for the {other} only",
                    )
                )
            else:
                known = [*(f"{side}_{name}" for name in family.options), *RESERVED]
                findings.append(Finding(f"unknown setting {key!r}", remedy=nearest(key, known)))
                break
    if findings:
        raise UsageError(findings=findings)
    return sides["encoder"], sides["decoder"], own


def first(*values: int | None) -> int | None:
    """The first that is known."""
    return next((value for value in values if value is not None), None)
