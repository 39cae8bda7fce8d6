"""A config.json that we would compute wrongly is refused, and the key that is to blame is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from seq2seq_cli.checkpoint.bundle import load_bundle
from seq2seq_cli.checkpoint.loading import stack_config
from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.families import FAMILIES, family_of
from tests import tiny

REFUSED: list[tuple[str, str, dict[str, Any]]] = [
    ("bert", "position_embedding_type", {"position_embedding_type": "relative_value"}),
    ("roberta", "position_embedding_type", {"position_embedding_type": "rotary"}),
    ("xlnet", "bi_data", {"bi_data": True}),
    ("xlnet", "attn_type", {"attn_type": "both"}),
    ("xlnet", "same_length", {"attn_type": "uni", "same_length": True}),
    ("xlnet", "d_head", {"d_head": 16}),
    ("xlnet", "n_head", {"n_head": 5}),
    ("xlnet", "clamp_len", {"clamp_len": 1.5}),
    ("xlnet", "mem_len", {"mem_len": -1}),
    ("xlnet", "reuse_len", {"reuse_len": "all"}),
    ("xlnet", "ff_activation", {"ff_activation": "snake"}),
    ("transfo-xl", "attn_type", {"attn_type": 2}),
    ("transfo-xl", "sample_softmax", {"sample_softmax": 5}),
    ("transfo-xl", "ext_len", {"ext_len": 4}),
    ("transfo-xl", "init", {"init": "xavier"}),
    ("transfo-xl", "same_length", {"mem_len": 0}),
    ("transfo-xl", "mem_len", {"mem_len": -1}),
    ("transfo-xl", "mem_len", {"mem_len": True}),
    ("transfo-xl", "clamp_len", {"clamp_len": "far"}),
    ("transfo-xl", "cutoffs", {"cutoffs": [20, 10]}),
    ("transfo-xl", "cutoffs", {"cutoffs": [0]}),
    ("transfo-xl", "cutoffs", {"cutoffs": [60]}),
    ("transfo-xl", "cutoffs", {"cutoffs": ["10"]}),
    ("transfo-xl", "cutoffs", {"cutoffs": 10}),
    ("transfo-xl", "div_val", {"div_val": 40}),
    ("transfo-xl", "tie_projs", {"tie_projs": [True]}),
    ("transfo-xl", "tie_projs", {"tie_projs": [True, "no"]}),
    ("bert", "hidden_act", {"hidden_act": "snake"}),
    ("gpt2", "activation_function", {"activation_function": "snake"}),
    ("bert", "num_attention_heads", {"num_attention_heads": 5}),
    ("gpt2", "n_head", {"n_head": 5}),
    ("bert", "layer_norm_eps", {"layer_norm_eps": float("nan")}),
    ("gpt2", "layer_norm_epsilon", {"layer_norm_epsilon": -1e-5}),
    ("bert", "hidden_size", {"hidden_size": -32}),
    ("bert", "hidden_size", {"hidden_size": 0}),
    ("gpt2", "n_layer", {"n_layer": -2}),
    ("gpt2", "n_inner", {"n_inner": -4}),
    ("gpt2", "n_inner", {"n_inner": 1.5}),
    ("gpt2", "n_inner", {"n_inner": "wide"}),
    ("bert", "cross_attention_hidden_size", {"cross_attention_hidden_size": -1}),
    ("bert", "num_attention_heads", {"num_attention_heads": 0}),
    ("bert", "num_hidden_layers", {"num_hidden_layers": 10**12}),
    ("bert", "1000000000 layers", {"num_hidden_layers": 10**9}),
    ("roberta", "vocab_size", {"vocab_size": True}),
    ("roberta", "vocab_size", {"vocab_size": "60"}),
    ("bert", "intermediate_size", {"intermediate_size": 48.0}),
    ("bert", "hidden_dropout_prob", {"hidden_dropout_prob": 1.5}),
    ("bert", "tie_word_embeddings", {"tie_word_embeddings": "yes"}),
    ("gpt2", "scale_attn_weights", {"scale_attn_weights": None}),
    ("roberta", "pad_token_id", {"pad_token_id": None}),
    ("roberta", "pad_token_id", {"pad_token_id": -1}),
    ("roberta", "pad_token_id", {"pad_token_id": 41}),
    ("roberta", "pad_token_id", {"pad_token_id": True}),
    ("gpt2", "cross_attention_hidden_size", {"cross_attention_hidden_size": 48}),
    ("gpt2", "bidirectional", {"bidirectional": True}),
    ("camembert", "pad_token_id", {"pad_token_id": None}),
    ("xlm-roberta", "position_embedding_type", {"position_embedding_type": "rotary"}),
    ("electra", "position_embedding_type", {"position_embedding_type": "rotary"}),
    ("electra", "embedding_size", {"embedding_size": 0}),
    ("distilbert", "activation", {"activation": "snake"}),
    ("distilbert", "n_heads", {"n_heads": 5}),
    ("distilbert", "sinusoidal_pos_embds", {"sinusoidal_pos_embds": "yes"}),
    ("albert", "position_embedding_type", {"position_embedding_type": "relative_key"}),
    ("albert", "embedding_size", {"embedding_size": None}),
    ("albert", "num_hidden_groups", {"num_hidden_groups": 4}),
    ("albert", "num_hidden_groups", {"num_hidden_groups": 0}),
    ("albert", "num_hidden_layers", {"num_hidden_layers": 10**9}),
    ("albert", "inner_group_num", {"inner_group_num": 10**9}),
    ("openai-gpt", "afn", {"afn": "gelu_new"}),
    ("openai-gpt", "n_head", {"n_head": 5}),
    ("openai-gpt", "bidirectional", {"bidirectional": True}),
    ("ctrl", "dff", {"dff": 0}),
    ("ctrl", "n_head", {"n_head": 5}),
    ("ctrl", "bidirectional", {"bidirectional": True}),
    ("xlm", "asm", {"asm": True}),
    ("xlm", "n_heads", {"n_heads": 5}),
    ("xlm", "n_langs", {"n_langs": 0}),
    ("xlm", "language", {"n_langs": 3, "language": 3}),
    ("xlm", "causal", {"causal": 1}),
    ("bart", "activation_function", {"activation_function": "snake"}),
    ("bart", "decoder_attention_heads", {"decoder_attention_heads": 5}),
    ("bart", "decoder_layers", {"decoder_layers": 0}),
    ("bart", "normalize_before", {"normalize_before": True}),
    ("bart", "normalize_embedding", {"normalize_embedding": False}),
    ("bart", "add_final_layer_norm", {"add_final_layer_norm": True}),
    ("bart", "static_position_embeddings", {"static_position_embeddings": True}),
    ("bart", "extra_pos_embeddings", {"extra_pos_embeddings": 1}),
    ("bart", "encoder_layerdrop", {"encoder_layerdrop": 0.1}),
    ("bart", "decoder_layerdrop", {"decoder_layerdrop": 0.1}),
    ("bart", "scale_embedding", {"scale_embedding": 2}),
    ("bart", "cross_attention_hidden_size", {"cross_attention_hidden_size": 48}),
    ("t5", "feed_forward_proj", {"feed_forward_proj": "gated-snake"}),
    ("t5", "feed_forward_proj", {"feed_forward_proj": "gated"}),
    ("t5", "feed_forward_proj", {"feed_forward_proj": "fast-relu"}),
    ("t5", "feed_forward_proj", {"feed_forward_proj": 3}),
    ("t5", "dense_act_fn", {"dense_act_fn": "silu"}),
    ("t5", "is_gated_act", {"is_gated_act": True}),
    ("t5", "initializer_factor", {"initializer_factor": -1.0}),
    ("t5", "relative_attention_num_buckets", {"relative_attention_num_buckets": 1}),
    ("t5", "relative_attention_max_distance", {"relative_attention_max_distance": 4}),
    ("t5", "num_decoder_layers", {"num_decoder_layers": 0}),
    ("t5", "tie_word_embeddings", {"tie_word_embeddings": "yes"}),
    ("t5", "scale_decoder_outputs", {"scale_decoder_outputs": 2}),
    ("t5", "cross_attention_hidden_size", {"cross_attention_hidden_size": 48}),
    ("mt5", "d_kv", {"d_kv": None}),
]


@pytest.mark.parametrize(("family", "key", "changes"), REFUSED, ids=[f"{f}-{c}" for f, _, c in REFUSED])
def test_refused_by_name(family: str, key: str, changes: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError) as caught:
        stack_config(FAMILIES[family], {**tiny.base(family), **changes}, "decoder", where="here/config.json")
    assert key in str(caught.value)
    assert "here/config.json" in str(caught.value)


def test_every_wrong_value_at_once() -> None:
    wrong = {"hidden_size": -1, "layer_norm_eps": float("nan"), "vocab_size": None}
    with pytest.raises(CheckpointError) as caught:
        stack_config(FAMILIES["bert"], wrong, "encoder", where="c")
    assert len(caught.value.findings) == 3


@pytest.mark.parametrize("family", ["gpt2", "openai-gpt", "ctrl"])
def test_no_masked_language_model(family: str) -> None:
    with pytest.raises(CheckpointError, match="masked"):
        stack_config(FAMILIES[family], tiny.base(family), "masked_lm", where="c")


@pytest.mark.parametrize("family", ["bart", "t5", "mt5"])
def test_sides_of_an_encoder_decoder_fill_no_gaps(family: str) -> None:
    with pytest.raises(CheckpointError, match="seq2seq"):
        stack_config(FAMILIES[family], tiny.base(family), "masked_lm", where="c")


def test_unknown_family() -> None:
    with pytest.raises(CheckpointError, match=r"model_type 'brt'.*did you mean 'bert'"):
        family_of({"model_type": "brt"})
    with pytest.raises(CheckpointError, match="no model_type"):
        family_of({})


@pytest.mark.parametrize("size", [10**9, 2_000_000])
def test_m6_a_giant_is_refused_before_memory_is_taken(size: int, tmp_path: Path) -> None:
    """The file's shapes are compared before anything of the size that config.json claims is allocated."""
    tiny.save_encoder("bert", tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "vocab_size": size}))
    with pytest.raises(CheckpointError, match="another shape"):
        load_bundle(str(tmp_path), role="encoder")
