"""CTRL under test. It has no special tokens."""

from tests.families.spec import Spec

SPEC = Spec(
    base={
        "model_type": "ctrl",
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "dff": 48,
        "vocab_size": 60,
        "n_positions": 40,
    },
    roles=("encoder", "decoder"),
    cases={
        "narrow": {"n_embd": 24, "n_head": 3, "dff": 20},
        "odd": {"n_embd": 27, "n_head": 3, "n_layer": 3},
        "epsilon": {"layer_norm_epsilon": 0.5, "n_head": 8},
        "untied": {"tie_word_embeddings": False, "n_head": 1},
    },
)
