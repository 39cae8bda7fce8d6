"""RoBERTa under test. It finds positions from the padding id, so no text may hold that id."""

from tests.families import stored
from tests.families.spec import Spec

STORED = stored.configs("roberta")

SPEC = Spec(
    base={
        "model_type": "roberta",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "vocab_size": 60,
        "max_position_embeddings": 42,
        "type_vocab_size": 1,
    },
    cases={
        "untied": {"tie_word_embeddings": False, "hidden_act": "relu", "layer_norm_eps": 1e-2},
        "pad": {"pad_token_id": 4, "max_position_embeddings": 30, "hidden_act": "gelu_new"},
        "heads": {"num_attention_heads": 8, "type_vocab_size": 3, "num_hidden_layers": 3},
        **STORED,
    },
    stored=tuple(STORED),
)
