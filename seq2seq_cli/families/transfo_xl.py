"""Transformer-XL (Dai et al. 2019): a causal stack whose attention knows positions as sines and cosines of
the distance and sees a memory of earlier states; its vocabulary may be cut into clusters.

As published, a text begins behind ``mem_len`` states of zeros, and from call to call of a cache the last
``mem_len`` states are kept. In a pair the decoder reads and writes each target as one whole: nothing stands
before it, nothing is forgotten, and same_length, which is about the memory, says nothing. Query, key and
value are published as one matrix; ``unpack`` takes them apart and ``pack`` puts them together.
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
    linear,
    refuse_unless,
    whole_number,
)
from seq2seq_cli.model import (
    AdaptiveConfig,
    EmbeddingConfig,
    FinalNormConfig,
    HeadConfig,
    RelativePositions,
    StackConfig,
)

OPTIONS = {
    "vocab_size": 267735,
    "cutoffs": [20000, 40000, 200000],
    "div_val": 4,
    "d_model": 1024,
    "d_embed": 1024,
    "n_head": 16,
    "d_head": 64,
    "d_inner": 4096,
    "n_layer": 18,
    "pre_lnorm": False,
    "mem_len": 1600,
    "ext_len": 0,
    "clamp_len": 1000,
    "same_length": True,
    "proj_share_all_but_first": True,
    "tie_projs": [],  # what follows from the key above; files that say so win
    "attn_type": 0,
    "sample_softmax": -1,
    "untie_r": True,
    "tie_word_embeddings": True,
    "dropout": 0.1,
    "dropatt": 0.0,
    "layer_norm_epsilon": 1e-5,
    "init": "normal",
    "init_range": 0.01,
    "init_std": 0.02,
    "proj_init_std": 0.01,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": None,
    "n_positions": 1024,  # ours: the longest text we take; nothing in the model ends there
}


def _cutoffs(config: Config) -> tuple[int, ...]:
    cutoffs, vocab = config["cutoffs"], config["vocab_size"]
    whole = all(isinstance(cutoff, int) and not isinstance(cutoff, bool) for cutoff in cutoffs)
    if not whole or any(a >= b for a, b in zip([0, *cutoffs], [*cutoffs, vocab], strict=True)):
        raise CheckpointError(
            f"cutoffs={cutoffs!r} do not rise within the vocabulary of {vocab}",
            remedy="cutoffs: [] is a vocabulary in one piece",
        )
    if config["d_embed"] // config["div_val"] ** len(cutoffs) < 1:
        raise CheckpointError(
            f"div_val={config['div_val']} leaves no width of d_embed={config['d_embed']} for the last of "
            f"{len(cutoffs) + 1} clusters"
        )
    return tuple(cutoffs)


def _tied_projections(config: Config, clusters: int) -> tuple[bool, ...]:
    """By cluster, whether the head's map is the embedding's."""
    stated = config["tie_projs"] or [False] + [config["proj_share_all_but_first"]] * (clusters - 1)
    if len(stated) < clusters or not all(isinstance(tied, bool) for tied in stated):
        raise CheckpointError(f"tie_projs={stated!r} does not fit {clusters} clusters of the vocabulary")
    return tuple(stated[:clusters])


#: ten times the published one: what stands before a text costs memory in every layer
_MOST_MEMORY = 16_384


def _relative(config: Config, role: Role) -> RelativePositions:
    memory = whole_number(config, "mem_len", least=0)
    if memory > _MOST_MEMORY:
        raise CheckpointError(f"mem_len={memory} is more than the {_MOST_MEMORY} states that we keep")
    if config["same_length"] and not memory and role != "cross_decoder":
        raise CheckpointError("same_length=True with mem_len=0 hides everything", remedy="same_length: false")
    return RelativePositions(
        kind="waves",
        furthest=max(0, whole_number(config, "clamp_len")),
        dropout=config["dropout"],
        shared_biases=not config["untie_r"],
        memory=memory,
        same_length=config["same_length"],
    )


def _stack_config(config: Config, role: Role) -> StackConfig:
    if role == "masked_lm":
        raise CheckpointError("Transformer-XL is no masked language model", remedy="train it as causal_lm")
    refuse_unless(config, "attn_type", [0])
    refuse_unless(config, "sample_softmax", [-1, 0])
    refuse_unless(config, "ext_len", [0, None])
    refuse_unless(config, "init", ["normal", "uniform"])
    cutoffs = _cutoffs(config)
    head = HeadConfig(
        tied=config["tie_word_embeddings"],
        bias=True,
        tied_projections=_tied_projections(config, len(cutoffs) + 1),
    )
    uniform = config["init"] == "uniform"
    return StackConfig(
        vocab_size=config["vocab_size"],
        hidden_size=config["d_model"],
        num_layers=config["n_layer"],
        num_heads=config["n_head"],
        head_size=config["d_head"],
        feedforward_size=config["d_inner"],
        max_positions=config["n_positions"],
        embedding=EmbeddingConfig(
            size=config["d_embed"],
            adaptive=AdaptiveConfig(
                cutoffs=cutoffs, divisor=config["div_val"], projection_init_std=config["proj_init_std"]
            ),
            scale=config["d_model"] ** 0.5,
            positions="none",
            dropout=config["dropout"],
        ),
        relative=_relative(config, role),
        activation="relu",
        norm_order="pre" if config["pre_lnorm"] else "post",
        norm_eps=config["layer_norm_epsilon"],
        final_norm=FinalNormConfig(norm=False, dropout=config["dropout"]),
        attention_bias=False,
        causal=True,
        cross_attention=role == "cross_decoder",
        head=None if role == "encoder" else head,
        dropout=config["dropout"],
        attention_dropout=config["dropatt"],
        activation_dropout=config["dropout"],
        init="uniform" if uniform else "normal",
        init_std=config["init_range"] if uniform else config["init_std"],
    )


#: published matrix -> the parts that lie on each other in it
_FUSED = {"dec_attn.qkv_net": ("q", "k", "v"), "cross_attn.kv_net": ("k", "v")}
_NAME = re.compile(rf"(layers\.\d+)\.({'|'.join(map(re.escape, _FUSED))})(?:\.(\w))?\.weight")
_PROJECTION = re.compile(r"(word_emb\.emb_projs|crit\.out_projs)\.\d+")
_SHARED = ("r_w_bias", "r_r_bias")


def _unpack(weights: Weights, config: Config) -> Weights:
    """Of the biases that all layers share, which stand beside the layers and in each, one copy is taken."""
    unpacked: Weights = {}
    for name in list(weights):
        tensor = weights.pop(name)
        match = _NAME.fullmatch(name)
        if match is not None:
            parts = _FUSED[match[2]]
            for part, piece in zip(parts, tensor.tensor_split(len(parts)), strict=True):
                unpacked[f"{match[1]}.{match[2]}.{part}.weight"] = piece.contiguous()
        elif _PROJECTION.fullmatch(name):
            unpacked[f"{name}.weight"] = tensor
        else:
            unpacked[name] = tensor
    if not config["untie_r"]:
        for name in _SHARED:
            copies = [other for other in unpacked if other.rpartition(".")[2] == name]
            tensors = [unpacked.pop(other) for other in copies]
            unpacked |= {f"layers.0.dec_attn.{name}": tensor for tensor in tensors[:1]}
    return unpacked


def _pack(weights: Weights, config: Config) -> Weights:
    """Shared biases are written wherever the published model looks for them."""
    packed: Weights = {}
    for name, tensor in weights.items():
        match = _NAME.fullmatch(name)
        if match is None:
            packed[name.removesuffix(".weight") if _PROJECTION.match(name) else name] = tensor
        elif match[3] == _FUSED[match[2]][0]:
            pieces = [weights[f"{match[1]}.{match[2]}.{part}.weight"] for part in _FUSED[match[2]]]
            packed[f"{match[1]}.{match[2]}.weight"] = torch.cat(pieces)
    for name in _SHARED:
        shared = packed.get(f"layers.0.dec_attn.{name}")
        if not config["untie_r"] and shared is not None:
            packed |= {f"layers.{layer}.dec_attn.{name}": shared for layer in range(config["n_layer"])}
            packed[name] = shared
    return packed


def _keys() -> Keys:
    published, ours = "layers.{layer}", "layers.{layer}"
    relative = f"{ours}.self_attention.relative"
    return (
        ("word_emb.emb_layers.{layer}.weight", "embedding.tables.{layer}.weight"),
        ("word_emb.emb_projs.{layer}.weight", "embedding.projections.{layer}.weight"),
        (f"{published}.dec_attn.qkv_net.q.weight", f"{ours}.self_attention.query.weight"),
        (f"{published}.dec_attn.qkv_net.k.weight", f"{ours}.self_attention.key.weight"),
        (f"{published}.dec_attn.qkv_net.v.weight", f"{ours}.self_attention.value.weight"),
        (f"{published}.dec_attn.o_net.weight", f"{ours}.self_attention.output.weight"),
        (f"{published}.dec_attn.r_net.weight", f"{relative}.position.weight"),
        (f"{published}.dec_attn.r_w_bias", f"{relative}.content_bias"),
        (f"{published}.dec_attn.r_r_bias", f"{relative}.position_bias"),
        *linear(f"{published}.dec_attn.layer_norm", f"{ours}.self_norm"),
        (f"{published}.cross_attn.q_net.weight", f"{ours}.cross_attention.query.weight"),
        (f"{published}.cross_attn.kv_net.k.weight", f"{ours}.cross_attention.key.weight"),
        (f"{published}.cross_attn.kv_net.v.weight", f"{ours}.cross_attention.value.weight"),
        (f"{published}.cross_attn.o_net.weight", f"{ours}.cross_attention.output.weight"),
        *linear(f"{published}.cross_attn.layer_norm", f"{ours}.cross_norm"),
        *linear(f"{published}.pos_ff.CoreNet.0", f"{ours}.feedforward.inner"),
        *linear(f"{published}.pos_ff.CoreNet.3", f"{ours}.feedforward.outer"),
        *linear(f"{published}.pos_ff.layer_norm", f"{ours}.feedforward_norm"),
    )


FAMILY = Family(
    name="transfo-xl",
    options=OPTIONS,
    stack_config=_stack_config,
    body_prefix="transformer.",
    keys=_keys(),
    head_keys=(
        *linear("crit.out_layers.{layer}", "head.outputs.{layer}"),
        ("crit.out_projs.{layer}.weight", "head.projections.{layer}.weight"),
        ("crit.cluster_weight", "head.clusters.weight"),
        ("crit.cluster_bias", "head.clusters.bias"),
    ),
    ignored=(r"pos_emb\.inv_freq", r"score\.weight"),
    aliases={
        "n_token": "vocab_size",
        "hidden_size": "d_model",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    },
    unpack=_unpack,
    pack=_pack,
    tokenizer="words",
    architectures={
        "encoder": "TransfoXLModel",
        "decoder": "TransfoXLLMHeadModel",
        "cross_decoder": "TransfoXLLMHeadModel",
    },
)
