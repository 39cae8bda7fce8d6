"""BART under test: a folder with its encoder alone, and one with its decoder alone."""

from __future__ import annotations

from typing import Any

import transformers
from torch import Tensor, nn
from transformers.models.bart.modeling_bart import (
    BartEncoder,
    BartPreTrainedModel,
    BartScaledWordEmbedding,
)

from tests.families.spec import Options, Spec


class Encoder(BartPreTrainedModel):  # type: ignore[misc]
    """What T5EncoderModel is for T5."""

    _tied_weights_keys = {"encoder.embed_tokens.weight": "shared.weight"}  # noqa: RUF012

    def __init__(self, config: Any) -> None:
        config.tie_word_embeddings = True  # whatever becomes of a head, there is one table here
        super().__init__(config)
        scale = config.d_model**0.5 if config.scale_embedding else 1.0
        self.shared = BartScaledWordEmbedding(config.vocab_size, config.d_model, 0, embed_scale=scale)
        self.encoder = BartEncoder(config)
        self.post_init()

    def forward(self, input_ids: Tensor) -> Any:
        return self.encoder(input_ids)


def make(role: str, config: Options) -> nn.Module:
    settings = {key: value for key, value in config.items() if key != "model_type"}
    kind = Encoder if role == "encoder" else transformers.BartForCausalLM
    made: nn.Module = kind(transformers.BartConfig(**settings))
    return made


def run(model: Any, role: str, ids: Tensor) -> Tensor:
    """Without the reference's cache, which has the encoder's number of layers."""
    settings = {"use_cache": False} if role == "decoder" else {}
    output: Tensor = model(input_ids=ids, **settings)[0]
    return output


SPEC = Spec(
    base={
        "model_type": "bart",
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
        "vocab_size": 60,
        "max_position_embeddings": 40,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
        "forced_eos_token_id": 2,
    },
    roles=("encoder", "decoder"),
    make=make,
    run=run,
    cases={
        "narrow": {"d_model": 24},
        "sides-differ": {
            "encoder_layers": 1,
            "decoder_layers": 3,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 8,
            "encoder_ffn_dim": 40,
            "decoder_ffn_dim": 20,
        },
        "scaled": {"scale_embedding": True, "activation_function": "gelu_new"},
        "relu": {"activation_function": "relu", "max_position_embeddings": 20},
        "untied": {"tie_word_embeddings": False},
    },
)
