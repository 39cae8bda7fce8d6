"""GPT-2 (Radford et al. 2019): pre-norm causal stack with learned positions and a tied head."""

from __future__ import annotations

from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.families import conv1d
from seq2seq_cli.families.family import (
    Config,
    Family,
    Role,
    check_activation,
    head_size,
    is_causal,
    linear,
)
from seq2seq_cli.model import EmbeddingConfig, FinalNormConfig, HeadConfig, StackConfig

OPTIONS = {
    "vocab_size": 50257,
    "n_positions": 1024,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_inner": None,
    "activation_function": "gelu_new",
    "resid_pdrop": 0.1,
    "embd_pdrop": 0.1,
    "attn_pdrop": 0.1,
    "layer_norm_epsilon": 1e-5,
    "initializer_range": 0.02,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,  # changes the order of rounding only, and in float32 nothing
    "tie_word_embeddings": True,
    "bos_token_id": 50256,
    "eos_token_id": 50256,
    "pad_token_id": None,
    "cross_attention_hidden_size": None,
    "bidirectional": False,  # ours: lift the causal mask when the stack is an encoder
}


def _stack_config(config: Config, role: Role) -> StackConfig:
    if config["cross_attention_hidden_size"] not in (None, config["n_embd"]):
        raise CheckpointError("cross_attention_hidden_size: a GPT-2 decoder attends at its own width only")
    return StackConfig(
        vocab_size=config["vocab_size"],
        hidden_size=config["n_embd"],
        num_layers=config["n_layer"],
        num_heads=config["n_head"],
        head_size=head_size(config, "n_embd", "n_head"),
        feedforward_size=config["n_inner"] or 4 * config["n_embd"],
        max_positions=config["n_positions"],
        embedding=EmbeddingConfig(dropout=config["embd_pdrop"]),
        activation=check_activation(config, "activation_function"),
        norm_order="pre",
        final_norm=FinalNormConfig(),
        norm_eps=config["layer_norm_epsilon"],
        attention_scale=None if config["scale_attn_weights"] else 1.0,
        scale_by_depth=config["scale_attn_by_inverse_layer_idx"],
        causal=is_causal(config, role, family="GPT-2"),
        cross_attention=role == "cross_decoder",
        head=None if role == "encoder" else HeadConfig(tied=config["tie_word_embeddings"]),
        dropout=config["resid_pdrop"],
        attention_dropout=config["attn_pdrop"],
        init_std=config["initializer_range"],
        init="scaled_residual",
    )


FAMILY = Family(
    name="gpt2",
    options=OPTIONS,
    stack_config=_stack_config,
    body_prefix="transformer.",
    keys=(
        ("wte.weight", "embedding.weight"),
        ("wpe.weight", "position_embedding.weight"),
        *conv1d.layer_keys(),
        *linear("ln_f", "final_norm"),
    ),
    head_keys=(("lm_head.weight", "head.weight"),),
    aliases=conv1d.ALIASES,
    ignored=conv1d.IGNORED,
    tied=("lm_head.weight",),
    unpack=conv1d.unpack,
    pack=conv1d.pack,
    tokenizer="byte-level bpe",
    architectures={
        "encoder": "GPT2Model",
        "decoder": "GPT2LMHeadModel",
        "cross_decoder": "GPT2LMHeadModel",
    },
)
