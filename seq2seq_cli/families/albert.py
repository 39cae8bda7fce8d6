"""ALBERT (Lan et al. 2020): BERT with narrow embeddings (3.1) and layers shared over depth.

``num_hidden_groups`` groups of ``inner_group_num`` layers each; a depth of ``num_hidden_layers`` runs all
layers of one group. No decoder of this family is published: as one it is made causal, keeps its masked
language model head, and each layer has its own cross-attention, shared over depth as the layer is.
In training we drop states behind the feed-forward block too, as BERT does; the published code does not.
"""

from __future__ import annotations

import re
from dataclasses import replace

from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.families import bert
from seq2seq_cli.families.family import (
    MOST_LAYERS,
    Config,
    Family,
    Keys,
    Role,
    Weights,
    linear,
    refuse_unless,
)
from seq2seq_cli.model import StackConfig


def _layer_order(config: Config) -> tuple[int, ...]:
    """Which layer stands at each depth; layers are counted through all groups."""
    depths, groups, inner = (config[k] for k in ("num_hidden_layers", "num_hidden_groups", "inner_group_num"))
    if depths * inner > MOST_LAYERS:
        raise CheckpointError(
            f"num_hidden_layers={depths} times inner_group_num={inner} "
            f"are more than the {MOST_LAYERS} layers we build"
        )
    if groups > depths:
        raise CheckpointError(
            f"num_hidden_groups={groups}: with num_hidden_layers={depths} some groups would never be used"
        )
    # the published formula, with its rounding: the first groups are the longer ones where it does not divide
    order = [int(depth / (depths / groups)) for depth in range(depths)]
    return tuple(group * inner + layer for group in order for layer in range(inner))


def _stack_config(config: Config, role: Role) -> StackConfig:
    refuse_unless(config, "position_embedding_type", ["absolute"])
    stack = bert.bert_like(config, role)
    order = _layer_order(config)
    return replace(
        stack,
        num_layers=len(order),
        layer_order=order,
        embedding=replace(stack.embedding, size=config["embedding_size"]),
    )


_GROUPED = re.compile(
    r"encoder\.albert_layer_groups\.(0|[1-9]\d{0,3})\.albert_layers\.(0|[1-9]\d{0,3})\.(.+)"
)
_FLAT = re.compile(r"encoder\.albert_layers\.(\d+)\.(.+)")


def _unpack(weights: Weights, config: Config) -> Weights:
    """Group and layer in it -> one number. A layer beyond its group keeps its name, and is unknown."""
    inner = config["inner_group_num"]
    unpacked: Weights = {}
    for name, tensor in weights.items():
        match = _GROUPED.fullmatch(name)
        if match is not None and int(match[2]) < inner:
            name = f"encoder.albert_layers.{int(match[1]) * inner + int(match[2])}.{match[3]}"
        unpacked[name] = tensor
    return unpacked


def _pack(weights: Weights, config: Config) -> Weights:
    inner = config["inner_group_num"]
    packed: Weights = {}
    for name, tensor in weights.items():
        match = _FLAT.fullmatch(name)
        if match is not None:
            group, layer = divmod(int(match[1]), inner)
            name = f"encoder.albert_layer_groups.{group}.albert_layers.{layer}.{match[2]}"
        packed[name] = tensor
    return packed


def _keys() -> Keys:
    published, ours = "encoder.albert_layers.{layer}", "layers.{layer}"
    keys: list[tuple[str, str]] = [
        ("embeddings.word_embeddings.weight", "embedding.weight"),
        ("embeddings.position_embeddings.weight", "position_embedding.weight"),
        ("embeddings.token_type_embeddings.weight", "token_type_embedding.weight"),
        *linear("embeddings.LayerNorm", "embedding_norm"),
        *linear("encoder.embedding_hidden_mapping_in", "embedding_projection"),
        *linear(f"{published}.ffn", f"{ours}.feedforward.inner"),
        *linear(f"{published}.ffn_output", f"{ours}.feedforward.outer"),
        *linear(f"{published}.full_layer_layer_norm", f"{ours}.feedforward_norm"),
    ]
    for theirs, block in (("attention", "self"), ("crossattention", "cross")):
        for part, name in (("query", "query"), ("key", "key"), ("value", "value"), ("dense", "output")):
            keys += linear(f"{published}.{theirs}.{part}", f"{ours}.{block}_attention.{name}")
        keys += linear(f"{published}.{theirs}.LayerNorm", f"{ours}.{block}_norm")
    return tuple(keys)


FAMILY = Family(
    name="albert",
    options={
        **bert.OPTIONS,
        "vocab_size": 30000,
        "embedding_size": 128,
        "hidden_size": 4096,
        "num_hidden_groups": 1,
        "inner_group_num": 1,
        "num_attention_heads": 64,
        "intermediate_size": 16384,
        "hidden_act": "gelu_new",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "bos_token_id": 2,
        "eos_token_id": 3,
    },
    stack_config=_stack_config,
    body_prefix="albert.",
    keys=_keys(),
    head_keys=(
        *linear("predictions.dense", "head.dense"),
        *linear("predictions.LayerNorm", "head.norm"),
        ("predictions.decoder.weight", "head.weight"),
        ("predictions.bias", "head.bias"),
    ),
    ignored=(*bert.IGNORED, r"sop_classifier\..*"),
    tied=("predictions.decoder.weight", "predictions.decoder.bias"),
    unpack=_unpack,
    pack=_pack,
    tokenizer="sentencepiece unigram",
    architectures={
        "encoder": "AlbertModel",
        "decoder": "AlbertForMaskedLM",
        "cross_decoder": "AlbertForMaskedLM",
        "masked_lm": "AlbertForMaskedLM",
    },
)
