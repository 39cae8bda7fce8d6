"""mT5 under test."""

from __future__ import annotations

import transformers
from torch import nn

from tests.families.spec import Options, Spec
from tests.families.specs import t5


def make(role: str, config: Options) -> nn.Module:
    """T5's, which computes the same but for the head's scale."""
    settings = {key: value for key, value in config.items() if key != "model_type"}
    if role == "encoder":
        encoder: nn.Module = transformers.MT5EncoderModel(transformers.MT5Config(**settings))
        return encoder
    made = t5.make("decoder", {"feed_forward_proj": "gated-gelu", **settings, "scale_decoder_outputs": False})
    made.config = transformers.MT5Config(**settings)
    return made


SPEC = Spec(
    base={**t5.BASE, "model_type": "mt5"},
    roles=("encoder", "decoder"),
    spread=0.2,
    make=make,
    cases={
        "relu": {"feed_forward_proj": "relu", "num_decoder_layers": 1},
        "untied": {"tie_word_embeddings": False},
    },
)
