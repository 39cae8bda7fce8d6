"""Models under adapters, and the adapters' settings, as PEFT has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from tests import tiny
from tests.families.spec import spec

FOLDER = Path(__file__).parent / "adapters"

CASES: dict[str, dict[str, Any]] = {
    "bert2gpt2": {
        "r": 4,
        "lora_alpha": 6,
        "lora_dropout": 0.1,
        "target_modules": ["query", "value", "attn.c_attn", "mlp.c_fc"],
        "modules_to_save": ["crossattention", "ln_cross_attn"],
    },
    "bert2bert": {
        "r": 3,
        "lora_alpha": 4,
        "use_rslora": True,
        "target_modules": ["query", "key", "attention.output.dense", "intermediate.dense"],
        "modules_to_save": ["crossattention"],
    },
    "t5": {
        "r": 2,
        "lora_alpha": 8,
        "target_modules": ["q", "v", "wo"],
        "rank_pattern": {"wo": 5},
        "alpha_pattern": {"EncDecAttention.q": 3},
    },
    "gpt2": {"r": 4, "lora_alpha": 1, "target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True},
}
#: those whose adapter has one rank and one factor, as ours do
UNIFORM = ("bert2gpt2", "bert2bert", "gpt2")


def base(case: str) -> Any:
    """The model that stands still."""
    if case == "t5":
        made = {key: value for key, value in spec("t5").base.items() if key != "model_type"}
        return tiny.scramble(transformers.T5ForConditionalGeneration(transformers.T5Config(**made)))
    if case == "gpt2":
        return tiny.language_model("gpt2")
    return tiny.pair(*case.split("2", 1))


def loaded(case: str, folder: Path) -> Any:
    """The same from a folder."""
    kinds = {"t5": transformers.T5ForConditionalGeneration, "gpt2": transformers.GPT2LMHeadModel}
    return kinds.get(case, transformers.EncoderDecoderModel).from_pretrained(folder)


def inputs(case: str) -> dict[str, torch.Tensor]:
    """What its logits are compared on."""
    ids, mask = tiny.padded([[5, 6, 7, 8, 9], [10, 11, 12]])
    if case == "gpt2":
        return {"input_ids": ids, "attention_mask": mask}
    targets = torch.tensor([[1, 20, 21, 22], [1, 30, 31, 32]])
    return {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": targets}
