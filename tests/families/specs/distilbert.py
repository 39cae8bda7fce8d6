"""DistilBERT under test."""

from tests.families.spec import Spec, make_masked, run_causally

SPEC = Spec(
    base={
        "model_type": "distilbert",
        "dim": 32,
        "n_layers": 2,
        "n_heads": 4,
        "hidden_dim": 48,
        "vocab_size": 60,
        "max_position_embeddings": 40,
    },
    cases={
        "sinusoids": {"sinusoidal_pos_embds": True, "activation": "relu", "n_heads": 2, "n_layers": 3},
        "untied": {"tie_word_embeddings": False, "activation": "gelu_new", "dim": 24, "n_heads": 1},
    },
    make=make_masked,
    run=run_causally,
)
