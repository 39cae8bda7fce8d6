"""What a family file must say about its family."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.model import StackConfig
from seq2seq_cli.model.activation import ACTIVATIONS

#: encoder: states, no head · decoder: causal with its head · cross_decoder: that with cross-attention ·
#: masked_lm: bidirectional with its head
Role = Literal["encoder", "decoder", "cross_decoder", "masked_lm"]
Config = Mapping[str, Any]
Keys = tuple[tuple[str, str], ...]
#: far above any model; a damaged config.json must not keep us building layers for hours
MOST_LAYERS = 1000


Weights = dict[str, Tensor]


def _unchanged(weights: Weights, config: Config) -> Weights:
    return weights


@dataclass(frozen=True, kw_only=True)
class Family:
    """One published architecture: its config.json in our terms, and its parameter names as ours.

    ``options`` are the keys of its config.json with the published defaults. ``keys`` pairs published
    names with ours, ``{layer}`` standing for the layer number; ``head_keys`` does so for the parts that
    stand outside ``body_prefix`` in a language model's file. ``ignored`` are regular expressions of
    published names that carry nothing we use (poolers, buffers). ``tied`` are published names that repeat
    the embedding when the head is tied. ``unpack``/``pack`` do what renaming cannot (fused or transposed
    matrices), on published names without prefix, given the side's config with its defaults, and undo each
    other; ``unpack`` may empty its argument.
    """

    name: str
    options: Config
    stack_config: Callable[[Config, Role], StackConfig]
    body_prefix: str
    keys: Keys
    head_keys: Keys = ()
    ignored: tuple[str, ...] = ()
    tied: tuple[str, ...] = ()
    unpack: Callable[[Weights, Config], Weights] = field(default=_unchanged)
    pack: Callable[[Weights, Config], Weights] = field(default=_unchanged)
    lacks_special_tokens: bool = False  #: published without any token that begins, ends or pads a text
    tokenizer: str = ""  #: kind of tokenizer, for `s2s models`
    architectures: Mapping[Role, str] = field(default_factory=dict)  #: role -> class name in config.json


def linear(published: str, ours: str) -> Keys:
    """The pairs of names of a module that has a weight and a bias."""
    return tuple((f"{published}.{leaf}", f"{ours}.{leaf}") for leaf in ("weight", "bias"))


def check_activation(config: Config, key: str) -> str:
    """The activation named under ``key``, refused by name when we do not have it."""
    name = config[key]
    if name not in ACTIVATIONS:
        known = ", ".join(sorted(ACTIVATIONS))
        raise CheckpointError(f"{key} {name!r} is not supported", remedy=f"known: {known}")
    return str(name)


def refuse_unless(config: Config, key: str, allowed: Iterable[Any]) -> None:
    """Refuse, by name, a value that changes the numbers in a way that we do not compute."""
    value = config.get(key)
    if value not in tuple(allowed):
        raise CheckpointError(
            f"{key}={value!r} is not supported", remedy=f"supported: {', '.join(map(repr, allowed))}"
        )


def head_size(config: Config, hidden: str, heads: str) -> int:
    """Width of one attention head; the hidden size must be a multiple of the number of heads."""
    if config[heads] < 1 or config[hidden] < 1 or config[hidden] % config[heads]:
        raise CheckpointError(f"{hidden}={config[hidden]} is not a multiple of {heads}={config[heads]}")
    return int(config[hidden]) // int(config[heads])
