#!/usr/bin/env python3
"""Store what old versions of transformers write with strategies that today's has no more.

    python -m venv ENV && ENV/bin/pip install torch==2.13.0 transformers==4.56.2
    ENV/bin/python scripts/make_decoding_references.py      (tiny models; group and constrained beam search)
    python -m venv OLD && OLD/bin/pip install torch==2.13.0 transformers==4.30.2 'numpy<2'
    OLD/bin/python scripts/make_decoding_references.py      (contrastive search, with those models)

tests/decoding/references holds a folder for each model and a file for each strategy in it: cases of options
with, for each source, what is written behind the prompt (ended by an eos and filled up with pads) and its
score. Every source is decoded alone, so that nothing depends on how a batch is padded.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers

REFERENCES = Path(__file__).resolve().parent.parent / "tests" / "decoding" / "references"
SOURCES = [[5, 6, 7, 8], [9, 10, 11, 12, 13, 14, 15], [20, 21], [33, 8, 8, 30, 31]]
START, EOS, PAD = 3, 2, 0
MANY_EOS = list(range(2, 9))

Case = dict[str, Any]
GROUPS: list[Case] = [
    {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
    {"num_beams": 4, "num_beam_groups": 4, "diversity_penalty": 1.0, "num_return_sequences": 4},
    {"num_beams": 6, "num_beam_groups": 3, "diversity_penalty": 0.3, "num_return_sequences": 6},
    {"num_beams": 6, "num_beam_groups": 2, "diversity_penalty": 5.0, "num_return_sequences": 3},
]
GROUP_SETTINGS: list[Case] = [
    {},
    {"early_stopping": True, "eos_token_id": MANY_EOS},
    {"early_stopping": False, "eos_token_id": MANY_EOS, "length_penalty": 2.0},
    {"early_stopping": "never", "eos_token_id": MANY_EOS, "length_penalty": 2.0},
    {"early_stopping": "never", "length_penalty": -1.0, "eos_token_id": [2, 9, 17, 30]},
    {"early_stopping": True, "length_penalty": 0.0, "min_new_tokens": 5},
    {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2, "bad_words_ids": [[7], [8, 9]]},
    {"forced_bos_token_id": 9, "forced_eos_token_id": 2},
    {"max_new_tokens": 1},
]
CONSTRAINTS: list[Case] = [
    {"force_words_ids": [[17, 23, 5], [30]]},
    {"force_words_ids": [[17, 23], [30, 31, 32], [9]]},
    {"force_words_ids": [[[17, 23], [30, 31, 32]]]},
    {"force_words_ids": [[[17, 23, 4], [17, 25], [36]], [9, 11]]},
    {"force_words_ids": [[8, 8], [8]]},
]
CONSTRAINED_SETTINGS: list[Case] = [
    {"num_beams": 4, "early_stopping": True, "eos_token_id": MANY_EOS, "num_return_sequences": 4},
    {"num_beams": 4, "length_penalty": 2.0, "eos_token_id": [2, 10, 20, 33], "num_return_sequences": 2},
    {"num_beams": 5, "early_stopping": "never", "length_penalty": -1.0, "no_repeat_ngram_size": 2},
    {"num_beams": 2, "max_new_tokens": 3, "num_return_sequences": 2},
    {"num_beams": 3, "min_new_tokens": 6, "repetition_penalty": 1.3, "forced_eos_token_id": 2},
]
#: likely words, and so many ends that they are met before the length limit
LIKELY: list[Case] = [
    {"force_words_ids": [[20]]},
    {"force_words_ids": [[30]]},
    {"force_words_ids": [[[20], [27], [8]]]},
    {"force_words_ids": [[[20, 26], [20, 27], [20, 8, 20], [8, 8]]]},
]
ENDING: list[Case] = [
    {"num_beams": 2, "early_stopping": True, "num_return_sequences": 2},
    {"num_beams": 3, "early_stopping": False, "length_penalty": 2.0, "num_return_sequences": 3},
    {"num_beams": 2, "early_stopping": "never", "length_penalty": 2.0},
    {"num_beams": 3, "early_stopping": "never", "length_penalty": -1.0, "num_return_sequences": 2},
]
CONTRASTIVE: list[Case] = [
    {"penalty_alpha": 0.6, "top_k": 4},
    {"penalty_alpha": 0.3, "top_k": 2},
    {"penalty_alpha": 0.9, "top_k": 8, "eos_token_id": MANY_EOS},
    {"penalty_alpha": 1.0, "top_k": 3},
    {"penalty_alpha": 0.5, "top_k": 5, "repetition_penalty": 1.5, "no_repeat_ngram_size": 2},
    {"penalty_alpha": 0.6, "top_k": 4, "min_new_tokens": 8, "bad_words_ids": [[7], [8, 9]]},
    {"penalty_alpha": 0.6, "top_k": 4, "forced_bos_token_id": 9, "forced_eos_token_id": 2},
    {"penalty_alpha": 0.6, "top_k": 4, "max_new_tokens": 1},
    {"penalty_alpha": 0.4, "top_k": 40},
]

BERT = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
}
GPT2 = {
    "vocab_size": 40,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 40,
    "tie_word_embeddings": False,
}
T5 = {
    "vocab_size": 40,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": 2,
    "num_heads": 2,
    "tie_word_embeddings": False,
}


def pair() -> Any:
    """BERT and GPT-2 joined."""
    joined = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(
        transformers.BertConfig(**BERT), transformers.GPT2Config(**GPT2)
    )
    return transformers.EncoderDecoderModel(joined)


MODELS = {
    "bert-gpt2": pair,
    "t5": lambda: transformers.T5ForConditionalGeneration(transformers.T5Config(**T5)),
    "gpt2": lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2)),
}
CLASSES = {
    "bert-gpt2": "EncoderDecoderModel",
    "t5": "T5ForConditionalGeneration",
    "gpt2": "GPT2LMHeadModel",
}


def scrambled(model: Any, std: float = 0.4) -> Any:
    """Weights that show every part of a model; gains of norms around 1."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0.0, std, generator=generator)
            if parameter.ndim == 1 and name.endswith("weight"):
                parameter.add_(1.0)
    return model.eval()


def save(name: str) -> None:
    """Write a model with the ids that it starts, ends and pads with."""
    model = scrambled(MODELS[name]())
    for settings in (model.config, model.generation_config):
        settings.decoder_start_token_id, settings.eos_token_id, settings.pad_token_id = START, EOS, PAD
        settings.bos_token_id = START
    model.save_pretrained(REFERENCES / name)


def written(model: Any, source: list[int], options: Case) -> Case:
    """What the model writes for one source."""
    ids = torch.tensor([source])

    def generated(with_scores: bool) -> Any:
        return model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            return_dict_in_generate=True,
            output_scores=with_scores,
            **{"max_new_tokens": 12, **options},
        )

    try:
        output = generated(True)
    except RuntimeError:  # a forced word is missing at the end: it cannot say the score of that
        output = generated(False)
    prompt = 1 if model.config.is_encoder_decoder else len(source)
    scores = getattr(output, "sequences_scores", None)
    return {
        "ids": [row[prompt:] for row in output.sequences.tolist()],
        "scores": [] if scores is None else scores.tolist(),
    }


def store(name: str, strategy: str, cases: list[Case]) -> None:
    """Write one file: a case a line."""
    model = getattr(transformers, CLASSES[name]).from_pretrained(REFERENCES / name).eval()
    lines = [
        json.dumps({"options": options, "rows": [written(model, source, options) for source in SOURCES]})
        for options in cases
    ]
    text = f'{{"sources": {json.dumps(SOURCES)}, "cases": [\n' + ",\n".join(lines) + "\n]}\n"
    (REFERENCES / name / f"{strategy}.json").write_text(text, encoding="utf-8")


def main() -> None:
    """Write what the installed version can."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    version = transformers.__version__
    assert version in ("4.30.2", "4.56.2"), version
    for name in MODELS:
        if version == "4.30.2":
            store(name, "contrastive", CONTRASTIVE)
            continue
        save(name)
        groups = [{**groups, **settings} for groups in GROUPS for settings in GROUP_SETTINGS]
        if name == "gpt2":  # a group that is done writes pads, which count: here they are its eos as well
            groups += [{**each, "eos_token_id": [2, 5, 9], "pad_token_id": 2} for each in GROUPS]
        store(name, "groups", groups)
        words = [{**words, **settings} for words in CONSTRAINTS for settings in CONSTRAINED_SETTINGS]
        ends = {"eos_token_id": list(range(2, 40, 5))}
        words += [{**words, **settings, **ends} for words in LIKELY for settings in ENDING]
        store(name, "constrained", words)


if __name__ == "__main__":
    main()
