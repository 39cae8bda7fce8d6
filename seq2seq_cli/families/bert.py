"""BERT (Devlin et al. 2019): post-norm encoder with learned positions and a token type table.

As a decoder it is made causal, gets cross-attention between self-attention and feed-forward, and keeps its
masked language model head as the head that predicts the next token (Rothe et al. 2020).
"""

from __future__ import annotations

from typing import Literal

from seq2seq_cli.families.family import (
    Config,
    Family,
    Keys,
    Role,
    check_activation,
    head_size,
    linear,
    refuse_unless,
)
from seq2seq_cli.model import EmbeddingConfig, HeadConfig, RelativePositions, StackConfig

OPTIONS = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "position_embedding_type": "absolute",
    "tie_word_embeddings": True,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
    "cross_attention_hidden_size": None,
}


#: position_embedding_type -> ours (Shaw et al. 2018; Huang et al. 2020)
_RELATIVE: dict[str, Literal["key", "key_query"]] = {"relative_key": "key", "relative_key_query": "key_query"}


def bert_like(config: Config, role: Role, *, position_offset: int = 0) -> StackConfig:
    """The stack of BERT and of the families that differ from it in names and position offset only."""
    positions, rows = config["position_embedding_type"], config["max_position_embeddings"]
    refuse_unless(config, "position_embedding_type", ["absolute", *_RELATIVE])
    activation = check_activation(config, "hidden_act")
    return StackConfig(
        vocab_size=config["vocab_size"],
        hidden_size=config["hidden_size"],
        num_layers=config["num_hidden_layers"],
        num_heads=config["num_attention_heads"],
        head_size=head_size(config, "hidden_size", "num_attention_heads"),
        feedforward_size=config["intermediate_size"],
        # nothing is looked up by place where distances alone are known
        max_positions=rows if positions in _RELATIVE else rows - position_offset,
        embedding=EmbeddingConfig(
            positions="none" if positions in _RELATIVE else "learned",
            position_offset=position_offset,
            token_types=config["type_vocab_size"],
            norm=True,
            dropout=config["hidden_dropout_prob"],
        ),
        relative=RelativePositions(kind=_RELATIVE[positions], rows=rows) if positions in _RELATIVE else None,
        activation=activation,
        norm_order="post",
        norm_eps=config["layer_norm_eps"],
        causal=role in ("decoder", "cross_decoder"),
        cross_attention=role == "cross_decoder",
        cross_attention_size=config["cross_attention_hidden_size"],
        head=None
        if role == "encoder"
        else HeadConfig(transform=True, activation=activation, bias=True, tied=config["tie_word_embeddings"]),
        dropout=config["hidden_dropout_prob"],
        attention_dropout=config["attention_probs_dropout_prob"],
        init_std=config["initializer_range"],
    )


def layer_keys() -> Keys:
    """Names of the embeddings and layers, BERT's way."""
    published, ours = "encoder.layer.{layer}", "layers.{layer}"
    keys: list[tuple[str, str]] = [
        ("embeddings.word_embeddings.weight", "embedding.weight"),
        ("embeddings.position_embeddings.weight", "position_embedding.weight"),
        ("embeddings.token_type_embeddings.weight", "token_type_embedding.weight"),
        *linear("embeddings.LayerNorm", "embedding_norm"),
        (
            f"{published}.attention.self.distance_embedding.weight",
            f"{ours}.self_attention.relative.table.weight",
        ),
        *linear(f"{published}.intermediate.dense", f"{ours}.feedforward.inner"),
        *linear(f"{published}.output.dense", f"{ours}.feedforward.outer"),
        *linear(f"{published}.output.LayerNorm", f"{ours}.feedforward_norm"),
    ]
    for theirs, block in (("attention", "self"), ("crossattention", "cross")):
        for part in ("query", "key", "value"):
            keys += linear(f"{published}.{theirs}.self.{part}", f"{ours}.{block}_attention.{part}")
        keys += linear(f"{published}.{theirs}.output.dense", f"{ours}.{block}_attention.output")
        keys += linear(f"{published}.{theirs}.output.LayerNorm", f"{ours}.{block}_norm")
    return tuple(keys)


#: pooler and next-sentence head are of no use here; position_ids is a buffer of old versions
IGNORED = (
    r"pooler\..*",
    r"embeddings\.position_ids",
    r"embeddings\.token_type_ids",
    r"cls\.seq_relationship\..*",
)

FAMILY = Family(
    name="bert",
    options=OPTIONS,
    stack_config=bert_like,
    body_prefix="bert.",
    keys=layer_keys(),
    head_keys=(
        *linear("cls.predictions.transform.dense", "head.dense"),
        *linear("cls.predictions.transform.LayerNorm", "head.norm"),
        ("cls.predictions.decoder.weight", "head.weight"),
        ("cls.predictions.bias", "head.bias"),
    ),
    ignored=IGNORED,
    tied=("cls.predictions.decoder.weight", "cls.predictions.decoder.bias"),
    tokenizer="wordpiece",
    architectures={
        "encoder": "BertModel",
        "decoder": "BertLMHeadModel",
        "cross_decoder": "BertLMHeadModel",
        "masked_lm": "BertForMaskedLM",
    },
)
