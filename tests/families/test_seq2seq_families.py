"""BART, T5 and mT5: published config.json files, and what fresh weights look like."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from seq2seq_cli.checkpoint.loading import build_stack, stack_config
from seq2seq_cli.families import FAMILIES, family_of
from seq2seq_cli.families.translate import to_published

BART = {
    "_num_labels": 3,
    "activation_dropout": 0.1,
    "activation_function": "gelu",
    "add_bias_logits": False,
    "add_final_layer_norm": False,
    "attention_dropout": 0.1,
    "classif_dropout": 0.1,
    "classifier_dropout": 0.0,
    "decoder_layerdrop": 0.0,
    "dropout": 0.1,
    "encoder_layerdrop": 0.0,
    "extra_pos_embeddings": 2,
    "force_bos_token_to_be_generated": True,
    "forced_eos_token_id": 2,
    "gradient_checkpointing": False,
    "init_std": 0.02,
    "is_encoder_decoder": True,
    "max_position_embeddings": 1024,
    "model_type": "bart",
    "normalize_before": False,
    "normalize_embedding": True,
    "scale_embedding": False,
    "static_position_embeddings": False,
    "task_specific_params": {"summarization": {"num_beams": 4}},
    "use_cache": True,
}
T5 = {
    "d_ff": 2048,
    "d_kv": 64,
    "d_model": 512,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.1,
    "eos_token_id": 1,
    "initializer_factor": 1.0,
    "is_encoder_decoder": True,
    "layer_norm_epsilon": 1e-06,
    "model_type": "t5",
    "n_positions": 512,
    "num_heads": 8,
    "num_layers": 6,
    "output_past": True,
    "pad_token_id": 0,
    "relative_attention_num_buckets": 32,
    "task_specific_params": {"summarization": {"prefix": "summarize: "}},
    "vocab_size": 32128,
}
GATED = {
    **T5,
    "d_ff": 1024,
    "feed_forward_proj": "gated-gelu",
    "num_decoder_layers": 8,
    "num_heads": 6,
    "num_layers": 8,
    "tie_word_embeddings": False,
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "bart-base": {
        **BART,
        "d_model": 768,
        **{f"{side}_attention_heads": 12 for side in ("encoder", "decoder")},
        **{f"{side}_ffn_dim": 3072 for side in ("encoder", "decoder")},
        **{f"{side}_layers": 6 for side in ("encoder", "decoder")},
        "num_hidden_layers": 6,
        "vocab_size": 50265,
    },
    "distilbart-cnn-12-6": {
        **BART,
        "d_model": 1024,
        "decoder_layers": 6,
        "encoder_layers": 12,
        "num_hidden_layers": 12,
        "vocab_size": 50264,
    },
    "t5-small": T5,
    "t5-v1_1-small": GATED,
    "flan-t5-small": {
        **GATED,
        "dense_act_fn": "gelu_new",
        "is_gated_act": True,
        "relative_attention_max_distance": 128,
    },
    "mt5-small": {**GATED, "model_type": "mt5", "tokenizer_class": "T5Tokenizer", "vocab_size": 250112},
}
#: layers of either side, hidden size, heads, size of a head, feed-forward, positions, vocabulary,
#: activation, whether it is a gate's, whether the head is tied, its scale
EXPECTED: dict[str, tuple[Any, ...]] = {
    "bart-base": (6, 6, 768, 12, 64, 3072, 1024, 50265, "gelu", False, True, 1.0),
    "distilbart-cnn-12-6": (12, 6, 1024, 16, 64, 4096, 1024, 50264, "gelu", False, True, 1.0),
    "t5-small": (6, 6, 512, 8, 64, 2048, 512, 32128, "relu", False, True, 512**-0.5),
    "t5-v1_1-small": (8, 8, 512, 6, 64, 1024, 512, 32128, "gelu_new", True, False, 1.0),
    "flan-t5-small": (8, 8, 512, 6, 64, 1024, 512, 32128, "gelu_new", True, False, 1.0),
    "mt5-small": (8, 8, 512, 6, 64, 1024, 512, 250112, "gelu_new", True, False, 1.0),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_accepted(name: str) -> None:
    config = PUBLISHED[name]
    family = family_of(config)
    sides = [
        stack_config(family, family.respelled(config), role, where=name)  # type: ignore[arg-type]
        for role in ("encoder", "cross_decoder")
    ]
    for stack in sides:
        sizes = (stack.hidden_size, stack.num_heads, stack.head_size, stack.feedforward_size)
        rest = (stack.max_positions, stack.vocab_size, stack.activation, stack.gated)
        assert (*sizes, *rest) == EXPECTED[name][2:10]
        if stack.relative is not None:
            assert (stack.relative.rows, stack.relative.furthest) == (32, 128)
    encoder, decoder = sides
    assert decoder.head is not None
    found = (encoder.num_layers, decoder.num_layers), (decoder.head.tied, decoder.head.scale)
    assert found == (EXPECTED[name][:2], EXPECTED[name][10:])
    assert (encoder.causal, decoder.causal, decoder.cross_attention) == (False, True, True)


SIZES: dict[str, dict[str, Any]] = {
    "bart": {
        "d_model": 96,
        **{f"{side}_ffn_dim": 160 for side in ("encoder", "decoder")},
        **{f"{side}_layers": 2 for side in ("encoder", "decoder")},
        "vocab_size": 200,
        "init_std": 0.05,
        "max_position_embeddings": 100,
    },
    "t5": {
        "d_model": 96,
        "d_kv": 20,
        "d_ff": 160,
        "num_layers": 2,
        "vocab_size": 200,
        "initializer_factor": 1.5,
        "feed_forward_proj": "gated-gelu",
        "relative_attention_num_buckets": 64,
    },
}
CLASSES = {"bart": "BartForConditionalGeneration", "t5": "T5ForConditionalGeneration"}


@pytest.mark.parametrize("family", SIZES)
def test_fresh_weights_are_drawn_as_the_published_ones(family: str) -> None:
    """Every matrix has the deviation that the reference gives it, within what so few numbers tell."""
    torch.manual_seed(0)
    made = getattr(transformers, CLASSES[family])(transformers.AutoConfig.for_model(family, **SIZES[family]))
    theirs = made.state_dict()
    config = {"model_type": family, **SIZES[family]}
    for role, start in (("encoder", f"{'model.' * (family == 'bart')}encoder."), ("cross_decoder", "")):
        known = FAMILIES[family]
        translated = stack_config(known, config, role, where="")  # type: ignore[arg-type]
        generator = torch.Generator().manual_seed(0)
        stack, _ = build_stack(known, translated, None, published=config, where="", generator=generator)
        ours = {name: parameter.detach() for name, parameter in stack.named_parameters()}
        named = to_published(known, ours, tied=True, with_head=role != "encoder", config=config)
        assert len(named) > 15
        for name, tensor in named.items():
            expected = theirs[start + name]
            assert tensor.shape == expected.shape
            if tensor.ndim == 1 and name.endswith("weight"):
                assert bool((tensor == 1).all()), name  # a norm; the factor is for tests of the reference
            elif tensor.ndim == 1:
                assert not bool(tensor.any()), name
            else:
                assert 0.85 < float(tensor.std() / expected.std()) < 1.18, name
