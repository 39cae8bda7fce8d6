"""GPT-2 under test."""

from tests.families.spec import Spec

SPEC = Spec(
    base={
        "model_type": "gpt2",
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "vocab_size": 60,
        "n_positions": 40,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    roles=("encoder", "decoder"),
    cases={
        "inner": {"n_inner": 50, "activation_function": "relu", "layer_norm_epsilon": 1e-3},
        "unscaled": {"scale_attn_weights": False, "n_head": 2, "activation_function": "gelu"},
        "by-depth": {"scale_attn_by_inverse_layer_idx": True, "n_layer": 3, "n_head": 8},
        "both": {
            "scale_attn_weights": False,
            "scale_attn_by_inverse_layer_idx": True,
            "reorder_and_upcast_attn": True,
        },
        "untied": {"tie_word_embeddings": False, "n_head": 1, "layer_norm_epsilon": 0.1},
    },
)
