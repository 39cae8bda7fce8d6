"""RoBERTa with norms in front under test."""

from tests.families.spec import Spec
from tests.families.specs.roberta import SPEC as ROBERTA

SPEC = Spec(
    base={**ROBERTA.base, "model_type": "roberta-prelayernorm"},
    cases={
        "untied": {"tie_word_embeddings": False, "hidden_act": "relu", "layer_norm_eps": 1e-2},
        "pad": {"pad_token_id": 4, "max_position_embeddings": 30, "hidden_act": "gelu_new"},
    },
)
