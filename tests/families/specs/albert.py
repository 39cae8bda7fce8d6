"""ALBERT under test: layers shared in every way that groups and inner groups allow."""

from tests.families.spec import Spec, make_masked, run_causally

SPEC = Spec(
    base={
        "model_type": "albert",
        "embedding_size": 16,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "vocab_size": 60,
        "max_position_embeddings": 40,
    },
    cases={
        # 18 / 14: depth 9 is in group 6 only if rounded as published
        "rounding": {
            "num_hidden_layers": 18,
            "num_hidden_groups": 14,
            "hidden_size": 16,
            "intermediate_size": 8,
            "layer_norm_eps": 1e-3,
        },
        "inner": {
            "num_hidden_layers": 3,
            "num_hidden_groups": 2,
            "inner_group_num": 2,
            "hidden_act": "relu",
        },
        "unshared": {"num_hidden_groups": 3, "num_attention_heads": 2, "type_vocab_size": 5},
        "untied": {"tie_word_embeddings": False, "embedding_size": 32, "layer_norm_eps": 0.1},
    },
    make=make_masked,
    run=run_causally,
)
