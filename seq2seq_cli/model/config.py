"""What a stack is, in numbers and choices. Families translate their config.json into these."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

#: learned: a trained table · fixed: a table of interleaved sines and cosines, stored but not trained ·
#: sinusoidal: computed, all sines before all cosines · none: order is known to attention alone, if at all
Positions = Literal["learned", "fixed", "sinusoidal", "none"]
Init = Literal["normal", "uniform", "scaled_residual", "fan_in"]
Share = Literal["none", "embeddings", "all"]  #: which parameters the two sides of a pair have in common


@dataclass(frozen=True, kw_only=True)
class AdaptiveConfig:
    """A vocabulary in clusters, the most frequent tokens first."""

    cutoffs: tuple[int, ...] = ()  #: the first tokens of the second, third, ... cluster
    divisor: int = 1  #: how much narrower each cluster's vectors are than those of the cluster before
    projection_init_std: float = 0.02  #: of the maps between the clusters' widths and the hidden size


@dataclass(frozen=True, kw_only=True)
class EmbeddingConfig:
    """How token ids become the input of the first layer."""

    size: int | None = None  #: width of the tables, with a linear map to the hidden size; None = no map
    adaptive: AdaptiveConfig | None = None  #: then ``size`` is the first cluster's width
    scale: float = 1.0  #: factor on the token embedding
    positions: Positions = "learned"
    position_offset: int = 0  #: the first token's row in the position table (RoBERTa: pad id + 1)
    token_types: int = 0  #: rows of the token type table; 0 = none. Row 0 is used for every token.
    languages: int = 0  #: rows of the language table; 0 = none
    language: int | None = None  #: the row that is added to every token; None = none is added
    norm: bool = False
    dropout: float = 0.0
    mask_row: bool = False  #: a vector that stands for a hidden token is kept with the stack, frozen
    init_std: float | None = None  #: None = the stack's


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """From hidden states to logits."""

    transform: bool = False  #: dense layer, activation and norm before the vocabulary matrix
    activation: str = "gelu"  #: inside the transform
    bias: bool = False
    tied: bool = True  #: the vocabulary matrix is the token embedding
    scale: float = 1.0  #: factor on the states
    #: of an adaptive vocabulary, by cluster: whether states are narrowed by the embedding's map, turned round
    tied_projections: tuple[bool, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FinalNormConfig:
    """What stands behind the last layer."""

    norm: bool = True  #: False = dropout alone
    eps: float | None = None  #: None = the stack's
    dropout: float = 0.0  #: behind it


@dataclass(frozen=True, kw_only=True)
class RelativePositions:
    """Positions that enter attention as distances between query and key.

    buckets: a learned bias per head and bucket of distances, one table a stack (Raffel et al. 2020, 2.1) ·
    key, key_query: a learned vector per distance, multiplied with the queries, or with the keys as well
    (Shaw et al. 2018; Huang et al. 2020, methods 1 and 4), one table a layer · waves: sines and cosines of
    the distance through a map of each layer's, multiplied with the queries (Dai et al. 2019, 3.3).
    """

    kind: Literal["buckets", "key", "key_query", "waves"]
    rows: int = 0  #: number of buckets, or of the distances that are told apart
    #: buckets: distances from here on share the last one · waves: those beyond count as this one; 0 = none
    furthest: int = 0
    dropout: float = 0.0  #: waves: on the sines and cosines
    shared_biases: bool = False  #: waves: the two biases of the queries are the same in all layers
    segments: int = 0  #: waves: rows of a table that tells texts apart, kept frozen
    #: waves: without a source, every sequence begins behind so many states of zeros, and a cache keeps that
    #: many states from call to call (Dai et al. 2019, 3.2); 0 = it begins alone, and all are kept
    memory: int = 0
    same_length: bool = False  #: waves: each place sees that many places at most, itself among them


@dataclass(frozen=True, kw_only=True)
class StackConfig:
    """One stack of transformer layers. Sizes are in units (not bytes); probabilities are in [0, 1)."""

    vocab_size: int
    hidden_size: int
    num_layers: int  #: depths, counted with repetition where layers are shared
    layer_order: tuple[int, ...] = ()  #: which layer's parameters stand at each depth; () = its own each
    num_heads: int
    head_size: int
    feedforward_size: int
    max_positions: int  #: longest sequence in tokens
    embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    relative: RelativePositions | None = None
    activation: str = "gelu"
    gated: bool = False  #: feed-forward: activation(inner(x)) * gate(x)
    norm: Literal["layer", "rms"] = "layer"
    norm_order: Literal["pre", "post"] = "post"
    norm_eps: float = 1e-5
    final_norm: FinalNormConfig | None = None
    attention_bias: bool = True
    feedforward_bias: bool = True
    attention_scale: float | None = None  #: None = head_size ** -0.5
    scale_by_depth: bool = False  #: GPT-2's scale_attn_by_inverse_layer_idx: divide by depth + 1
    causal: bool = False
    cross_attention: bool = False
    cross_attention_size: int | None = None  #: width of the states attended to; None = hidden_size
    head: HeadConfig | None = None
    dropout: float = 0.0  #: behind every block
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    init_std: float = 0.02
    init: Init = "normal"

    @property
    def ties_head(self) -> bool:
        """True when no vocabulary matrix stands beside the token embedding."""
        return self.head is None or self.head.tied


@dataclass(frozen=True, kw_only=True)
class OpenPlace:
    """How a stack that was trained to fill gaps writes: behind the sequence, which is read both ways, stands
    one place more, and its state foretells the token that comes there."""

    #: what stands there; None = the vector of a hidden token, which sees the sequence and not itself, and
    #: which the sequence does not see
    token: int | None = None
    language: int | None = None  #: the row of the language table that is added to every place


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
