"""The sides of a folder: of a pair, of a published encoder-decoder, or the one stack that is in it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torch import Tensor

from seq2seq_cli.checkpoint.files import open_weights, read_config
from seq2seq_cli.checkpoint.loading import full_config, placed
from seq2seq_cli.checkpoint.weights import Weights
from seq2seq_cli.errors import CheckpointError, nearest
from seq2seq_cli.families import FAMILIES, Family, family_of
from seq2seq_cli.families.family import Whole
from seq2seq_cli.model import Share


@dataclass(frozen=True, kw_only=True)
class Half:
    """One side of a folder: its config.json, its weights under published names without the pair's prefix.
    ``names`` are what those are called in the file."""

    config: dict[str, Any]
    weights: Weights
    names: Collection[str]
    where: str


def is_pair(config: Mapping[str, Any]) -> bool:
    """True for the config of a folder that joins two families' stacks."""
    return config.get("model_type") == "encoder-decoder"


def whole_of(config: Mapping[str, Any]) -> Whole | None:
    """How a folder holds a family's own encoder-decoder; None for every other folder."""
    name = config.get("model_type")
    family = FAMILIES.get(name) if isinstance(name, str) else None
    return family.whole if family is not None and config.get("is_encoder_decoder", True) else None


def is_encoder_decoder(config: Mapping[str, Any]) -> bool:
    """True for the config of a folder with an encoder and a decoder, joined here or published so."""
    return is_pair(config) or whole_of(config) is not None


def is_single_stack(config: Mapping[str, Any]) -> bool:
    """True for the config of one stack that was combined or trained to write targets for sources."""
    ours = config.get("s2s")
    return isinstance(ours, dict) and bool(ours.get("single_stack"))


def share_of(config: Mapping[str, Any], where: str) -> Share:
    """What the two sides of a pair's folder share; 4.x says it in a key of its own."""
    share = config.get("s2s", {}).get("share") or ("all" if config.get("tie_encoder_decoder") else "none")
    if share not in get_args(Share):
        raise CheckpointError(
            f"s2s: share={share!r}", where=where, remedy=nearest(str(share), get_args(Share))
        )
    return cast(Share, share)


def open_half(folder: Path, side: str, *, with_weights: bool = True) -> Half:
    """The ``side`` (encoder or decoder) of a folder that has two, or the whole of a single stack's.

    Without weights only the config is read, and the folder need not have any.
    """
    config = read_config(folder)
    weights = open_weights(folder) if with_weights else Weights({})
    where = str(folder / "config.json")
    if is_pair(config):
        nested = config.get(side)
        if not isinstance(nested, dict):
            raise CheckpointError(f"config.json has no {side!r} section", where=where)
        # 4.x files of shared models hold the decoder's copy only
        prefix = "decoder." if share_of(config, where) == "all" else f"{side}."
        where = f"{where} ({side})"
        nested = family_of(nested, where=where).respelled(nested)
        names = [name for name in weights if name.startswith(prefix)]
        return Half(config=nested, weights=weights.under(prefix), names=names, where=where)
    family = family_of(config, where=where)
    config = family.respelled(config)
    if family.whole is None:
        return Half(config=config, weights=weights, names=weights.keys(), where=where)
    return _half_of_whole(family, family.whole, config, weights, side, where)


def prefix_of(family: Family, names: Mapping[str, Any] | None = None) -> str:
    """What stands before ``encoder.`` and ``decoder.`` in a published encoder-decoder's file; files of the
    body alone (``names``) do without."""
    prefix = family.body_prefix.removesuffix("decoder.")
    bare = names is not None and not any(name.startswith(prefix) for name in names)
    return "" if bare else prefix


def _half_of_whole(
    family: Family, whole: Whole, config: dict[str, Any], weights: Weights, side: str, where: str
) -> Half:
    """A side under the names that it has when it stands alone. Where the file and tie_word_embeddings
    disagree, the file is right about a table or a head of a side's own, as in the published code."""
    prefix = prefix_of(family, weights)
    own, other = (prefix + name for name in (("encoder.", "decoder.")[:: 1 if side == "encoder" else -1]))
    if not any(name.startswith((own, other)) for name in weights):
        names = {name: name for name in weights}  # a stack that was saved by itself
    else:
        names = {name.removeprefix(own): name for name in weights if name.startswith(own)}
    shared = prefix + whole.shared
    places = (whole.table, own + whole.table, shared, other + whole.table, whole.head)
    table = next((name for name in places if name in weights), None)
    if table is not None:
        names[whole.table] = table
    with placed(where):
        settled = whole.settle(full_config(family, config))
    settled.setdefault("decoder_start_token_id", settled.get(whole.start))
    settled["is_decoder"] = side == "decoder"
    if side == "decoder" and table is not None:
        names |= {name: name for name in (whole.head, whole.bias) if name in weights}
        head = next((name for name in (whole.head, shared) if name in weights), table)
        tied = whole.one_table or settled["tie_word_embeddings"]
        if tied and not _same(weights, head, table):
            names[whole.head], tied = head, False
        settled["tie_word_embeddings"] = tied
    return Half(config=settled, weights=weights.renamed(names), names=names.values(), where=where)


def _same(weights: Weights, one: str, other: str) -> bool:
    if one == other:
        return True
    left, right = weights[one], weights[other]
    return left.shape == right.shape and left.dtype == right.dtype and torch.equal(left, right)


def to_whole(
    family: Family, encoder: Mapping[str, Tensor], decoder: Mapping[str, Tensor], *, one_table: bool
) -> dict[str, Tensor]:
    """Both sides, each under the names that it has alone, as one published encoder-decoder's file."""
    whole, prefix = family.whole, prefix_of(family)
    assert whole is not None
    weights = {f"{prefix}encoder.{name}": tensor for name, tensor in encoder.items()} | dict(decoder)
    weights[prefix + whole.shared] = decoder[f"{prefix}decoder.{whole.table}"]
    if one_table:
        for side in ("encoder", "decoder"):
            del weights[f"{prefix}{side}.{whole.table}"]
    return weights


def encoder_of_whole(family: Family, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A single encoder's weights as the part of a published encoder-decoder's file that they are; those of
    other families as they are."""
    if family.whole is None:
        return weights
    named = {f"encoder.{name}": tensor for name, tensor in weights.items()}
    return {family.whole.shared: named.pop(f"encoder.{family.whole.table}"), **named}
