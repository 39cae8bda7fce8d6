"""ELECTRA under test: embeddings narrower than the layers, as wide, and wider."""

from tests.families.spec import Spec

SPEC = Spec(
    base={
        "model_type": "electra",
        "embedding_size": 16,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "vocab_size": 60,
        "max_position_embeddings": 40,
    },
    cases={
        "as-wide": {"embedding_size": 32, "hidden_act": "relu", "layer_norm_eps": 1e-3},
        "untied": {
            "tie_word_embeddings": False,
            "embedding_size": 48,
            "hidden_act": "gelu_new",
            "layer_norm_eps": 0.1,
            "type_vocab_size": 5,
            "num_attention_heads": 2,
        },
    },
)
