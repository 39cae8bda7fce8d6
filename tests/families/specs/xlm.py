"""XLM under test: a language is said by our option, and to the reference by an id for every token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.families.spec import Options, Spec, make_published

LANGUAGES = {"en": 0, "fr": 1, "de": 2}


def _make(role: str, config: Options) -> Any:
    return make_published(role, {**config, "causal": True} if role == "decoder" else config)


def _run(model: Any, role: str, ids: Tensor) -> Tensor:
    language = getattr(model.config, "language", None)
    language = LANGUAGES[language] if isinstance(language, str) else language
    langs = None if language is None else torch.full_like(ids, language)
    output: Tensor = model(input_ids=ids, langs=langs)[0]
    return output


SPEC = Spec(
    base={
        "model_type": "xlm",
        "emb_dim": 32,
        "n_layers": 2,
        "n_heads": 4,
        "vocab_size": 60,
        "max_position_embeddings": 40,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    },
    cases={
        "narrow": {"emb_dim": 24, "n_heads": 3, "layer_norm_eps": 1e-2, "gelu_activation": False},
        "sinusoidal": {"sinusoidal_embeddings": True, "n_layers": 3},
        "causal": {"causal": True, "n_heads": 8},
        "no-language": {"n_langs": 3},
        "first-language": {"n_langs": 3, "language": 0},
        "last-language": {"n_langs": 3, "language": 2, "n_heads": 2},
        "named-language": {"n_langs": 3, "lang2id": LANGUAGES, "language": "fr"},
        "no-table": {"n_langs": 3, "use_lang_emb": False},
        "untied": {"tie_word_embeddings": False, "n_heads": 1},
    },
    make=_make,
    run=_run,
)
