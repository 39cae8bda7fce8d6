"""Published parameter names to ours and back, by a family's key table."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import Tensor

from seq2seq_cli.families.family import Config, Family

_LAYER = re.compile(r"(?<=\.)\d+(?=\.)")
#: names of norm parameters in files converted from TensorFlow
_LEGACY_LEAVES = {"gamma": "weight", "beta": "bias"}


@dataclass(frozen=True, kw_only=True)
class Translated:
    """Tensors under our names; ``ignored`` carry nothing we use, ``unknown`` are in no table."""

    weights: dict[str, Tensor]
    ignored: dict[str, Tensor]
    unknown: dict[str, Tensor]


def _template(name: str) -> tuple[str, str]:
    """A name with its first number replaced by ``{layer}``, and that number ('' when there is none)."""
    match = _LAYER.search(name)
    if match is None:
        return name, ""
    return f"{name[: match.start()]}{{layer}}{name[match.end() :]}", match[0]


def _head_keys(family: Family, *, tied: bool, held: Collection[str] | None = None) -> dict[str, str]:
    """Published head names -> ours. An untied head keeps its bias beside its own matrix; files of 4.x, where
    that bias is the tied head's under a second name, hold it under the first alone. ``held``: the names in a
    file, when one is read."""
    keys = dict(family.head_keys)
    if tied:
        return {published: ours for published, ours in keys.items() if published not in family.tied}
    for published in family.tied:
        if published.endswith(".bias") and (held is None or published in held):
            keys = {theirs: ours for theirs, ours in keys.items() if ours != "head.bias"}
            keys[published] = "head.bias"
    return keys


def published_name(family: Family, name: str) -> str:
    """What stands for our parameter ``name`` in the family's tables, before anything is joined or turned; ""
    for one that is in none."""
    template, layer = _template(name)
    table = {ours: published for published, ours in (*family.keys, *family.head_keys)}
    return table.get(template, "").replace("{layer}", layer)


def to_ours(
    family: Family, weights: Mapping[str, Tensor], *, tied: bool, config: Config | None = None
) -> Translated:
    """Rename the tensors of a published file, with or without the prefix of a language model's body.

    config: the side's config.json; where it is silent, the published defaults hold.
    """
    table = {**dict(family.keys), **_head_keys(family, tied=tied, held=weights.keys())}
    bare: dict[str, Tensor] = {}
    ignored: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        owner, dot, leaf = name.removeprefix(family.body_prefix).rpartition(".")
        short = f"{owner}{dot}{_LEGACY_LEAVES.get(leaf, leaf)}"
        if any(re.fullmatch(pattern, short) for pattern in family.ignored):
            ignored[name] = tensor
        elif short not in table and (short in family.tied or short in dict(family.head_keys)):
            ignored[name] = tensor  # repeats the embedding, or a bias that the untied head does not use
        else:
            bare[short] = tensor
    renamed: dict[str, Tensor] = {}
    unknown: dict[str, Tensor] = {}
    for name, tensor in family.unpack(bare, {**family.options, **(config or {})}).items():
        template, layer = _template(name)
        if template in table:
            renamed[table[template].replace("{layer}", layer)] = tensor
        else:
            unknown[name] = tensor
    return Translated(weights=renamed, ignored=ignored, unknown=unknown)


def to_published(
    family: Family,
    weights: Mapping[str, Tensor],
    *,
    tied: bool,
    with_head: bool,
    config: Config | None = None,
) -> dict[str, Tensor]:
    """The inverse: our names as the family's file has them. ``with_head``: a language model's file, whose
    body stands behind the family's prefix; a tied matrix is not written twice."""
    body = {ours: published for published, ours in family.keys}
    head = {ours: published for published, ours in _head_keys(family, tied=tied).items()}
    bodies: dict[str, Tensor] = {}
    heads: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        template, layer = _template(name)
        if template in body:
            bodies[body[template].replace("{layer}", layer)] = tensor
        elif template in head:
            heads[head[template].replace("{layer}", layer)] = tensor
        elif not (tied and name == "head.weight"):
            raise KeyError(f"{family.name} has no published name for {name}")
    prefix = family.body_prefix if with_head else ""
    bodies, heads = (family.pack(part, {**family.options, **(config or {})}) for part in (bodies, heads))
    return {prefix + name: tensor for name, tensor in bodies.items()} | heads
