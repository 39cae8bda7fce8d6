"""One transformer layer: self-attention, optional cross-attention, feed-forward; norms before or after."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from seq2seq_cli.model.activation import ACTIVATIONS
from seq2seq_cli.model.attention import Attention
from seq2seq_cli.model.cache import KVCache
from seq2seq_cli.model.config import StackConfig
from seq2seq_cli.model.distances import Distances
from seq2seq_cli.model.dropout import Dropout
from seq2seq_cli.model.linear import Linear
from seq2seq_cli.model.relative import Relative, make_relative


class FeedForward(nn.Module):
    """Two linear maps with an activation between them, which may be gated (Shazeer 2020)."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        bias = config.feedforward_bias
        self.inner = Linear(config.hidden_size, config.feedforward_size, bias=bias)
        self.gate: Linear | None = None
        if config.gated:
            self.gate = Linear(config.hidden_size, config.feedforward_size, bias=bias)
        self.outer = Linear(config.feedforward_size, config.hidden_size, bias=bias)
        self.activation = ACTIVATIONS[config.activation]
        # a family without one keeps none when a recipe asks for another rate of dropout
        rate = config.activation_dropout
        self.dropout: nn.Module = Dropout(rate) if rate else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, D] -> [B, L, D]."""
        y = self.activation(self.inner(x))
        if self.gate is not None:
            y = y * self.gate(x)
        z: Tensor = self.outer(self.dropout(y))
        return z


def make_norm(config: StackConfig, size: int | None = None, *, eps: float | None = None) -> nn.Module:
    """A norm over ``size`` (default: the hidden size) values, of the stack's kind and, unless given, eps."""
    kind = nn.RMSNorm if config.norm == "rms" else nn.LayerNorm
    return kind(size or config.hidden_size, eps=config.norm_eps if eps is None else eps)


class Layer(nn.Module):
    """Residual blocks in the family's norm order: pre = x + f(norm(x)), post = norm(x + f(x))."""

    def __init__(self, config: StackConfig, depth: int) -> None:
        super().__init__()
        scale = config.attention_scale if config.attention_scale is not None else config.head_size**-0.5
        if config.scale_by_depth:
            scale /= depth + 1

        def attention(*, key_value_size: int | None = None, relative: Relative | None = None) -> Attention:
            return Attention(
                hidden_size=config.hidden_size,
                num_heads=config.num_heads,
                head_size=config.head_size,
                scale=scale,
                dropout=config.attention_dropout,
                bias=config.attention_bias,
                key_value_size=key_value_size,
                relative=relative,
            )

        self.self_attention = attention(relative=make_relative(config, scale=scale))
        self.self_norm = make_norm(config)
        self.cross_attention: Attention | None = None
        self.cross_norm: nn.Module | None = None
        if config.cross_attention:
            self.cross_attention = attention(key_value_size=config.cross_attention_size)
            self.cross_norm = make_norm(config)
        self.feedforward = FeedForward(config)
        self.feedforward_norm = make_norm(config)
        self.dropout = Dropout(config.dropout)
        self.pre_norm = config.norm_order == "pre"

    def _residual(self, x: Tensor, norm: nn.Module, block: Callable[[Tensor], Tensor]) -> Tensor:
        if self.pre_norm:
            summed: Tensor = x + self.dropout(block(norm(x)))
            return summed
        normed: Tensor = norm(x + self.dropout(block(x)))
        return normed

    def forward(
        self,
        x: Tensor,
        *,
        mask: Tensor | None,
        causal: bool,
        distances: Distances | None = None,
        blanks: Tensor | None = None,
        states: Tensor | None = None,
        states_mask: Tensor | None = None,
        cache: KVCache | None = None,
        depth: int = 0,
    ) -> Tensor:
        """x [B, L, D] -> [B, L, D]. Masks as in ``Attention``; ``states`` is the source, if any; ``blanks``
        [1, M, D] are states of this layer's input before the first place."""
        attend, cross, cross_norm = self.self_attention, self.cross_attention, self.cross_norm
        if blanks is not None and self.pre_norm:
            blanks = self.self_norm(blanks)
        x = self._residual(
            x,
            self.self_norm,
            lambda y: attend(
                y, mask=mask, causal=causal, distances=distances, blanks=blanks, cache=cache, depth=depth
            ),
        )
        if cross is not None and cross_norm is not None and states is not None:
            source = states
            x = self._residual(
                x,
                cross_norm,
                lambda y: cross.cross_attend(y, source, mask=states_mask, cache=cache, depth=depth),
            )
        return self._residual(x, self.feedforward_norm, self.feedforward)
