"""GPT-2 (Radford et al. 2019): pre-norm causal stack with learned positions and a tied head.

Published matrices are stored [in, out] with query, key and value side by side; ``unpack`` turns them into
separate [out, in] ones and ``pack`` undoes that. The cross-attention names are transformers'.
"""

from __future__ import annotations

import re

import torch

from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.families.family import (
    Config,
    Family,
    Keys,
    Role,
    Weights,
    check_activation,
    head_size,
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
    if role == "masked_lm":
        raise CheckpointError("GPT-2 is no masked language model", remedy="train it as causal_lm")
    if config["bidirectional"] and role != "encoder":
        raise CheckpointError("bidirectional: true is for encoders", remedy="leave it out for this side")
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
        causal=not config["bidirectional"],
        cross_attention=role == "cross_decoder",
        head=None if role == "encoder" else HeadConfig(tied=config["tie_word_embeddings"]),
        dropout=config["resid_pdrop"],
        attention_dropout=config["attn_pdrop"],
        init_std=config["initializer_range"],
        init="scaled_residual",
    )


#: published module -> the parts side by side in its matrix
_FUSED = {"attn.c_attn": ("q", "k", "v"), "crossattention.c_attn": ("k", "v")}
_TRANSPOSED = (
    *("attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
    *("crossattention.q_attn", "crossattention.c_proj"),
)
_NAME = re.compile(r"(h\.\d+)\.(.+?)(?:\.(q|k|v))?\.(weight|bias)")


def _unpack(weights: Weights, config: Config) -> Weights:
    unpacked: Weights = {}
    for name in list(weights):
        tensor = weights.pop(name)  # so that the fused and the separate matrices never all stand in memory
        match = _NAME.fullmatch(name)
        if match is None or match[2] not in (*_FUSED, *_TRANSPOSED):
            unpacked[name] = tensor
            continue
        layer, module, _, leaf = match.groups()
        if tensor.ndim != (2 if leaf == "weight" else 1):
            raise CheckpointError(f"{name} has the wrong shape {tuple(tensor.shape)}")
        rows = tensor.t() if leaf == "weight" else tensor
        if module not in _FUSED:
            unpacked[name] = rows.contiguous()
            continue
        parts = _FUSED[module]
        # unequal pieces of a damaged matrix are named when shapes are compared with the config
        for part, piece in zip(parts, rows.tensor_split(len(parts)), strict=True):
            unpacked[f"{layer}.{module}.{part}.{leaf}"] = piece.contiguous()
    return unpacked


def _pack(weights: Weights, config: Config) -> Weights:
    packed: Weights = {}
    for name, tensor in weights.items():
        match = _NAME.fullmatch(name)
        if match is None or match[2] not in (*_FUSED, *_TRANSPOSED):
            packed[name] = tensor
            continue
        layer, module, part, leaf = match.groups()
        if module in _FUSED:
            parts = _FUSED[module]
            if part != parts[0]:
                continue
            tensor = torch.cat([weights[f"{layer}.{module}.{other}.{leaf}"] for other in parts])
        packed[f"{layer}.{module}.{leaf}"] = tensor.t().contiguous() if leaf == "weight" else tensor
    return packed


def _keys() -> Keys:
    published, ours = "h.{layer}", "layers.{layer}"
    return (
        ("wte.weight", "embedding.weight"),
        ("wpe.weight", "position_embedding.weight"),
        *linear(f"{published}.ln_1", f"{ours}.self_norm"),
        *linear(f"{published}.attn.c_attn.q", f"{ours}.self_attention.query"),
        *linear(f"{published}.attn.c_attn.k", f"{ours}.self_attention.key"),
        *linear(f"{published}.attn.c_attn.v", f"{ours}.self_attention.value"),
        *linear(f"{published}.attn.c_proj", f"{ours}.self_attention.output"),
        *linear(f"{published}.ln_cross_attn", f"{ours}.cross_norm"),
        *linear(f"{published}.crossattention.q_attn", f"{ours}.cross_attention.query"),
        *linear(f"{published}.crossattention.c_attn.k", f"{ours}.cross_attention.key"),
        *linear(f"{published}.crossattention.c_attn.v", f"{ours}.cross_attention.value"),
        *linear(f"{published}.crossattention.c_proj", f"{ours}.cross_attention.output"),
        *linear(f"{published}.ln_2", f"{ours}.feedforward_norm"),
        *linear(f"{published}.mlp.c_fc", f"{ours}.feedforward.inner"),
        *linear(f"{published}.mlp.c_proj", f"{ours}.feedforward.outer"),
        *linear("ln_f", "final_norm"),
    )


FAMILY = Family(
    name="gpt2",
    options=OPTIONS,
    stack_config=_stack_config,
    body_prefix="transformer.",
    keys=_keys(),
    head_keys=(("lm_head.weight", "head.weight"),),
    ignored=(
        r"h\.\d+\.(attn|crossattention)\.(bias|masked_bias)",
        r"multiple_choice_head\..*",
        r"score\.weight",
    ),
    tied=("lm_head.weight",),
    unpack=_unpack,
    pack=_pack,
    tokenizer="byte-level bpe",
    architectures={
        "encoder": "GPT2Model",
        "decoder": "GPT2LMHeadModel",
        "cross_decoder": "GPT2LMHeadModel",
    },
)
