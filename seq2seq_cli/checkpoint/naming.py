"""Some of a model's parameters under their published names, and back; a whole model's are in ``saving``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from seq2seq_cli.checkpoint.bundle import Bundle
from seq2seq_cli.checkpoint.halves import prefix_of, whole_of
from seq2seq_cli.families import family_of
from seq2seq_cli.families.translate import to_ours, to_published
from seq2seq_cli.model import EncoderDecoder, PrefixModel, Stack

_PROJECTION = ("projection.", "enc_to_dec_proj.")


def _sides(bundle: Bundle) -> list[tuple[str, str, Stack, dict[str, Any]]]:
    """(our prefix, published prefix, stack, config.json) of each stack of the model."""
    model, config = bundle.model, bundle.config
    if isinstance(model, PrefixModel):
        return [("stack.", "", model.stack, config)]
    if isinstance(model, Stack):
        alone = model.head is None and family_of(config).whole is not None
        return [("", "encoder." if alone else "", model, config)]
    assert isinstance(model, EncoderDecoder)
    if whole_of(config) is None:
        stacks = {"encoder.": model.encoder, "decoder.": model.decoder}
        return [(side, side, stack, config[side[:-1]]) for side, stack in stacks.items()]
    prefix = prefix_of(family_of(config))
    return [("encoder.", f"{prefix}encoder.", model.encoder, config), ("decoder.", "", model.decoder, config)]


def published(bundle: Bundle, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors in the shape of some parameters, by our names -> by the names of the published model, where
    those that are one matrix there have become one. All parts of such a matrix must be given."""
    named: dict[str, Tensor] = {}
    for ours, theirs, stack, config in _sides(bundle):
        own = {name.removeprefix(ours): t for name, t in tensors.items() if name.startswith(ours)}
        if not ours:
            own = dict(tensors)
        family, with_head = family_of(config), stack.head is not None
        tied = stack.config.ties_head
        made = to_published(family, own, tied=tied, with_head=with_head, config=config)
        named |= {theirs + name: tensor for name, tensor in made.items()}
    ours, theirs = _PROJECTION
    projected = {n.removeprefix(ours): t for n, t in tensors.items() if n.startswith(ours)}
    return named | {theirs + name: tensor for name, tensor in projected.items()}


def translated(bundle: Bundle, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The inverse: by our names, and the published names that this model has not."""
    left = dict(tensors)
    found: dict[str, Tensor] = {}
    unknown: list[str] = []
    ours, theirs = _PROJECTION
    for name in [name for name in left if name.startswith(theirs)]:
        found[ours + name.removeprefix(theirs)] = left.pop(name)
    for ours, theirs, stack, config in sorted(_sides(bundle), key=lambda side: -len(side[1])):
        own = {n.removeprefix(theirs): left.pop(n) for n in list(left) if n.startswith(theirs)}
        result = to_ours(family_of(config), own, tied=stack.config.ties_head, config=config)
        found |= {ours + name: tensor for name, tensor in result.weights.items()}
        unknown += [theirs + name for name in (*result.unknown, *result.ignored)]
    return found, [*unknown, *left]
