"""CamemBERT (Martin et al. 2020): RoBERTa for French, with a SentencePiece vocabulary."""

from __future__ import annotations

from dataclasses import replace

from seq2seq_cli.families import bert, roberta

FAMILY = replace(
    roberta.FAMILY,
    name="camembert",
    options={**bert.OPTIONS, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2},
    tokenizer="sentencepiece unigram",
    architectures={
        "encoder": "CamembertModel",
        "decoder": "CamembertForCausalLM",
        "cross_decoder": "CamembertForCausalLM",
        "masked_lm": "CamembertForMaskedLM",
    },
)
