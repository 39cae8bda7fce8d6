"""Two halves become one encoder-decoder: what is read, what is fresh, which ids begin and end a target.

(Not named ``combine``, because that is the public function of the package.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from seq2seq_cli import __version__
from seq2seq_cli.checkpoint.bundle import TARGET_TOKENIZER, Bundle, is_pair, join, open_half
from seq2seq_cli.checkpoint.files import read_config
from seq2seq_cli.checkpoint.loading import build_stack, stack_config
from seq2seq_cli.checkpoint.references import resolve
from seq2seq_cli.checkpoint.report import LoadReport
from seq2seq_cli.checkpoint.saving import id_settings
from seq2seq_cli.errors import CheckpointError, Finding, UsageError, nearest
from seq2seq_cli.families import FAMILIES, Family, family_of
from seq2seq_cli.model import Share as Share
from seq2seq_cli.model import SpecialIds, Stack
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
class _Opened:
    family: Family
    config: dict[str, Any]
    weights: Mapping[str, Tensor] | None
    tokenizer: Tokenizer | None
    where: str
    origin: str


def combine(
    encoder: Side,
    decoder: Side,
    *,
    settings: Mapping[str, Any] | None = None,
    share: Share = "none",
    seed: int = 0,
) -> Bundle:
    """Build an encoder-decoder in memory.

    settings: ``encoder_KEY``, ``decoder_KEY`` and bare ``KEY`` (both sides) override configuration; the
    names in ``RESERVED`` set the combined model's own ids. UsageError for unknown keys, for sharing that
    does not fit, and when no start, pad or eos id can be found; CheckpointError for unusable folders.
    """
    opened = [_open(side, name) for side, name in ((encoder, "encoder"), (decoder, "decoder"))]
    per_side = split_settings(settings or {}, opened[0].family, opened[1].family)
    opened = [_with(half, extra) for half, extra in zip(opened, per_side[:2], strict=True)]
    stacks, reports = [], []
    for number, (half, role) in enumerate(zip(opened, ("encoder", "cross_decoder"), strict=True)):
        stack, report = build_stack(
            half.family,
            stack_config(half.family, half.config, role, where=half.where),  # type: ignore[arg-type]
            half.weights,
            published=half.config,
            where=half.where,
            may_be_fresh=_may_be_fresh,
            generator=torch.Generator().manual_seed(3 * seed + number),
        )
        _check_vocabulary(stack, half)
        stacks.append(stack)
        reports.append(report)
    _check_share(share, opened, stacks)
    model, joined = join(*stacks, share=share, generator=torch.Generator().manual_seed(3 * seed + 2))
    report = reports[0].prefixed("encoder") + reports[1].prefixed("decoder") + joined
    if share != "none":
        kept = {name for name, _ in model.named_parameters()}
        report = LoadReport(
            loaded={n: size for n, size in report.loaded.items() if n in kept or "head.weight" in n},
            fresh={n: size for n, size in report.fresh.items() if n in kept},
            unused=report.unused,
        )
    ids = _special_ids(per_side[2], opened[1], stacks[1].config.vocab_size)
    model.special_ids = ids
    return Bundle(
        model=model,
        config=_config(opened, ids, report, share=share, seed=seed),
        source_tokenizer=opened[0].tokenizer,
        target_tokenizer=opened[1].tokenizer,
        report=report,
        reference=f"{opened[0].origin} → {opened[1].origin}",
    )


def _may_be_fresh(name: str) -> bool:
    """What a pre-trained checkpoint need not bring: cross-attention, and a head if it is a bare encoder."""
    return ".cross_attention." in name or ".cross_norm." in name or name.startswith("head.")


def _open(side: Side, name: str) -> _Opened:
    if side.family is not None:
        if side.family not in FAMILIES:
            raise UsageError(f"unknown family {side.family!r}", remedy=nearest(side.family, FAMILIES))
        family = FAMILIES[side.family]
        config: dict[str, Any] = {"model_type": family.name, **family.options}
        if side.tokenizer is not None:
            config |= _ids_of(side.tokenizer) | {"vocab_size": side.tokenizer.vocab_size}
        config |= _checked(side.config, family, f"{name} config")
        half = _Opened(
            family=family,
            config=config,
            weights=None,
            tokenizer=side.tokenizer,
            where=f"{name} config",
            origin=f"{family.name} from scratch",
        )
        return _with(half, side.settings)
    if side.reference is None:
        raise UsageError(f"the {name} names neither a checkpoint nor a family")
    folder = resolve(side.reference).folder
    found = open_half(folder, name, with_weights=not side.random)
    family = family_of(found.config, where=found.where)
    target = name == "decoder" and is_pair(read_config(folder))
    tokenizer = side.tokenizer or (Tokenizer.from_folder(folder / TARGET_TOKENIZER) if target else None)
    config = {key: value for key, value in found.config.items() if key not in _FILE_KEYS}
    if side.random and side.tokenizer is not None:
        config |= _ids_of(side.tokenizer) | {"vocab_size": side.tokenizer.vocab_size}
    half = _Opened(
        family=family,
        config={**family.options, **config},
        weights=None if side.random else found.weights,
        tokenizer=tokenizer or Tokenizer.from_folder(folder),
        where=found.where,
        origin=side.reference + (" (random weights)" if side.random else ""),
    )
    return _with(half, side.settings)


def _with(half: _Opened, settings: Mapping[str, Any]) -> _Opened:
    return replace(half, config={**half.config, **_checked(settings, half.family, half.family.name)})


def _checked(settings: Mapping[str, Any], family: Family, where: str) -> Mapping[str, Any]:
    unknown = [key for key in settings if key not in family.options]
    if unknown:
        raise UsageError(
            findings=[
                Finding(f"{key!r} is not an option of {family.name}", where, nearest(key, family.options))
                for key in unknown
            ]
        )
    return settings


def _ids_of(tokenizer: Tokenizer) -> dict[str, Any]:
    """The ids that a tokenizer has, as config.json names them."""
    ids = {
        "pad_token_id": tokenizer.pad_id,
        "bos_token_id": _first(tokenizer.bos_id, tokenizer.cls_id),
        "eos_token_id": _first(tokenizer.eos_id, tokenizer.sep_id),
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


def _check_vocabulary(stack: Stack, half: _Opened) -> None:
    if half.tokenizer is not None and half.tokenizer.vocab_size > stack.config.vocab_size:
        raise CheckpointError(
            f"the tokenizer has {half.tokenizer.vocab_size} entries, the model {stack.config.vocab_size}",
            where=half.where,
            remedy="use the checkpoint's own tokenizer, or fresh weights with its vocab_size",
        )


def _check_share(share: Share, opened: Sequence[_Opened], stacks: Sequence[Stack]) -> None:
    """Refuse sharing between sides whose parameters do not mean the same."""
    if share == "none":
        return
    encoder, decoder = (stack.config for stack in stacks)
    tokenizers = [half.tokenizer.fingerprint for half in opened if half.tokenizer is not None]
    if (encoder.vocab_size, encoder.hidden_size) != (decoder.vocab_size, decoder.hidden_size):
        raise UsageError(
            f"--share {share}: the embeddings differ in size ({encoder.vocab_size}×{encoder.hidden_size} and "
            f"{decoder.vocab_size}×{decoder.hidden_size})",
            remedy="use --share none",
        )
    if len(set(tokenizers)) > 1:
        raise UsageError(f"--share {share}: the two tokenizers differ", remedy="use --share none")
    bodies = {
        replace(config, causal=False, cross_attention=False, cross_attention_size=None, head=None)
        for config in (encoder, decoder)
    }
    if share == "all" and (len(bodies) > 1 or opened[0].origin != opened[1].origin):
        raise UsageError(
            "--share all needs the same checkpoint and settings on both sides",
            remedy="name one checkpoint, or use --share embeddings",
        )


def _special_ids(own: Mapping[str, Any], decoder: _Opened, vocab_size: int) -> SpecialIds:
    """Start, eos, pad and bos of the pair: as set, else the decoder's config, else its tokenizer.

    A decoder without a bos starts from its cls, or failing that from eos (GPT-2's one token does both);
    without a pad it is padded with eos, which is harmless because masks come from lengths.
    """
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
        return _first(*(getattr(tokenizer, name) for name in names)) if tokenizer is not None else None

    eos = _first(given("eos_token_id"), from_tokenizer("eos_id", "sep_id"))
    bos = _first(given("bos_token_id"), from_tokenizer("bos_id", "cls_id"))
    start = _first(given("decoder_start_token_id"), bos)
    pad = _first(given("pad_token_id"), from_tokenizer("pad_id"), eos)
    missing = [
        Finding(
            f"no {name} is known for the decoder ({decoder.origin})",
            remedy=f"give it with --set {name}=ID",
        )
        for name, value in (("decoder_start_token_id", start), ("eos_token_id", eos), ("pad_token_id", pad))
        if value is None
    ]
    if missing or eos is None:
        raise UsageError(findings=missing)
    return SpecialIds(start=start, eos=(eos,), pad=pad, bos=bos)


def _same_tokenizer(source: Tokenizer | None, target: Tokenizer | None) -> bool:
    if source is None or target is None:
        return source is target
    return source.fingerprint == target.fingerprint


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


def _config(
    opened: Sequence[_Opened], ids: SpecialIds, report: LoadReport, *, share: Share, seed: int
) -> dict[str, Any]:
    encoder, decoder = opened
    ours = {
        "version": __version__,
        "encoder": encoder.origin,
        "decoder": decoder.origin,
        "share": share,
        "seed": seed,
        "same_tokenizer": _same_tokenizer(encoder.tokenizer, decoder.tokenizer),
        "trained": False,
        "fresh": sorted(report.fresh),
    }
    config: dict[str, Any] = {
        "model_type": "encoder-decoder",
        "architectures": ["EncoderDecoderModel"],
        "is_encoder_decoder": True,
        "dtype": "float32",
        "encoder": {**encoder.config, "is_decoder": False, "add_cross_attention": False},
        "decoder": {**decoder.config, "is_decoder": True, "add_cross_attention": True},
        "s2s": ours,
        **id_settings(ids),
    }
    if share == "all":
        config["tie_encoder_decoder"] = True
    return config
