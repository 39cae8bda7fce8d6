"""RoBERTa with its norms before the blocks (the models of Wettig et al. 2023): a final norm, other names."""

from __future__ import annotations

from dataclasses import replace

from seq2seq_cli.families import roberta
from seq2seq_cli.families.family import Config, Role
from seq2seq_cli.model import FinalNormConfig, StackConfig


def _stack_config(config: Config, role: Role) -> StackConfig:
    stack = roberta.FAMILY.stack_config(config, role)
    return replace(stack, norm_order="pre", final_norm=FinalNormConfig())


#: a norm stands in front of its block, so it is named after the block and not after the block's output
_MOVED = {
    "encoder.layer.{layer}.output.LayerNorm": "encoder.layer.{layer}.intermediate.LayerNorm",
    "encoder.layer.{layer}.attention.output.LayerNorm": "encoder.layer.{layer}.attention.LayerNorm",
    "encoder.layer.{layer}.crossattention.output.LayerNorm": "encoder.layer.{layer}.crossattention.LayerNorm",
}


def _moved(name: str) -> str:
    module, _, leaf = name.rpartition(".")
    return f"{_MOVED.get(module, module)}.{leaf}"


FAMILY = replace(
    roberta.FAMILY,
    name="roberta-prelayernorm",
    stack_config=_stack_config,
    body_prefix="roberta_prelayernorm.",
    keys=(
        *((_moved(published), ours) for published, ours in roberta.FAMILY.keys),
        ("LayerNorm.weight", "final_norm.weight"),
        ("LayerNorm.bias", "final_norm.bias"),
    ),
    architectures={
        "encoder": "RobertaPreLayerNormModel",
        "decoder": "RobertaPreLayerNormForCausalLM",
        "cross_decoder": "RobertaPreLayerNormForCausalLM",
        "masked_lm": "RobertaPreLayerNormForMaskedLM",
    },
)
