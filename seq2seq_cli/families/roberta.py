"""RoBERTa (Liu et al. 2019): BERT whose positions start behind the padding id, with other head names."""

from __future__ import annotations

from dataclasses import replace

from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.families import bert
from seq2seq_cli.families.family import Config, Family, Role, linear
from seq2seq_cli.model import StackConfig


def _stack_config(config: Config, role: Role) -> StackConfig:
    pad, rows = config["pad_token_id"], config["max_position_embeddings"]
    if not isinstance(pad, int) or isinstance(pad, bool) or not 0 <= pad < rows - 1:
        raise CheckpointError(
            f"pad_token_id={pad!r}: RoBERTa's positions start behind it, within {rows} positions"
        )
    # fairseq counts positions from the padding id on, so the first pad_token_id + 1 rows are never used
    stack = bert.bert_like(config, role, position_offset=pad + 1)
    if stack.head is None:
        return stack
    return replace(stack, head=replace(stack.head, activation="gelu"))  # whatever hidden_act says


FAMILY = Family(
    name="roberta",
    options={
        **bert.OPTIONS,
        "vocab_size": 50265,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
    },
    stack_config=_stack_config,
    body_prefix="roberta.",
    keys=bert.layer_keys(),
    head_keys=(
        *linear("lm_head.dense", "head.dense"),
        *linear("lm_head.layer_norm", "head.norm"),
        ("lm_head.decoder.weight", "head.weight"),
        ("lm_head.bias", "head.bias"),
    ),
    ignored=bert.IGNORED,
    tied=("lm_head.decoder.weight", "lm_head.decoder.bias"),
    tokenizer="byte-level bpe",
    base={"max_position_embeddings": 514},
    architectures={
        "encoder": "RobertaModel",
        "decoder": "RobertaForCausalLM",
        "cross_decoder": "RobertaForCausalLM",
        "masked_lm": "RobertaForMaskedLM",
    },
)
