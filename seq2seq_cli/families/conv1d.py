"""What GPT and GPT-2 files have in common: names, and matrices stored [in, out] with some side by side.

``unpack`` turns them into separate [out, in] matrices, views where that will do, and ``pack`` undoes that.
The cross-attention names are those of transformers' GPT-2.
"""

from __future__ import annotations

import re

import torch

from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.families.family import Config, Keys, Weights, linear

#: published module -> the parts side by side in its matrix
_FUSED = {"attn.c_attn": ("q", "k", "v"), "crossattention.c_attn": ("k", "v")}
_TRANSPOSED = (
    *("attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
    *("crossattention.q_attn", "crossattention.c_proj"),
)
_NAME = re.compile(r"(h\.\d+)\.(.+?)(?:\.(q|k|v))?\.(weight|bias)")

#: names that the published code takes for the same options
ALIASES = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}
#: causal masks that were once saved, and heads that choose or classify
IGNORED = (
    r"h\.\d+\.(attn|crossattention)\.(bias|masked_bias)",
    r"multiple_choice_head\..*",
    r"score\.weight",
)


def layer_keys() -> Keys:
    """Names of the layers, after ``unpack``."""
    published, ours = "h.{layer}", "layers.{layer}"
    return (
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
    )


def unpack(weights: Weights, config: Config) -> Weights:
    """Published tensors as separate [out, in] matrices; the fused modules get a name for each part."""
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
        if module not in _FUSED:
            unpacked[name] = tensor.t() if leaf == "weight" else tensor
            continue
        parts = _FUSED[module]
        # Unequal pieces of a damaged matrix are named when shapes are compared with the config. Each gets
        # memory of its own: torch's fused optimizers write past a matrix whose columns lie apart.
        for part, piece in zip(parts, tensor.tensor_split(len(parts), dim=-1), strict=True):
            own = piece.contiguous()
            unpacked[f"{layer}.{module}.{part}.{leaf}"] = own.t() if leaf == "weight" else own
    return unpacked


def pack(weights: Weights, config: Config) -> Weights:
    """The inverse of ``unpack``."""
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
