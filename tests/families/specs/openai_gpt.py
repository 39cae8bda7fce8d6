"""GPT under test. It has no special tokens."""

from tests.families.spec import Spec

SPEC = Spec(
    base={
        "model_type": "openai-gpt",
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "vocab_size": 60,
        "n_positions": 40,
    },
    roles=("encoder", "decoder"),
    cases={
        "narrow": {"n_embd": 24, "n_head": 3, "layer_norm_epsilon": 1e-2},
        "relu": {"afn": "relu", "n_head": 8},
        "silu": {"afn": "silu", "n_layer": 3},
        "swish": {"afn": "swish", "layer_norm_epsilon": 0.1},
        "untied": {"tie_word_embeddings": False, "n_head": 1},
    },
)
