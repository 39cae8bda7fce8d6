"""DistilBERT (Sanh et al. 2019): half of BERT's layers, no token types, and names of its own.

No decoder of this family is published. As one it is made causal and keeps its masked language model head;
the names of its cross-attention (``cross_attention``, ``ca_layer_norm``) follow those of its self-attention.
In training we drop states behind the attention block too, as BERT does; the published code does not.
"""

from __future__ import annotations

from seq2seq_cli.families.family import Config, Family, Keys, Role, check_activation, head_size, linear
from seq2seq_cli.model import EmbeddingConfig, HeadConfig, StackConfig

OPTIONS = {
    "vocab_size": 30522,
    "dim": 768,
    "n_layers": 6,
    "n_heads": 12,
    "hidden_dim": 3072,
    "activation": "gelu",
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "max_position_embeddings": 512,
    "sinusoidal_pos_embds": False,
    "initializer_range": 0.02,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
    "cross_attention_hidden_size": None,
}


def _stack_config(config: Config, role: Role) -> StackConfig:
    activation = check_activation(config, "activation")
    return StackConfig(
        vocab_size=config["vocab_size"],
        hidden_size=config["dim"],
        num_layers=config["n_layers"],
        num_heads=config["n_heads"],
        head_size=head_size(config, "dim", "n_heads"),
        feedforward_size=config["hidden_dim"],
        max_positions=config["max_position_embeddings"],
        embedding=EmbeddingConfig(
            positions="fixed" if config["sinusoidal_pos_embds"] else "learned",
            norm=True,
            dropout=config["dropout"],
        ),
        activation=activation,
        norm_order="post",
        norm_eps=1e-12,  # not in config.json
        causal=role in ("decoder", "cross_decoder"),
        cross_attention=role == "cross_decoder",
        cross_attention_size=config["cross_attention_hidden_size"],
        head=None
        if role == "encoder"
        else HeadConfig(transform=True, activation=activation, bias=True, tied=config["tie_word_embeddings"]),
        dropout=config["dropout"],
        attention_dropout=config["attention_dropout"],
        init_std=config["initializer_range"],
    )


def _keys() -> Keys:
    published, ours = "transformer.layer.{layer}", "layers.{layer}"
    keys: list[tuple[str, str]] = [
        ("embeddings.word_embeddings.weight", "embedding.weight"),
        ("embeddings.position_embeddings.weight", "position_embedding.weight"),
        *linear("embeddings.LayerNorm", "embedding_norm"),
        *linear(f"{published}.ffn.lin1", f"{ours}.feedforward.inner"),
        *linear(f"{published}.ffn.lin2", f"{ours}.feedforward.outer"),
        *linear(f"{published}.output_layer_norm", f"{ours}.feedforward_norm"),
    ]
    for theirs, norm, block in (
        ("attention", "sa_layer_norm", "self"),
        ("cross_attention", "ca_layer_norm", "cross"),
    ):
        for part, name in (("q", "query"), ("k", "key"), ("v", "value"), ("out", "output")):
            keys += linear(f"{published}.{theirs}.{part}_lin", f"{ours}.{block}_attention.{name}")
        keys += linear(f"{published}.{norm}", f"{ours}.{block}_norm")
    return tuple(keys)


FAMILY = Family(
    name="distilbert",
    options=OPTIONS,
    stack_config=_stack_config,
    body_prefix="distilbert.",
    keys=_keys(),
    head_keys=(
        *linear("vocab_transform", "head.dense"),
        *linear("vocab_layer_norm", "head.norm"),
        *linear("vocab_projector", "head"),
    ),
    ignored=(r"embeddings\.position_ids",),
    tied=("vocab_projector.weight",),
    tokenizer="wordpiece",
    architectures={
        "encoder": "DistilBertModel",
        "decoder": "DistilBertForMaskedLM",
        "cross_decoder": "DistilBertForMaskedLM",
        "masked_lm": "DistilBertForMaskedLM",
    },
)
