"""XLNet (Yang et al. 2019): a post-norm stack whose attention knows positions as sines and cosines of the
distance, trained to foretell tokens in any order.

Here it is its content stream. As an encoder that sees both ways, or, published with attn_type uni, to the
left only; as a decoder it gets a causal mask and foretells the next token, and attn_type uni says so in its
folder. What was published with attn_type bi writes by the query stream of the one place that comes next.
Matrices are published with one axis a head; ``unpack`` makes ordinary ones of them and ``pack`` undoes that.
The parameters of segments and of the masked token, which training does not use here, are kept frozen.
"""

from __future__ import annotations

import re

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
    refuse_unless,
    whole_number,
)
from seq2seq_cli.model import (
    EmbeddingConfig,
    FinalNormConfig,
    HeadConfig,
    OpenPlace,
    RelativePositions,
    StackConfig,
)

OPTIONS = {
    "vocab_size": 32000,
    "d_model": 1024,
    "n_layer": 24,
    "n_head": 16,
    "d_head": None,
    "d_inner": 4096,
    "ff_activation": "gelu",
    "attn_type": "bi",
    "clamp_len": -1,
    "same_length": False,
    "bi_data": False,
    # How much of a text a caller carries over to the next: there is no next one here, a cache keeps all, and
    # without one everything is read anew. (Carried from token to token, states miss what came after them.)
    "mem_len": 512,
    "reuse_len": None,
    "use_mems_eval": True,
    "use_mems_train": False,
    "untie_r": True,  # says how the original files were written; these hold every layer's biases either way
    "dropout": 0.1,
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.02,
    "tie_word_embeddings": True,
    "pad_token_id": 5,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "n_positions": 1024,  # ours: the longest text we take; nothing in the model ends there
}


def _stack_config(config: Config, role: Role) -> StackConfig:
    if role == "masked_lm":
        raise CheckpointError("XLNet is no masked language model", remedy="train it as causal_lm")
    refuse_unless(config, "attn_type", ["bi", "uni"])
    refuse_unless(config, "bi_data", [False])
    size = head_size(config, "d_model", "n_head")
    refuse_unless(config, "d_head", [None, size])
    if config["attn_type"] == "uni":  # with bi it is never looked at
        refuse_unless(config, "same_length", [False])
    whole_number(config, "mem_len", least=0)
    whole_number(config, "reuse_len", least=0)
    dropout = config["dropout"]
    return StackConfig(
        vocab_size=config["vocab_size"],
        hidden_size=config["d_model"],
        num_layers=config["n_layer"],
        num_heads=config["n_head"],
        head_size=size,
        feedforward_size=config["d_inner"],
        max_positions=config["n_positions"],
        embedding=EmbeddingConfig(positions="none", dropout=dropout, mask_row=True),
        relative=RelativePositions(
            kind="waves", furthest=max(0, whole_number(config, "clamp_len")), dropout=dropout, segments=2
        ),
        activation=check_activation(config, "ff_activation"),
        norm_order="post",
        norm_eps=config["layer_norm_eps"],
        final_norm=FinalNormConfig(norm=False, dropout=dropout),
        attention_bias=False,
        causal=role != "encoder" or config["attn_type"] == "uni",
        cross_attention=role == "cross_decoder",
        head=None if role == "encoder" else HeadConfig(bias=True, tied=config["tie_word_embeddings"]),
        dropout=dropout,
        attention_dropout=dropout,
        activation_dropout=dropout,
        init_std=config["initializer_range"],
    )


def _open_place(config: Config) -> OpenPlace | None:
    return OpenPlace() if config["attn_type"] == "bi" else None


_MATRIX = re.compile(r"layer\.\d+\.(rel|cross)_attn\.[qkvor]")


def _unpack(weights: Weights, config: Config) -> Weights:
    """[D, N, H] -> [N * H, D], the output's -> [D, N * H]."""
    unpacked: Weights = {}
    for name in list(weights):
        tensor = weights.pop(name)
        if _MATRIX.fullmatch(name):
            if tensor.ndim != 3:
                raise CheckpointError(f"{name} has the wrong shape {tuple(tensor.shape)}")
            tensor = tensor.flatten(1)
            tensor = tensor if name.endswith(".o") else tensor.t()
        unpacked[name] = tensor
    return unpacked


def _pack(weights: Weights, config: Config) -> Weights:
    packed: Weights = {}
    for name, tensor in weights.items():
        if _MATRIX.fullmatch(name):
            rows = tensor if name.endswith(".o") else tensor.t()
            tensor = rows.reshape(rows.shape[0], config["n_head"], -1).contiguous()
        packed[name] = tensor
    return packed


def _keys() -> Keys:
    published, ours = "layer.{layer}", "layers.{layer}"
    keys = [
        ("word_embedding.weight", "embedding.weight"),
        ("mask_emb", "mask_embedding"),
        (f"{published}.rel_attn.r", f"{ours}.self_attention.relative.position.weight"),
        (f"{published}.rel_attn.r_w_bias", f"{ours}.self_attention.relative.content_bias"),
        (f"{published}.rel_attn.r_r_bias", f"{ours}.self_attention.relative.position_bias"),
        (f"{published}.rel_attn.r_s_bias", f"{ours}.self_attention.relative.segment_bias"),
        (f"{published}.rel_attn.seg_embed", f"{ours}.self_attention.relative.segment_embedding"),
        *linear(f"{published}.ff.layer_1", f"{ours}.feedforward.inner"),
        *linear(f"{published}.ff.layer_2", f"{ours}.feedforward.outer"),
        *linear(f"{published}.ff.layer_norm", f"{ours}.feedforward_norm"),
    ]
    for theirs, block in (("rel_attn", "self"), ("cross_attn", "cross")):
        for name, part in (("q", "query"), ("k", "key"), ("v", "value"), ("o", "output")):
            keys.append((f"{published}.{theirs}.{name}", f"{ours}.{block}_attention.{part}.weight"))
        keys += linear(f"{published}.{theirs}.layer_norm", f"{ours}.{block}_norm")
    return tuple(keys)


FAMILY = Family(
    name="xlnet",
    options=OPTIONS,
    stack_config=_stack_config,
    body_prefix="transformer.",
    keys=_keys(),
    head_keys=linear("lm_loss", "head"),
    ignored=(
        r"(sequence_summary|logits_proj|start_logits|end_logits|answer_class|qa_outputs|classifier)\..*",
    ),
    tied=("lm_loss.weight",),
    aliases={
        "n_token": "vocab_size",
        "hidden_size": "d_model",
        "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    },
    # the published code knows it from there alone, and would look at same_length then
    role_settings={"decoder": {"attn_type": "uni", "same_length": False}},
    open_place=_open_place,
    unpack=_unpack,
    pack=_pack,
    tokenizer="sentencepiece unigram",
    architectures={
        "encoder": "XLNetModel",
        "decoder": "XLNetLMHeadModel",
        "cross_decoder": "XLNetLMHeadModel",
    },
)
