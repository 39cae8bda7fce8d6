"""XLM-RoBERTa (Conneau et al. 2020): RoBERTa for 100 languages, with a SentencePiece vocabulary."""

from __future__ import annotations

from dataclasses import replace

from seq2seq_cli.families import camembert

FAMILY = replace(
    camembert.FAMILY,
    name="xlm-roberta",
    architectures={
        "encoder": "XLMRobertaModel",
        "decoder": "XLMRobertaForCausalLM",
        "cross_decoder": "XLMRobertaForCausalLM",
        "masked_lm": "XLMRobertaForMaskedLM",
    },
)
