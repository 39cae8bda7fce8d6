"""What a family file must say about its family."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from seq2seq_cli.errors import CheckpointError, Finding, nearest
from seq2seq_cli.model import OpenPlace, StackConfig
from seq2seq_cli.model.activation import ACTIVATIONS

#: encoder: states, no head · decoder: causal with its head · cross_decoder: that with cross-attention ·
#: masked_lm: bidirectional with its head. The role decides, whatever is_decoder in a config.json says.
Role = Literal["encoder", "decoder", "cross_decoder", "masked_lm"]
Config = Mapping[str, Any]
Keys = tuple[tuple[str, str], ...]
#: far above any model; a damaged config.json must not keep us building layers for hours
MOST_LAYERS = 1000


Weights = dict[str, Tensor]


def _unchanged(weights: Weights, config: Config) -> Weights:
    return weights


def _nowhere(config: Config) -> OpenPlace | None:
    return None


def _as_it_is(config: Config) -> dict[str, Any]:
    return dict(config)


@dataclass(frozen=True, kw_only=True)
class Whole:
    """How a published encoder-decoder's file holds its two sides.

    Their names stand behind ``encoder.`` and ``decoder.``, and the token table that they have in common
    stands beside them as ``shared``; a side may have a copy, or a table of its own, as ``table``.
    """

    architecture: str  #: class name in config.json
    start: str  #: the id that begins a target where config.json has no decoder_start_token_id
    shared: str = "shared.weight"
    table: str = "embed_tokens.weight"
    head: str = "lm_head.weight"
    bias: str = ""  #: numbers [1, V] added to the logits, which only the whole has; "" = none
    one_table: bool = False  #: the sides have one table whatever tie_word_embeddings says about the head
    #: a full config.json with everything written out that follows from keys which a side does not keep
    settle: Callable[[Config], dict[str, Any]] = field(default=_as_it_is)


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
    aliases: Mapping[str, str] = field(default_factory=dict)  #: other spelling in config.json -> option
    role_settings: Mapping[Role, Config] = field(default_factory=dict)  #: role -> what its config.json says
    unpack: Callable[[Weights, Config], Weights] = field(default=_unchanged)
    pack: Callable[[Weights, Config], Weights] = field(default=_unchanged)
    #: where a language model that was published for filling gaps writes; None = it is causal
    open_place: Callable[[Config], OpenPlace | None] = field(default=_nowhere)
    lacks_special_tokens: bool = False  #: published without any token that begins, ends or pads a text
    tokenizer: str = ""  #: kind of tokenizer, for `s2s models`
    control_codes: tuple[str, ...] = ()  #: words of which each text that it was published for begins with one
    base: Config = field(default_factory=dict)  #: where its usual checkpoint differs, for `s2s models`
    architectures: Mapping[Role, str] = field(default_factory=dict)  #: role -> class name in config.json
    whole: Whole | None = None  #: for families that are published as encoder-decoders

    def respelled(self, config: Config) -> dict[str, Any]:
        """A config.json with its options under their usual names. Where a file has an option under both,
        the other spelling wins, as it does in the published code."""
        usual = {key: value for key, value in config.items() if key not in self.aliases}
        return usual | {self.aliases[key]: value for key, value in config.items() if key in self.aliases}

    def unknown(self, names: Iterable[str], where: Callable[[str], str]) -> list[Finding]:
        """A finding for each of ``names`` that is no option of the family, with ``where`` it was said."""
        return [
            Finding(f"{name!r} is not an option of {self.name}", where(name), nearest(name, self.options))
            for name in names
            if name not in self.options
        ]


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


def whole_number(config: Config, key: str, *, least: int | None = None) -> int:
    """The whole number under ``key``, of at least ``least``; None counts as 0."""
    value = 0 if config[key] is None else config[key]
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 2**31:
        raise CheckpointError(f"{key}={value!r} is not a whole number")
    if least is not None and value < least:
        raise CheckpointError(f"{key}={value!r} is less than {least}")
    return value


def is_causal(config: Config, role: Role, *, family: str) -> bool:
    """Whether a family that was published as causal is so in ``role``: our option ``bidirectional`` lifts the
    mask of an encoder. Refused for the role that fills gaps, which it was never trained for."""
    if role == "masked_lm":
        raise CheckpointError(f"{family} is no masked language model", remedy="train it as causal_lm")
    if config["bidirectional"] and role != "encoder":
        raise CheckpointError("bidirectional: true is for encoders", remedy="leave it out for this side")
    return not config["bidirectional"]


def head_size(config: Config, hidden: str, heads: str) -> int:
    """Width of one attention head; the hidden size must be a multiple of the number of heads."""
    if config[heads] < 1 or config[hidden] < 1 or config[hidden] % config[heads]:
        raise CheckpointError(f"{hidden}={config[hidden]} is not a multiple of {heads}={config[heads]}")
    return int(config[hidden]) // int(config[heads])
