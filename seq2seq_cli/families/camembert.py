"""CamemBERT (Martin et al. 2020): RoBERTa for French, with a SentencePiece vocabulary."""

from __future__ import annotations

from dataclasses import replace

from seq2seq_cli.families import roberta

FAMILY = replace(
    roberta.FAMILY,
    name="camembert",
    options={**roberta.FAMILY.options, "vocab_size": 30522},
    tokenizer="sentencepiece unigram",
    architectures={
        "encoder": "CamembertModel",
        "decoder": "CamembertForCausalLM",
        "cross_decoder": "CamembertForCausalLM",
        "masked_lm": "CamembertForMaskedLM",
    },
)
