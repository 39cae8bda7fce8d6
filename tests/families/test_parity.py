"""Every family in every role computes what the published implementation computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from seq2seq_cli.checkpoint.bundle import load_bundle
from seq2seq_cli.model import Stack
from tests import tiny

ROWS = [[5, 6, 7, 8, 9, 10, 11, 12, 13], [14, 15, 16, 17, 18, 19], [20, 21, 22]]

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert", {}),
    "bert-tanh-gelu": ("bert", {"hidden_act": "gelu_new", "layer_norm_eps": 1e-3, "num_attention_heads": 2}),
    "bert-relu-types": ("bert", {"hidden_act": "relu", "type_vocab_size": 5, "num_attention_heads": 1}),
    "bert-untied": ("bert", {"tie_word_embeddings": False, "layer_norm_eps": 0.1, "hidden_size": 24}),
    "roberta": ("roberta", {}),
    "roberta-untied": (
        "roberta",
        {"tie_word_embeddings": False, "hidden_act": "relu", "layer_norm_eps": 1e-2},
    ),
    "roberta-pad": ("roberta", {"pad_token_id": 4, "max_position_embeddings": 30, "hidden_act": "gelu_new"}),
    "roberta-heads": ("roberta", {"num_attention_heads": 8, "type_vocab_size": 3, "num_hidden_layers": 3}),
    "gpt2": ("gpt2", {}),
    "gpt2-inner": ("gpt2", {"n_inner": 50, "activation_function": "relu", "layer_norm_epsilon": 1e-3}),
    "gpt2-unscaled": ("gpt2", {"scale_attn_weights": False, "n_head": 2, "activation_function": "gelu"}),
    "gpt2-by-depth": ("gpt2", {"scale_attn_by_inverse_layer_idx": True, "n_layer": 3, "n_head": 8}),
    "gpt2-both": (
        "gpt2",
        {
            "scale_attn_weights": False,
            "scale_attn_by_inverse_layer_idx": True,
            "reorder_and_upcast_attn": True,
        },
    ),
    "gpt2-untied": ("gpt2", {"tie_word_embeddings": False, "n_head": 1, "layer_norm_epsilon": 0.1}),
}
ROLES = [(case, role) for case in CASES for role in ("encoder", "decoder", "masked_lm")]
ROLES = [(case, role) for case, role in ROLES if (CASES[case][0], role) != ("gpt2", "masked_lm")]


def reference(family: str, role: str, changes: dict[str, Any]) -> Any:
    if role == "encoder":
        return tiny.scramble(transformers.AutoModel.from_config(tiny.config(family, **changes)))
    if role == "decoder":
        return tiny.language_model(family, **changes)
    masked = {"bert": transformers.BertForMaskedLM, "roberta": transformers.RobertaForMaskedLM}[family]
    return tiny.scramble(masked(tiny.config(family, **changes)))


def run_reference(model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    positions = {}
    if model.config.model_type != "roberta":  # RoBERTa finds its positions by itself, from the pad id
        positions["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        output: Tensor = model(input_ids=ids, attention_mask=mask, **positions)[0]
    return output


def both(case: str, role: str, folder: Path) -> tuple[Any, Stack]:
    family, changes = CASES[case]
    theirs = reference(family, role, changes)
    theirs.save_pretrained(folder)
    ours = load_bundle(str(folder), role=role).model  # type: ignore[arg-type]
    assert isinstance(ours, Stack)
    return theirs, ours


@pytest.mark.parametrize(("case", "role"), ROLES)
def test_equal_to_transformers(case: str, role: str, tmp_path: Path) -> None:
    theirs, ours = both(case, role, tmp_path)
    pad = theirs.config.pad_token_id or 0
    for rows, left in ((ROWS, False), (ROWS, True), ([row[:3] for row in ROWS], False)):
        ids, mask = tiny.padded(rows, pad=pad, left=left)
        expected = run_reference(theirs, ids, mask)
        with torch.no_grad():
            got = ours(ids, mask)
            as_bool = ours(ids.masked_fill(mask == 0, 59), mask.bool())
        assert got.shape == expected.shape
        assert tiny.relative_error(got, expected, mask) < 1e-5
        assert tiny.relative_error(as_bool, expected, mask) < 1e-5, "what stands under the padding shows"
        for row, text in enumerate(rows):
            with torch.no_grad():
                alone = ours(torch.tensor([text]))
            assert tiny.relative_error(got[row][mask[row] == 1], alone[0]) < 1e-5


@pytest.mark.parametrize("case", [case for case, role in ROLES if role == "decoder"])
@pytest.mark.parametrize("steps", [(3, 1, 4, 1), (1,) * 9, (5, 4), (9,)], ids=str)
def test_cached_is_uncached(case: str, steps: tuple[int, ...], tmp_path: Path) -> None:
    """Token by token and several at once; prompts without padding and padded on either side."""
    _, ours = both(case, "decoder", tmp_path)
    prompts = [[5, 6, 7, 8, 9], [14, 15, 16], [20]]
    after = torch.arange(24, 36).view(3, 4)
    for rows, left in ((prompts, False), (prompts, True), ([row * 5 for row in ([5], [6], [7])], False)):
        ids, mask = tiny.padded(rows, left=left)
        ids, mask = torch.cat([ids, after], 1), torch.cat([mask, torch.ones_like(after)], 1)
        cache, start, parts = ours.new_cache(2), 0, []  # 2: it has to grow
        with torch.no_grad():
            for step in steps:
                part = slice(start, start + step)
                parts.append(ours(ids[:, part], mask[:, part], cache=cache))
                start += step
            got = torch.cat(parts, 1)
            assert cache.length == 9
            for row, prompt in enumerate(rows):
                alone = ours(torch.tensor([[*prompt, *after[row].tolist()]]))
                assert tiny.relative_error(got[row][mask[row] == 1], alone[0]) < 1e-5


@pytest.mark.parametrize(
    "name",
    [
        *("gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "quick_gelu"),
        *("relu", "silu", "swish", "tanh", "mish", "linear"),
    ],
)
def test_activations(name: str) -> None:
    from transformers.activations import ACT2FN

    from seq2seq_cli.model.activation import ACTIVATIONS

    x = torch.linspace(-6, 6, 101)
    torch.testing.assert_close(ACTIVATIONS[name](x), ACT2FN[name](x), rtol=1e-5, atol=1e-6)


def test_bidirectional_gpt2_encoder(tmp_path: Path) -> None:
    """Ours alone: GPT-2 as an encoder may lift its causal mask; then the first state sees the last token."""
    import json

    tiny.save_encoder("gpt2", tmp_path)
    ids = torch.tensor([[5, 6, 7, 8]])
    changed = torch.tensor([[5, 6, 7, 9]])
    moved = {}
    for bidirectional in (False, True):
        path = tmp_path / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "bidirectional": bidirectional}))
        model = load_bundle(str(tmp_path), role="encoder").model
        with torch.no_grad():
            moved[bidirectional] = float((model(ids) - model(changed))[0, 0].abs().max())
    assert moved[False] == 0.0
    assert moved[True] > 1e-3
