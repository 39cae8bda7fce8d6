#!/usr/bin/env python3
"""Store tiny checkpoints with the outputs of an old published implementation under tests/families/references.

    python -m venv ENV && ENV/bin/pip install torch==2.13.0 transformers==4.30.2 'numpy<2'
    ENV/bin/python scripts/make_references.py

What today's transformers cannot run any more (Transformer-XL, BERT's relative positions) is compared with
these. Every case is a folder: config.json and model.safetensors as that version writes them, and
outputs.safetensors with the ids of some texts (``ids.NUMBER``) and what each role gives for them
(``ROLE.NUMBER``); ``pieces.NUMBER`` is the language model fed piece by piece with its memory, and
``greedy.NUMBER`` and ``beams.NUMBER`` are what its ``generate`` writes behind the text with that memory, with
the sums of log-probabilities as ``greedy-score.NUMBER`` and ``beams-score.NUMBER``.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file

REFERENCES = Path(__file__).resolve().parent.parent / "tests" / "families" / "references"
ROWS = [[5, 6, 7, 8, 9, 10, 11, 12, 13], [14, 15, 16, 17, 18, 19], [20, 21, 22]]
LONG = [7, 31, 12, 58, 3, 22, 40, 9, 17, 33, 51, 26, 2, 45, 11, 38, 29]
PIECES = (3, 1, 4, 1, 1, 5, 2)
WRITTEN, LAST = 14, 59  # new tokens; the id that would end them, which none of the models writes

TRANSFORMER_XL: dict[str, Any] = {
    "vocab_size": 60,
    "cutoffs": [10],
    "div_val": 2,
    "d_model": 32,
    "d_embed": 16,
    "n_head": 3,
    "d_head": 6,
    "d_inner": 24,
    "n_layer": 2,
    "mem_len": 6,
    "eos_token_id": 2,
}
BERT: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
}
#: family -> case -> what it changes; the first case of a family is its base
CASES: dict[str, dict[str, dict[str, Any]]] = {
    "transfo-xl": {
        "base": {},
        "narrow": {"d_model": 24, "n_head": 2, "d_head": 8},
        "clusters": {"cutoffs": [10, 25], "div_val": 3},
        "plain": {"cutoffs": [], "div_val": 1, "d_embed": 32, "mem_len": 0, "same_length": False},
        "pre-norm": {"pre_lnorm": True, "mem_len": 4, "layer_norm_epsilon": 0.1},
        "pre-norm-remembering": {"pre_lnorm": True, "mem_len": 4, "same_length": False},
        "remembering": {"same_length": False, "mem_len": 5, "clamp_len": -1},
        "clamped": {"clamp_len": 3},
        "shared-biases": {"untie_r": False, "cutoffs": [10, 20], "div_val": 4},
        "one-table": {"cutoffs": [10, 30], "div_val": 1},
        "one-table-own-maps": {"cutoffs": [10, 30], "div_val": 1, "proj_share_all_but_first": False},
        "one-table-no-maps": {"cutoffs": [10, 30], "div_val": 1, "d_embed": 32},
        "own-maps": {"proj_share_all_but_first": False},
        "stated-maps": {"tie_projs": [True, False, True], "cutoffs": [10, 20]},
        "untied": {"tie_word_embeddings": False, "cutoffs": [10, 25]},
    },
    "bert": {
        "relative-key": {"position_embedding_type": "relative_key"},
        "relative-key-query": {"position_embedding_type": "relative_key_query", "num_attention_heads": 2},
    },
    "roberta": {
        "relative-key-query": {"position_embedding_type": "relative_key_query", "pad_token_id": 0},
    },
}
BASES = {"transfo-xl": TRANSFORMER_XL, "bert": BERT, "roberta": {**BERT, "type_vocab_size": 1}}
#: family -> role -> class
CLASSES: dict[str, dict[str, Any]] = {
    "transfo-xl": {"encoder": "TransfoXLModel", "decoder": "TransfoXLLMHeadModel"},
    "bert": {"encoder": "BertModel", "decoder": "BertLMHeadModel", "masked_lm": "BertForMaskedLM"},
    "roberta": {
        "encoder": "RobertaModel",
        "decoder": "RobertaForCausalLM",
        "masked_lm": "RobertaForMaskedLM",
    },
}


def scrambled(model: Any, std: float = 0.3) -> Any:
    """Weights that show every part of a model; gains of norms around 1."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0.0, std, generator=generator)
            if name.lower().endswith("norm.weight"):
                parameter.add_(1.0)
    return model.eval()


def piece_by_piece(model: Any, ids: list[int]) -> torch.Tensor:
    """Logits [L, V] of a language model that is handed its own memory from piece to piece."""
    memory, start, found = None, 0, []
    for size in PIECES:
        output = model(torch.tensor([ids[start : start + size]]), mems=memory)
        memory, start = output.mems, start + size
        found.append(output.prediction_scores[0])
    return torch.cat(found)


def written_behind(model: Any, ids: list[int], *, beams: int) -> tuple[torch.Tensor, torch.Tensor]:
    """New tokens [WRITTEN] and the sum of their log-probabilities []."""
    output = model.generate(
        torch.tensor([ids]),
        num_beams=beams,
        length_penalty=0.0,
        do_sample=False,
        no_repeat_ngram_size=2,
        max_new_tokens=WRITTEN,
        eos_token_id=LAST,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_scores=True,
    )
    assert LAST not in output.sequences[0, len(ids) :]
    indices = output.beam_indices if beams > 1 else None
    steps = model.compute_transition_scores(
        output.sequences, output.scores, indices, normalize_logits=beams == 1
    )
    return output.sequences[0, len(ids) :].clone(), steps[0].sum()


def store(family: str, case: str, config: dict[str, Any]) -> None:
    """Write one case."""
    folder = REFERENCES / family / case
    folder.mkdir(parents=True, exist_ok=True)
    outputs = {f"ids.{number}": torch.tensor(row) for number, row in enumerate([*ROWS, LONG])}
    written: dict[str, torch.Tensor] = {}
    for role, name in reversed(CLASSES[family].items()):
        made = getattr(transformers, name)
        settings = {"is_decoder": True} if role == "decoder" and family != "transfo-xl" else {}
        model = made(made.config_class(**config, **settings)).eval()
        if written:  # the other roles' numbers are of one checkpoint
            prefix = "" if role != "encoder" else f"{model.base_model_prefix}."
            mine = {n.removeprefix(prefix): t for n, t in written.items() if n.startswith(prefix)}
            missing, _ = model.load_state_dict(mine, strict=False)
            assert all("pooler" in key for key in missing), missing
        else:
            written = {n: t.clone().contiguous() for n, t in scrambled(model).state_dict().items()}
            model.config.architectures = [name]
            model.config.save_pretrained(folder)
        with torch.no_grad():
            for number, row in enumerate([*ROWS, LONG]):
                outputs[f"{role}.{number}"] = model(torch.tensor([row]))[0][0].clone()
            if role == "decoder" and config.get("mem_len"):
                outputs[f"pieces.{len(ROWS)}"] = piece_by_piece(model, LONG)
                for number, row in enumerate([*ROWS, LONG]):
                    for name, beams in (("greedy", 1), ("beams", 3)):
                        ids, score = written_behind(model, row, beams=beams)
                        outputs |= {f"{name}.{number}": ids, f"{name}-score.{number}": score}
    save_file(written, folder / "model.safetensors", metadata={"format": "pt"})
    save_file(outputs, folder / "outputs.safetensors")


def main() -> None:
    """Write every case anew."""
    assert transformers.__version__ == "4.30.2", transformers.__version__
    warnings.simplefilter("ignore")
    for family, cases in CASES.items():
        for case, changes in cases.items():
            store(family, case, {**BASES[family], **changes})


if __name__ == "__main__":
    main()
