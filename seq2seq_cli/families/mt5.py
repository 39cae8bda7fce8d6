"""mT5 (Xue et al. 2021): T5 1.1 for many languages. The published code never scales its head's input."""

from __future__ import annotations

from dataclasses import replace

from seq2seq_cli.families import t5

assert t5.FAMILY.whole is not None
FAMILY = replace(
    t5.FAMILY,
    name="mt5",
    options={
        **t5.OPTIONS,
        "vocab_size": 250112,
        "d_ff": 1024,
        "num_layers": 8,
        "num_heads": 6,
        "feed_forward_proj": "gated-gelu",
        "scale_decoder_outputs": False,
    },
    architectures={
        "encoder": "MT5EncoderModel",
        "decoder": "MT5ForConditionalGeneration",
        "cross_decoder": "MT5ForConditionalGeneration",
    },
    whole=replace(t5.FAMILY.whole, architecture="MT5ForConditionalGeneration"),
)
