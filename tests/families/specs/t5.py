"""T5 under test: a folder with its encoder alone, and one with its decoder alone."""

from __future__ import annotations

import copy
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.models.t5.modeling_t5 import T5PreTrainedModel, T5Stack

from tests.families.spec import Options, Spec


class Decoder(T5PreTrainedModel):  # type: ignore[misc]
    """What BartForCausalLM is for BART."""

    _tied_weights_keys = {"lm_head.weight": "decoder.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        own = copy.deepcopy(config)
        own.is_decoder, own.num_layers = True, config.num_decoder_layers
        self.decoder = T5Stack(own)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.scale = config.d_model**-0.5 if config.scale_decoder_outputs else 1.0
        self.post_init()

    def forward(self, input_ids: Tensor) -> tuple[Tensor]:
        return (self.lm_head(self.decoder(input_ids)[0] * self.scale),)


def make(role: str, config: Options) -> nn.Module:
    settings = {key: value for key, value in config.items() if key not in ("model_type", "own_head")}
    made = transformers.T5Config(**settings)
    if role == "encoder":
        encoder: nn.Module = transformers.T5EncoderModel(made)
        return encoder
    decoder = Decoder(made)
    if config.get("own_head"):
        decoder.lm_head.weight = nn.Parameter(torch.empty_like(decoder.lm_head.weight))
    return decoder


BASE: dict[str, Any] = {
    "model_type": "t5",
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "vocab_size": 60,
    "n_positions": 40,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
    "pad_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 0,
}
CASES: dict[str, dict[str, Any]] = {
    "narrow": {"d_model": 24, "d_kv": 5, "num_heads": 3},
    "buckets": {"relative_attention_num_buckets": 4, "relative_attention_max_distance": 5},
    "far": {"relative_attention_num_buckets": 5, "relative_attention_max_distance": 128},
    "sides-differ": {"num_layers": 1, "num_decoder_layers": 3},
    "gated-gelu": {"feed_forward_proj": "gated-gelu", "layer_norm_epsilon": 0.1},
    "gated-silu": {"feed_forward_proj": "gated-silu", "initializer_factor": 2.0},
    "gelu": {"feed_forward_proj": "gelu"},
    "unscaled": {"tie_word_embeddings": False},
    "own-head": {"tie_word_embeddings": False, "own_head": True, "feed_forward_proj": "gated-gelu"},
    "own-head-scaled": {"own_head": True},
}

SPEC = Spec(base=BASE, roles=("encoder", "decoder"), spread=0.2, make=make, cases=CASES)
