"""Two halves become one encoder-decoder: what is read, what is fresh, which ids begin and end a target.

(Not named ``combine``, because that is the public function of the package.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from seq2seq_cli import __version__
from seq2seq_cli.checkpoint.bundle import Bundle, join
from seq2seq_cli.checkpoint.generation import OLD_GENERATION_KEYS
from seq2seq_cli.checkpoint.report import LoadReport
from seq2seq_cli.checkpoint.saving import id_settings
from seq2seq_cli.combiner.sides import RESERVED, Opened, Side, build, open_side, split_settings, with_settings
from seq2seq_cli.combiner.tokens import special_ids
from seq2seq_cli.errors import UsageError
from seq2seq_cli.model import PrefixModel, Share, SpecialIds, Stack
from seq2seq_cli.model.resize import add_tokens
from seq2seq_cli.text.tokenizer import Tokenizer

__all__ = ["Share", "Side", "combine", "combine_single", "split_settings"]

#: stands in a report behind the name of a parameter that got rows for new tokens
_NEW_ROWS = " (rows of new tokens)"


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
    opened = [open_side(side, name) for side, name in ((encoder, "encoder"), (decoder, "decoder"))]
    per_side = split_settings(settings or {}, opened[0].family, opened[1].family)
    for number, name in enumerate(("encoder", "decoder")):
        typed = {key: f"{name}_{key}" for key in per_side[number] if f"{name}_{key}" in (settings or {})}
        opened[number] = with_settings(opened[number], per_side[number], typed)
    stacks, reports = [], []
    for number, (half, role) in enumerate(zip(opened, ("encoder", "cross_decoder"), strict=True)):
        generator = torch.Generator().manual_seed(3 * seed + number)
        stack, report = build(half, role, may_be_fresh=_may_be_fresh, generator=generator)  # type: ignore[arg-type]
        stacks.append(stack)
        reports.append(report)
    _check_share(share, opened, stacks)
    generator = torch.Generator().manual_seed(3 * seed + 2)
    ids, opened[1], grown = special_ids(per_side[2], opened[1], stacks[1], generator=generator)
    reports[1] += LoadReport(fresh={name + _NEW_ROWS: size for name, size in grown.items()})
    if grown and share != "none":  # both sides have the same vocabulary, so both get the new tokens
        add_tokens(stacks[0], stacks[1].config.vocab_size - stacks[0].config.vocab_size)
        config = {**opened[0].config, "vocab_size": stacks[1].config.vocab_size}
        opened[0] = replace(opened[0], config=config, tokenizer=opened[1].tokenizer)
    model, joined = join(*stacks, share=share, generator=generator)
    report = reports[0].prefixed("encoder") + reports[1].prefixed("decoder") + joined
    if share != "none":
        kept = {name for name, _ in model.named_parameters()}
        report = LoadReport(
            loaded={n: size for n, size in report.loaded.items() if n in kept or "head.weight" in n},
            fresh={n: size for n, size in report.fresh.items() if n.removesuffix(_NEW_ROWS) in kept},
            unused=report.unused,
        )
    model.special_ids = ids
    return Bundle(
        model=model,
        config=_config(opened, ids, report, share=share, seed=seed),
        source_tokenizer=opened[0].tokenizer,
        target_tokenizer=opened[1].tokenizer,
        report=report,
        reference=f"{opened[0].origin} → {opened[1].origin}",
    )


def combine_single(side: Side, *, settings: Mapping[str, Any] | None = None, seed: int = 0) -> Bundle:
    """One checkpoint as a whole sequence-to-sequence model: a single stack with the prefix mask.

    settings: its own config.json keys, and the ids in ``RESERVED``. Errors as in ``combine``.
    """
    own = {key: value for key, value in (settings or {}).items() if key in RESERVED}
    opened = open_side(side, "decoder")  # of a folder with two sides, the one with a head
    opened = with_settings(opened, {k: v for k, v in (settings or {}).items() if k not in RESERVED})
    generator = torch.Generator().manual_seed(3 * seed)
    stack, report = build(opened, "decoder", may_be_fresh=_may_be_fresh, generator=generator)
    ids, opened, grown = special_ids(own, opened, stack, generator=generator)
    report += LoadReport(fresh={name + _NEW_ROWS: size for name, size in grown.items()})
    report = report.prefixed("stack")
    model = PrefixModel(stack).eval()
    model.special_ids = ids
    ours = {
        "version": __version__,
        "single_stack": True,
        "checkpoint": opened.origin,
        "seed": seed,
        "trained": False,
        "fresh": sorted(report.fresh),
    }
    # how an encoder-decoder wanted to be decoded is no wish of its decoder alone, here as in a pair
    wishes = set(OLD_GENERATION_KEYS) - set(settings or {})
    config = {key: value for key, value in opened.config.items() if key not in wishes}
    return Bundle(
        model=model,
        config={**config, "s2s": ours, **id_settings(ids)},
        role="decoder",
        source_tokenizer=opened.tokenizer,
        target_tokenizer=opened.tokenizer,
        report=report,
        reference=f"{opened.origin} (single stack)",
    )


def _may_be_fresh(name: str) -> bool:
    """What a pre-trained checkpoint need not bring: cross-attention, and a head if it is a bare encoder."""
    return ".cross_attention." in name or ".cross_norm." in name or name.startswith("head.")


def _check_share(share: Share, opened: Sequence[Opened], stacks: Sequence[Stack]) -> None:
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
    if share == "all" and opened[0].family.whole and any(half.weights is not None for half in opened):
        raise UsageError(
            f"--share all: the two sides of a published {opened[0].family.name} have weights of their own",
            remedy="use --share embeddings, or start both sides fresh (--random-encoder --random-decoder)",
        )
    bodies = {
        replace(
            config,
            causal=False,
            cross_attention=False,
            cross_attention_size=None,
            head=None,
            embedding=replace(config.embedding, language=None),
        )
        for config in (encoder, decoder)
    }
    if share == "all" and (len(bodies) > 1 or opened[0].origin != opened[1].origin):
        raise UsageError(
            "--share all needs the same checkpoint and settings on both sides",
            remedy="name one checkpoint, or use --share embeddings",
        )


def _same_tokenizer(source: Tokenizer | None, target: Tokenizer | None) -> bool:
    if source is None or target is None:
        return source is target
    return source.fingerprint == target.fingerprint


def _config(
    opened: Sequence[Opened], ids: SpecialIds, report: LoadReport, *, share: Share, seed: int
) -> dict[str, Any]:
    encoder, decoder = opened
    ours = {
        "version": __version__,
        "encoder": encoder.origin,
        "decoder": decoder.origin,
        "share": share,
        "seed": seed,
        "same_tokenizer": _same_tokenizer(encoder.tokenizer, decoder.tokenizer),
        # both sides of one published encoder-decoder, put together again
        "trained": not report.fresh and encoder.origin == decoder.origin,
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
