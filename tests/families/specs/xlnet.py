"""XLNet under test. Its published decoder sees the past alone when it is told which places precede which."""

from typing import Any

import torch
from torch import Tensor

from tests.families.spec import Spec


def run(model: Any, role: str, ids: Tensor) -> Tensor:
    """ids [1, L] -> states, or logits behind a causal mask [1, L, ...]."""
    later = None
    if role == "decoder" and model.config.attn_type == "bi":
        later = torch.ones(1, ids.shape[1], ids.shape[1]).triu(1)
    output: Tensor = model(input_ids=ids, perm_mask=later)[0]
    return output


SPEC = Spec(
    base={
        "model_type": "xlnet",
        "d_model": 32,
        "n_layer": 2,
        "n_head": 4,
        "d_inner": 48,
        "vocab_size": 60,
        "pad_token_id": 0,
    },
    roles=("encoder", "decoder"),
    run=run,
    cases={
        "one-way": {"attn_type": "uni", "n_head": 2, "layer_norm_eps": 0.1},
        "clamped": {"clamp_len": 2, "ff_activation": "gelu_new"},
        "clamped-one-way": {"clamp_len": 2, "attn_type": "uni", "ff_activation": "relu"},
        "untied": {"tie_word_embeddings": False, "n_head": 1, "n_layer": 3},
        # these say nothing about a text that is read as a whole
        "unread": {
            "same_length": True,
            "mem_len": 3,
            "reuse_len": 2,
            "use_mems_eval": False,
            "untie_r": False,
        },
    },
)
