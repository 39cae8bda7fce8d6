"""The config.json files of well-known checkpoints are accepted, also with keys that only old files carry."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import transformers

from seq2seq_cli.checkpoint.loading import stack_config
from seq2seq_cli.families import FAMILIES, family_of
from seq2seq_cli.model import StackConfig

ROLES = ("encoder", "decoder", "cross_decoder", "masked_lm")
BASE = {
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "type_vocab_size": 2,
}
ROBERTA = {
    **BASE,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 514,
    "output_past": True,
    "pad_token_id": 1,
    "type_vocab_size": 1,
}
ALBERT = {
    **BASE,
    "architectures": ["AlbertForMaskedLM"],
    "bos_token_id": 2,
    "classifier_dropout_prob": 0.1,
    "down_scale_factor": 1,
    "embedding_size": 128,
    "eos_token_id": 3,
    "gap_size": 0,
    "inner_group_num": 1,
    "model_type": "albert",
    "net_structure_type": 0,
    "num_hidden_groups": 1,
    "num_memory_blocks": 0,
    "pad_token_id": 0,
    "vocab_size": 30000,
}
ELECTRA = {
    **BASE,
    "embedding_size": 128,
    "hidden_size": 256,
    "intermediate_size": 1024,
    "model_type": "electra",
    "num_attention_heads": 4,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
    "summary_activation": "gelu",
    "summary_last_dropout": 0.1,
    "summary_type": "first",
    "summary_use_proj": True,
    "transformers_version": "4.9.0.dev0",
    "use_cache": True,
    "vocab_size": 30522,
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "distilbert-base-uncased": {
        "activation": "gelu",
        "architectures": ["DistilBertForMaskedLM"],
        "attention_dropout": 0.1,
        "dim": 768,
        "dropout": 0.1,
        "hidden_dim": 3072,
        "initializer_range": 0.02,
        "max_position_embeddings": 512,
        "model_type": "distilbert",
        "n_heads": 12,
        "n_layers": 6,
        "pad_token_id": 0,
        "qa_dropout": 0.1,
        "seq_classif_dropout": 0.2,
        "sinusoidal_pos_embds": False,
        "tie_weights_": True,
        "transformers_version": "4.10.0.dev0",
        "vocab_size": 30522,
    },
    "camembert-base": {
        **ROBERTA,
        "architectures": ["CamembertForMaskedLM"],
        "bos_token_id": 5,
        "eos_token_id": 6,
        "model_type": "camembert",
        "vocab_size": 32005,
    },
    "xlm-roberta-base": {
        **ROBERTA,
        "architectures": ["XLMRobertaForMaskedLM"],
        "bos_token_id": 0,
        "eos_token_id": 2,
        "model_type": "xlm-roberta",
        "position_embedding_type": "absolute",
        "transformers_version": "4.17.0.dev0",
        "use_cache": True,
        "vocab_size": 250002,
    },
    "albert-base-v1": ALBERT,
    "albert-base-v2": {
        **ALBERT,
        "attention_probs_dropout_prob": 0,
        "hidden_act": "gelu_new",
        "hidden_dropout_prob": 0,
    },
    "electra-small-generator": {**ELECTRA, "architectures": ["ElectraForMaskedLM"]},
    "electra-small-discriminator": {**ELECTRA, "architectures": ["ElectraForPreTraining"]},
}
#: what each of them must come out as: layers, hidden size, heads, feed-forward, positions, vocabulary,
#: embedding size, activation, eps, dropout
EXPECTED: dict[str, tuple[Any, ...]] = {
    "distilbert-base-uncased": (6, 768, 12, 3072, 512, 30522, None, "gelu", 1e-12, 0.1),
    "camembert-base": (12, 768, 12, 3072, 512, 32005, None, "gelu", 1e-5, 0.1),
    "xlm-roberta-base": (12, 768, 12, 3072, 512, 250002, None, "gelu", 1e-5, 0.1),
    "albert-base-v1": (12, 768, 12, 3072, 512, 30000, 128, "gelu", 1e-12, 0.1),
    "albert-base-v2": (12, 768, 12, 3072, 512, 30000, 128, "gelu_new", 1e-12, 0),
    "electra-small-generator": (12, 256, 4, 1024, 512, 30522, 128, "gelu", 1e-12, 0.1),
    "electra-small-discriminator": (12, 256, 4, 1024, 512, 30522, 128, "gelu", 1e-12, 0.1),
}


def summary(stack: StackConfig) -> tuple[Any, ...]:
    return (
        *(stack.num_layers, stack.hidden_size, stack.num_heads, stack.feedforward_size),
        *(stack.max_positions, stack.vocab_size, stack.embedding.size),
        *(stack.activation, stack.norm_eps, stack.dropout),
    )


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("role", ROLES)
def test_accepted(name: str, role: str) -> None:
    config = PUBLISHED[name]
    stack = stack_config(family_of(config), config, role, where=name)  # type: ignore[arg-type]
    assert summary(stack) == EXPECTED[name]
    assert stack.causal is (role in ("decoder", "cross_decoder"))
    assert (stack.head is None) is (role == "encoder")
    assert stack.cross_attention is (role == "cross_decoder")
    assert stack.embedding.token_types == config.get("type_vocab_size", 0)
    assert set(stack.layer_order) <= {0}, "ALBERT's twelve layers are one"


#: families whose configuration class the reference still has
KNOWN = [name for name in FAMILIES if name in transformers.CONFIG_MAPPING]


@pytest.mark.parametrize("name", KNOWN)
def test_defaults_are_the_published_ones(name: str) -> None:
    """A config.json may leave out what equals its family's default."""
    theirs = transformers.AutoConfig.for_model(name).to_dict()
    ours = {key: value for key, value in FAMILIES[name].options.items() if key in theirs}
    follow = {key for key in ours if ours[key] is None}  # from another option
    assert {key: theirs[key] for key in ours if key not in follow} == {
        key: value for key, value in ours.items() if key not in follow
    }
    assert len(ours) > 10


@pytest.mark.parametrize("name", KNOWN)
def test_architectures_exist(name: str) -> None:
    configuration = transformers.CONFIG_MAPPING[name].__module__
    modeling = import_module(configuration.replace("configuration", "modeling"))
    for architecture in FAMILIES[name].architectures.values():
        assert hasattr(modeling, architecture), architecture
