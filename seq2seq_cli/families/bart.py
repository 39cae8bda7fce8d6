"""BART (Lewis et al. 2020): a post-norm encoder and decoder with learned positions behind an offset of two.

A side stands alone under the names of its own stack, a decoder under those of transformers'
BartForCausalLM, which has cross-attention as published.
"""

from __future__ import annotations

from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.families.family import (
    Config,
    Family,
    Keys,
    Role,
    Weights,
    Whole,
    check_activation,
    head_size,
    linear,
    refuse_unless,
)
from seq2seq_cli.model import EmbeddingConfig, HeadConfig, StackConfig

#: rows at the head of the position table that are never used (fairseq counts from the padding id on)
_OFFSET = 2

OPTIONS = {
    "vocab_size": 50265,
    "max_position_embeddings": 1024,
    "d_model": 1024,
    "encoder_layers": 12,
    "encoder_ffn_dim": 4096,
    "encoder_attention_heads": 16,
    "decoder_layers": 12,
    "decoder_ffn_dim": 4096,
    "decoder_attention_heads": 16,
    "activation_function": "gelu",
    "dropout": 0.1,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "init_std": 0.02,
    "scale_embedding": False,
    "tie_word_embeddings": True,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "forced_eos_token_id": 2,
}

#: keys of old files and of relatives -> what alone is computed here
_FIXED = {
    "normalize_before": (None, False),
    "normalize_embedding": (None, True),
    "add_final_layer_norm": (None, False),
    "static_position_embeddings": (None, False),
    "extra_pos_embeddings": (None, _OFFSET),
    "encoder_layerdrop": (None, 0),
    "decoder_layerdrop": (None, 0),
}


def _stack_config(config: Config, role: Role) -> StackConfig:
    if role == "masked_lm":
        raise CheckpointError("BART fills gaps as an encoder-decoder only", remedy="train it as seq2seq")
    for key, allowed in _FIXED.items():
        refuse_unless(config, key, allowed)
    refuse_unless(config, "cross_attention_hidden_size", [None, config["d_model"]])
    side = "encoder" if role == "encoder" else "decoder"
    return StackConfig(
        vocab_size=config["vocab_size"],
        hidden_size=config["d_model"],
        num_layers=config[f"{side}_layers"],
        num_heads=config[f"{side}_attention_heads"],
        head_size=head_size(config, "d_model", f"{side}_attention_heads"),
        feedforward_size=config[f"{side}_ffn_dim"],
        max_positions=config["max_position_embeddings"],
        embedding=EmbeddingConfig(
            scale=config["d_model"] ** 0.5 if config["scale_embedding"] else 1.0,
            position_offset=_OFFSET,
            norm=True,
            dropout=config["dropout"],
        ),
        activation=check_activation(config, "activation_function"),
        norm_order="post",
        causal=side == "decoder",
        cross_attention=role == "cross_decoder",
        head=HeadConfig(tied=config["tie_word_embeddings"]) if side == "decoder" else None,
        dropout=config["dropout"],
        attention_dropout=config["attention_dropout"],
        activation_dropout=config["activation_dropout"],
        init_std=config["init_std"],
    )


def _unpack(weights: Weights, config: Config) -> Weights:
    if "final_logits_bias" in weights:
        weights["final_logits_bias"] = weights["final_logits_bias"].flatten()  # published as [1, V]
    return weights


def _keys() -> Keys:
    published, ours = "layers.{layer}", "layers.{layer}"
    keys: list[tuple[str, str]] = [
        ("embed_tokens.weight", "embedding.weight"),
        ("embed_positions.weight", "position_embedding.weight"),
        *linear("layernorm_embedding", "embedding_norm"),
        *linear(f"{published}.fc1", f"{ours}.feedforward.inner"),
        *linear(f"{published}.fc2", f"{ours}.feedforward.outer"),
        *linear(f"{published}.final_layer_norm", f"{ours}.feedforward_norm"),
    ]
    for theirs, block in (("self_attn", "self"), ("encoder_attn", "cross")):
        for name, part in (
            ("q_proj", "query"),
            ("k_proj", "key"),
            ("v_proj", "value"),
            ("out_proj", "output"),
        ):
            keys += linear(f"{published}.{theirs}.{name}", f"{ours}.{block}_attention.{part}")
        keys += linear(f"{published}.{theirs}_layer_norm", f"{ours}.{block}_norm")
    return tuple(keys)


FAMILY = Family(
    name="bart",
    options=OPTIONS,
    stack_config=_stack_config,
    body_prefix="model.decoder.",
    keys=_keys(),
    head_keys=(("lm_head.weight", "head.weight"), ("final_logits_bias", "head.bias")),
    ignored=(r"version", r"classification_head\..*", r"qa_outputs\..*"),
    tied=("lm_head.weight",),
    aliases={
        "hidden_size": "d_model",
        "num_attention_heads": "encoder_attention_heads",
        "num_hidden_layers": "encoder_layers",
    },
    role_settings={role: {"is_encoder_decoder": False} for role in ("encoder", "decoder")},
    unpack=_unpack,
    tokenizer="byte-level bpe",
    architectures={
        "encoder": "BartEncoder",
        "decoder": "BartForCausalLM",
        "cross_decoder": "BartForCausalLM",
    },
    whole=Whole(architecture="BartForConditionalGeneration", start="eos_token_id", bias="final_logits_bias"),
)
