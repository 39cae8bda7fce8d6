"""T5 (Raffel et al. 2020), versions 1.0 and 1.1: a pre-norm encoder and decoder without biases, whose
attention knows positions as learned numbers per head and bucket of distances.

A side stands alone under the names of its own stack, a decoder behind ``decoder.`` with its ``lm_head``.
"""

from __future__ import annotations

import re
from typing import Any

from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.families.family import (
    Config,
    Family,
    Keys,
    Role,
    Weights,
    Whole,
    check_activation,
    refuse_unless,
)
from seq2seq_cli.model import EmbeddingConfig, FinalNormConfig, HeadConfig, RelativePositions, StackConfig

OPTIONS = {
    "vocab_size": 32128,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 6,
    "num_decoder_layers": None,
    "num_heads": 8,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "dropout_rate": 0.1,
    "layer_norm_epsilon": 1e-6,
    "initializer_factor": 1.0,
    "feed_forward_proj": "relu",
    "tie_word_embeddings": True,
    "n_positions": 512,  # what it was trained on; nothing in it ends there
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}
#: what follows from feed_forward_proj; newer files write it out as well
_DERIVED = ("dense_act_fn", "is_gated_act")


def _feedforward(config: Config) -> tuple[str, bool]:
    """Activation, and whether it is a gate's (Shazeer 2020). gated-gelu has always meant the tanh form."""
    kind, _, rest = str(config["feed_forward_proj"]).partition("-")
    gated = kind == "gated" and bool(rest)
    if rest and not gated:
        raise CheckpointError(
            f"feed_forward_proj {config['feed_forward_proj']!r} is not supported",
            remedy="an activation, or gated- and an activation",
        )
    name = "gelu_new" if gated and rest == "gelu" else rest or kind
    for key, value in zip(_DERIVED, (name, gated), strict=True):
        if config.get(key, value) != value:
            raise CheckpointError(
                f"{key}={config[key]!r} contradicts feed_forward_proj={config['feed_forward_proj']!r}"
            )
    return check_activation({"feed_forward_proj": name}, "feed_forward_proj"), gated


def _relative(config: Config, *, causal: bool) -> RelativePositions:
    rows, furthest = (config[f"relative_attention_{key}"] for key in ("num_buckets", "max_distance"))
    near = rows // 2 if causal else rows // 4  # distances with a bucket of their own
    if near < 1 or furthest <= near:
        raise CheckpointError(
            f"relative_attention_num_buckets={rows} and relative_attention_max_distance={furthest}: no fit",
            remedy="at least 4 buckets, and a distance of more than half of them",
        )
    return RelativePositions(kind="buckets", rows=rows, furthest=furthest)


def _stack_config(config: Config, role: Role) -> StackConfig:
    if role == "masked_lm":
        raise CheckpointError("T5 fills gaps as an encoder-decoder only", remedy="train it as seq2seq")
    refuse_unless(config, "cross_attention_hidden_size", [None, config["d_model"]])
    causal = role != "encoder"
    layers = (causal and config["num_decoder_layers"]) or config["num_layers"]
    activation, gated = _feedforward(config)
    dropout = config["dropout_rate"]
    scale = config["d_model"] ** -0.5 if _scales(config) else 1.0
    return StackConfig(
        vocab_size=config["vocab_size"],
        hidden_size=config["d_model"],
        num_layers=layers,
        num_heads=config["num_heads"],
        head_size=config["d_kv"],
        feedforward_size=config["d_ff"],
        max_positions=config["n_positions"],
        embedding=EmbeddingConfig(positions="none", dropout=dropout),
        relative=_relative(config, causal=causal),
        activation=activation,
        gated=gated,
        norm="rms",
        norm_order="pre",
        norm_eps=config["layer_norm_epsilon"],
        final_norm=FinalNormConfig(eps=config["layer_norm_epsilon"], dropout=dropout),
        attention_bias=False,
        feedforward_bias=False,
        attention_scale=1.0,
        causal=causal,
        cross_attention=role == "cross_decoder",
        head=HeadConfig(tied=config["tie_word_embeddings"], scale=scale) if causal else None,
        dropout=dropout,
        attention_dropout=dropout,
        activation_dropout=dropout,
        init_std=config["initializer_factor"],
        init="fan_in",
    )


def _scales(config: Config) -> bool:
    """Whether the head's input is scaled by d_model ** -0.5: said by a key of its own in new files, else true
    of the first version, whose files say (or leave unsaid) that the head is tied."""
    refuse_unless(config, "tie_word_embeddings", [True, False])
    refuse_unless(config, "scale_decoder_outputs", [None, True, False])
    stated = config.get("scale_decoder_outputs")
    return bool(config["tie_word_embeddings"] if stated is None else stated)


def _settled(config: Config) -> dict[str, Any]:
    _feedforward(config)
    kept = {key: value for key, value in config.items() if key not in _DERIVED}
    return kept | {"scale_decoder_outputs": _scales(config)}


#: the stack's one table of distances, which its first layer keeps
_TABLE, _TABLE_PLACE = "relative_attention_bias.weight", "block.0.layer.0.SelfAttention."
_FEEDFORWARD = re.compile(r"(block\.\d+\.layer)\.(1|2)\.(DenseReluDense\.(.+)|layer_norm\.weight)")


def _renumbered(weights: Weights, old: str, new: str, inner: tuple[str, str]) -> Weights:
    """The feed-forward block's number behind ``.layer.``, and the name of its first matrix."""
    renamed: Weights = {}
    for name, tensor in weights.items():
        match = _FEEDFORWARD.fullmatch(name)
        if match is not None and match[2] == old:
            name = f"{match[1]}.{new}.{match[3]}"
            if match[4] == inner[0]:
                name = name.removesuffix(inner[0]) + inner[1]
        renamed[name] = tensor
    return renamed


def _unpack(weights: Weights, config: Config) -> Weights:
    """Our table has a decoder's numbers, where cross-attention is in the middle, and a gate's names."""
    is_decoder = any(".layer.2." in name for name in weights)
    if _TABLE_PLACE + _TABLE in weights:
        weights[_TABLE] = weights.pop(_TABLE_PLACE + _TABLE)
    return _renumbered(weights, "2" if is_decoder else "1", "2", ("wi.weight", "wi_0.weight"))


def _pack(weights: Weights, config: Config) -> Weights:
    is_decoder = config.get("is_decoder") or any(".EncDecAttention." in name for name in weights)
    plain = ("wi_0.weight", "wi_0.weight" if _feedforward(config)[1] else "wi.weight")
    placed = {_TABLE_PLACE + name if name == _TABLE else name: tensor for name, tensor in weights.items()}
    return _renumbered(placed, "2", "2" if is_decoder else "1", plain)


def _keys() -> Keys:
    published, ours = "block.{layer}.layer", "layers.{layer}"
    keys = [
        ("embed_tokens.weight", "embedding.weight"),
        (_TABLE, "relative_bias.table.weight"),
        ("final_layer_norm.weight", "final_norm.weight"),
        (f"{published}.2.layer_norm.weight", f"{ours}.feedforward_norm.weight"),
        (f"{published}.2.DenseReluDense.wi_0.weight", f"{ours}.feedforward.inner.weight"),
        (f"{published}.2.DenseReluDense.wi_1.weight", f"{ours}.feedforward.gate.weight"),
        (f"{published}.2.DenseReluDense.wo.weight", f"{ours}.feedforward.outer.weight"),
    ]
    for theirs, block in (("0.SelfAttention", "self"), ("1.EncDecAttention", "cross")):
        for name, part in (("q", "query"), ("k", "key"), ("v", "value"), ("o", "output")):
            keys.append((f"{published}.{theirs}.{name}.weight", f"{ours}.{block}_attention.{part}.weight"))
        keys.append((f"{published}.{theirs[0]}.layer_norm.weight", f"{ours}.{block}_norm.weight"))
    return tuple(keys)


FAMILY = Family(
    name="t5",
    options=OPTIONS,
    stack_config=_stack_config,
    body_prefix="decoder.",
    keys=_keys(),
    head_keys=(("lm_head.weight", "head.weight"),),
    # a table that the first version's files hold and nothing reads
    ignored=(r"block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",),
    tied=("lm_head.weight",),
    aliases={
        "hidden_size": "d_model",
        "num_attention_heads": "num_heads",
        "num_hidden_layers": "num_layers",
        "head_dim": "d_kv",
    },
    role_settings={role: {"is_encoder_decoder": False} for role in ("encoder", "decoder")},
    unpack=_unpack,
    pack=_pack,
    tokenizer="sentencepiece unigram",
    architectures={
        "encoder": "T5EncoderModel",
        "decoder": "T5ForConditionalGeneration",
        "cross_decoder": "T5ForConditionalGeneration",
    },
    whole=Whole(
        architecture="T5ForConditionalGeneration", start="pad_token_id", one_table=True, settle=_settled
    ),
)
