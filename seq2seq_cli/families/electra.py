"""ELECTRA (Clark et al. 2020): BERT whose embeddings may be narrower than its layers.

Published as pairs: the generator is a masked language model and keeps its head here; the discriminator's
head tells real tokens from replaced ones and writes no text, so it is ignored.
"""

from __future__ import annotations

from dataclasses import replace

from seq2seq_cli.families import bert
from seq2seq_cli.families.family import Config, Family, Role, linear
from seq2seq_cli.model import StackConfig


def _stack_config(config: Config, role: Role) -> StackConfig:
    stack = bert.bert_like(config, role)
    # a map between equal widths would be one more layer, which the published model does not have
    size = None if config["embedding_size"] == config["hidden_size"] else config["embedding_size"]
    stack = replace(stack, embedding=replace(stack.embedding, size=size))
    if stack.head is None:
        return stack
    return replace(stack, head=replace(stack.head, activation="gelu"))  # whatever hidden_act says


FAMILY = Family(
    name="electra",
    options={
        **bert.OPTIONS,
        "embedding_size": 128,
        "hidden_size": 256,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
    },
    stack_config=_stack_config,
    body_prefix="electra.",
    keys=(*bert.layer_keys(), *linear("embeddings_project", "embedding_projection")),
    head_keys=(
        *linear("generator_predictions.dense", "head.dense"),
        *linear("generator_predictions.LayerNorm", "head.norm"),
        *linear("generator_lm_head", "head"),
    ),
    ignored=(*bert.IGNORED, r"discriminator_predictions\..*"),
    tied=("generator_lm_head.weight",),
    tokenizer="wordpiece",
    architectures={
        "encoder": "ElectraModel",
        "decoder": "ElectraForCausalLM",
        "cross_decoder": "ElectraForCausalLM",
        "masked_lm": "ElectraForMaskedLM",
    },
)
