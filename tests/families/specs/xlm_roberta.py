"""XLM-RoBERTa under test."""

from tests.families.spec import Spec
from tests.families.specs import roberta

SPEC = Spec(
    base={**roberta.SPEC.base, "model_type": "xlm-roberta"},
    cases={
        "untied-pad": {
            "tie_word_embeddings": False,
            "hidden_act": "gelu_new",
            "layer_norm_eps": 0.1,
            "pad_token_id": 3,
            "num_attention_heads": 2,
        },
    },
)
