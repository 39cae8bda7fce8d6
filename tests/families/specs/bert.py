"""BERT under test."""

from tests.families import stored
from tests.families.spec import Spec

STORED = stored.configs("bert")

SPEC = Spec(
    base={
        "model_type": "bert",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "vocab_size": 60,
        "max_position_embeddings": 40,
    },
    cases={
        "tanh-gelu": {"hidden_act": "gelu_new", "layer_norm_eps": 1e-3, "num_attention_heads": 2},
        "relu-types": {"hidden_act": "relu", "type_vocab_size": 5, "num_attention_heads": 1},
        "untied": {"tie_word_embeddings": False, "layer_norm_eps": 0.1, "hidden_size": 24},
        **STORED,
    },
    stored=tuple(STORED),
)
