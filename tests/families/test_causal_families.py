"""GPT and CTRL: what their specs do not show."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.models.ctrl.modeling_ctrl import positional_encoding

from seq2seq_cli.checkpoint.bundle import load_bundle
from seq2seq_cli.checkpoint.loading import stack_config
from seq2seq_cli.families import FAMILIES
from seq2seq_cli.model.positions import sinusoids
from tests import tiny
from tests.families.spec import spec

BUFFERS = {
    "openai-gpt": {
        "transformer.h.0.attn.bias": torch.ones(1, 1, 40, 40),
        "transformer.position_ids": torch.arange(40),
        "multiple_choice_head.summary.weight": torch.ones(1, 32),
    },
    "ctrl": {"transformer.pos_encoding": torch.ones(40, 32), "classifier.weight": torch.ones(2, 32)},
}


@pytest.mark.parametrize("family", BUFFERS)
def test_old_buffers_and_heads_of_other_tasks(family: str, tmp_path: Path) -> None:
    tiny.save_language_model(family, tmp_path)
    path = tmp_path / "model.safetensors"
    save_file({**load_file(path), **BUFFERS[family]}, path, metadata={"format": "pt"})
    report = load_bundle(str(tmp_path)).report
    assert set(report.unused) == set(BUFFERS[family])
    assert not report.fresh


@pytest.mark.parametrize("size", [27, 32])
def test_ctrl_far_out(size: int) -> None:
    """Its positions are computed, in single precision: far out only the published order of steps gives the
    published numbers."""
    published = positional_encoding(50_000, size, torch.float)
    torch.testing.assert_close(sinusoids(torch.arange(50_000), size), published, rtol=0, atol=1e-6)


@pytest.mark.parametrize("family", ["gpt2", "openai-gpt", "ctrl"])
@pytest.mark.parametrize("usual", ["hidden_size", "max_position_embeddings"])
def test_sizes_under_their_common_names(family: str, usual: str) -> None:
    """transformers takes these for n_embd and n_positions, so a config.json may have them."""
    known = FAMILIES[family]
    config = spec(family).config()
    renamed = {key: value for key, value in config.items() if key != known.aliases[usual]}
    renamed[usual] = config[known.aliases[usual]]
    assert known.respelled(renamed) == config
    assert stack_config(known, known.respelled(renamed), "decoder", where="") == stack_config(
        known, config, "decoder", where=""
    )


def test_dropout_is_where_it_was_published() -> None:
    """CTRL has none on attention, GPT has all three kinds, each where its config says."""
    rates = {"embd_pdrop": 0.1, "resid_pdrop": 0.2, "attn_pdrop": 0.3}
    for family, on_attention in (("openai-gpt", 0.3), ("ctrl", 0.0)):
        config = stack_config(FAMILIES[family], {**spec(family).base, **rates}, "decoder", where="")
        assert (config.embedding.dropout, config.dropout, config.attention_dropout) == (
            *(0.1, 0.2),
            on_attention,
        )
        assert config.final_norm is None or config.final_norm.dropout == 0.0


#: well-known config.json files, with keys that only old ones carry
PUBLISHED = {
    "openai-gpt": {
        "afn": "gelu",
        "architectures": ["OpenAIGPTLMHeadModel"],
        "attn_pdrop": 0.1,
        "embd_pdrop": 0.1,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-05,
        "model_type": "openai-gpt",
        "n_ctx": 512,
        "n_embd": 768,
        "n_head": 12,
        "n_layer": 12,
        "n_positions": 512,
        "n_special": 0,
        "predict_special_tokens": True,
        "resid_pdrop": 0.1,
        "summary_activation": None,
        "summary_first_dropout": 0.1,
        "summary_proj_to_labels": True,
        "summary_type": "cls_index",
        "summary_use_proj": True,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
        "vocab_size": 40478,
    },
    "ctrl": {
        "architectures": None,
        "attn_pdrop": 0.1,
        "dff": 8192,
        "embd_pdrop": 0.1,
        "from_tf": False,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-06,
        "model_type": "ctrl",
        "n_ctx": 512,
        "n_embd": 1280,
        "n_head": 16,
        "n_layer": 48,
        "n_positions": 50000,
        "num_labels": 1,
        "output_attentions": False,
        "resid_pdrop": 0.1,
        "vocab_size": 246534,
    },
}
#: layers, hidden size, heads, feed-forward, positions, vocabulary, activation, norm order, eps
EXPECTED = {
    "openai-gpt": (12, 768, 12, 3072, 512, 40478, "gelu_new", "post", 1e-5),
    "ctrl": (48, 1280, 16, 8192, 50000, 246534, "relu", "pre", 1e-6),
}


@pytest.mark.parametrize("family", PUBLISHED)
@pytest.mark.parametrize("role", ["encoder", "decoder", "cross_decoder"])
def test_published_configs_are_accepted(family: str, role: str) -> None:
    stack = stack_config(FAMILIES[family], PUBLISHED[family], role, where="")  # type: ignore[arg-type]
    assert (
        *(stack.num_layers, stack.hidden_size, stack.num_heads, stack.feedforward_size),
        *(stack.max_positions, stack.vocab_size, stack.activation, stack.norm_order, stack.norm_eps),
    ) == EXPECTED[family]
    assert stack.causal
    assert stack.cross_attention is (role == "cross_decoder")
