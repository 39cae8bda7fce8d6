"""What a stack is, in numbers and choices. Families translate their config.json into these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Positions = Literal["learned", "none"]
Head = Literal["none", "linear", "transform"]
Share = Literal["none", "embeddings", "all"]  #: which parameters the two sides of a pair have in common


@dataclass(frozen=True, kw_only=True)
class StackConfig:
    """One stack of transformer layers. Sizes are in units (not bytes); probabilities are in [0, 1)."""

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    head_size: int
    feedforward_size: int
    max_positions: int  #: longest sequence in tokens
    positions: Positions = "learned"
    position_offset: int = 0  #: the first token's row in the position table (RoBERTa: pad id + 1)
    token_types: int = 0  #: rows of the token type table; 0 = none. Row 0 is used for every token.
    activation: str = "gelu"
    norm_order: Literal["pre", "post"] = "post"
    norm_eps: float = 1e-5
    embedding_norm: bool = False
    attention_scale: float | None = None  #: None = head_size ** -0.5
    scale_by_depth: bool = False  #: GPT-2's scale_attn_by_inverse_layer_idx: divide by depth + 1
    causal: bool = False
    cross_attention: bool = False
    cross_attention_size: int | None = None  #: width of the states attended to; None = hidden_size
    head: Head = "none"
    head_activation: str = "gelu"  #: inside the "transform" head
    head_bias: bool = False
    tie_head: bool = True  #: the head's matrix is the token embedding
    dropout: float = 0.0
    attention_dropout: float = 0.0
    embedding_dropout: float = 0.0
    init_std: float = 0.02
    init_scaled_residual: bool = False  #: GPT-2: residual projections start at std / sqrt(2 * layers)


@dataclass(frozen=True, kw_only=True)
class SpecialIds:
    """The ids that training and decoding both use; one truth for both.

    ``start`` begins every target, ``eos`` ends it (any of several may), ``pad`` fills what no mask shows.
    """

    start: int | None = None
    eos: tuple[int, ...] = ()
    pad: int | None = None
    bos: int | None = None


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderConfig:
    """Two stacks joined: the decoder attends to the encoder's states."""

    encoder: StackConfig
    decoder: StackConfig
    share: Share = "none"
