"""CamemBERT under test."""

from tests.families.spec import Spec
from tests.families.specs import roberta

SPEC = Spec(
    base={**roberta.SPEC.base, "model_type": "camembert"},
    cases={
        "published": {"layer_norm_eps": 1e-5, "bos_token_id": 5, "eos_token_id": 6},
        "untied-pad": {
            "tie_word_embeddings": False,
            "hidden_act": "relu",
            "layer_norm_eps": 1e-2,
            "pad_token_id": 4,
            "type_vocab_size": 2,
        },
    },
)
