"""Rules between values: every combination that contradicts itself or would be ignored."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seq2seq_cli.errors import UsageError
from seq2seq_cli.recipe import generation_section, load_preset, load_recipe, merge_generation

Write = Callable[[str | bytes], Path]

_DATA = "data: {train: t, validation: v}"
_TRAIN = f"model: {{encoder: a}}\n{_DATA}\ntraining: "
_LM = f"{_DATA}\ntraining: {{objective: causal_lm}}"
_MLM = f"{_DATA}\ntraining: {{objective: masked_lm}}"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("model: {decoder: a}", "seq2seq needs model.encoder"),
        (f"model: {{encoder: a}}\n{_LM}", "causal_lm needs model.decoder|causal_lm trains the decoder alone"),
        (f"model: {{encoder: a, decoder: b}}\n{_LM}", "causal_lm trains the decoder alone"),
        (f"model: {{encoder: a, decoder: b}}\n{_MLM}", "masked_lm trains the encoder alone"),
        (f"model: {{decoder: a, share: all}}\n{_LM}", "causal_lm has one side, nothing to share"),
        (f"model: {{decoder: a, random: both}}\n{_LM}", "causal_lm has no encoder to start fresh"),
        (f"model: {{decoder: a, freeze: [encoder]}}\n{_LM}", "causal_lm has no encoder to freeze"),
        (f"model: {{decoder: a, tokenizers: {{source: b}}}}\n{_LM}", "causal_lm has no source tokenizer"),
        (
            f"model: {{decoder: a}}\n{_LM[:-1]}, groups: {{encoder: {{learning_rate: 1}}}}}}",
            "causal_lm has no encoder",
        ),
        ("model: {encoder: {random: true}}", "model.encoder names neither checkpoint nor family"),
        ("model: {encoder: {checkpoint: a, family: bert}}", "checkpoint and family exclude each other"),
        ("model: {encoder: {checkpoint: a, config: {x: 1}}}", "config belongs to a side with family"),
        (
            "model: {encoder: {family: bert, tokenizer: a, random: true}}",
            "a side with family is always fresh",
        ),
        (
            "model: {encoder: {family: bert, tokenizer: a, set: {x: 1}}}",
            "set belongs to a side with checkpoint",
        ),
        ("model: {encoder: {family: bert}}", "the encoder from scratch needs a tokenizer"),
        (
            "model: {encoder: {checkpoint: a, tokenizer: b}, tokenizers: {source: c}}",
            "two tokenizers for the source",
        ),
        ("model: {encoder: a}\ntraining: {seed: 1}", "a recipe that trains needs data.train"),
        (
            _TRAIN + "{tokens_per_batch: 9, per_device_train_batch_size: 9}",
            "tokens_per_batch and per_device_train_batch_size exclude each other",
        ),
        (
            _TRAIN + "{lr_scheduler_type: constant, warmup_steps: 9}",
            "the constant schedule has no warm-up",
        ),
        (
            _TRAIN + "{metric_for_best_model: bleu, eval_samples: 0}",
            "bleu needs generated text",
        ),
        (
            f"model: {{decoder: a}}\n{_LM[:-1]}, metric_for_best_model: bleu}}",
            "causal_lm is not scored by bleu",
        ),
        (
            _TRAIN + "{optim: adafactor, adam_beta1: 0.8}",
            "adam_beta1 has no effect on optim: adafactor",
        ),
        (
            _TRAIN + "{adafactor: {beta1: 0.8}}",
            "adafactor has no effect on optim: adamw_torch_fused",
        ),
        (
            _TRAIN + "{groups: {encoder: {lr_scheduler_type: constant, warmup_steps: 9}}}",
            "the constant schedule has no warm-up",
        ),
        (
            _TRAIN + "{groups: {encoder: {freeze_steps: 9, freeze_after: 9}}}",
            "freeze_after 9 leaves no step behind freeze_steps 9",
        ),
        (
            _TRAIN + "{groups: {fresh: {freeze: true, learning_rate: 1}}}",
            "learning_rate has no effect on a frozen part",
        ),
        (
            _TRAIN.replace("a}", "a, freeze: [encoder]}") + "{groups: {encoder: {freeze_steps: 3}}}",
            "freeze_steps has no effect on a frozen part",
        ),
        *(
            (
                f"model: {{encoder: a}}\ndata: {{train: t}}\ntraining: {{{key}: {value}}}",
                f"{key} needs validation rows",
            )
            for key, value in {
                "early_stopping_patience": "2",
                "eval_steps": "5",
                "eval_samples": "5",
                "per_device_eval_batch_size": "5",
                "metric_for_best_model": "bleu",
                "load_best_model_at_end": "true",
            }.items()
        ),
    ],
)
def test_contradictions(write: Write, text: str, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_recipe(write(text))
    assert "|".join(finding.what for finding in caught.value.findings) == what
    assert all(finding.where.startswith("r.yaml:") and finding.remedy for finding in caught.value.findings)


@pytest.mark.parametrize(
    "text",
    [
        f"model: {{decoder: a, random: decoder, freeze: [decoder]}}\n{_LM}",
        f"model: {{encoder: a}}\n{_MLM}",
        "model: {encoder: {family: bert}, tokenizers: {source: a}}",
        "model: {encoder: a}\ndata: {train: t}\ntraining: {load_best_model_at_end: false}",
        _TRAIN + "{early_stopping_patience: 2, metric_for_best_model: rouge1}",
    ],
)
def test_combinations_that_are_fine(write: Write, text: str) -> None:
    load_recipe(write(text))


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"num_beams": 0}, "num_beams must be at least 1, not 0"),
        ({"num_beams": True}, "num_beams must be a whole number, not true"),
        ({"top_p": 2.0}, "top_p must be at most 1, not 2.0"),
        ({"top_p": 0.0}, "top_p must be above 0, not 0.0"),
        ({"top_p": math.nan}, "top_p must be a finite number, not nan"),
        ({"temperature": 0.0}, "temperature must be above 0, not 0.0"),
        ({"repetition_penalty": math.inf}, "repetition_penalty must be a finite number, not inf"),
        ({"early_stopping": "sometimes"}, "early_stopping must be true, false or never, not 'sometimes'"),
        ({"early_stopping": 1}, "early_stopping must be true, false or never, not 1"),
        ({"beams": 4}, "unknown key 'beams'"),
        ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences 3 is more than num_beams 2"),
        ({"min_new_tokens": 9, "max_new_tokens": 3}, "min_new_tokens 9 is more than max_new_tokens 3"),
        ({"do_sample": False, "top_k": 5}, "top_k has no effect when do_sample is false"),
    ],
)
def test_generation_options_are_checked_anywhere(values: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError) as caught:
        generation_section(values, where=lambda name: f"<{name}>")
    (finding,) = caught.value.findings
    assert finding.what == what
    assert finding.where.startswith("<")


def test_generation_findings_come_together() -> None:
    with pytest.raises(UsageError) as caught:
        generation_section(
            {"num_beams": 0, "top_p": 3.0, "min_new_tokens": 5, "max_new_tokens": 2}, where=str
        )
    assert [finding.where for finding in caught.value.findings] == ["num_beams", "top_p", "min_new_tokens"]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"num_beams": 4, "num_return_sequences": 4},
        {"do_sample": True, "num_return_sequences": 9, "num_beams": 1},
        {"top_k": 0, "early_stopping": "never", "length_penalty": -1.0, "max_new_tokens": None},
    ],
)
def test_generation_options_that_are_fine(values: dict[str, Any]) -> None:
    section = generation_section(values, where=str)
    given = {name: value for name, value in values.items() if value is not None}
    assert section.model_dump(exclude_none=True) == given


def test_later_layers_win_and_imply() -> None:
    preset, flags = {"do_sample": False, "num_beams": 4}, {"top_p": 0.9, "num_beams": None}
    assert merge_generation(preset, flags) == {"do_sample": True, "num_beams": 4, "top_p": 0.9}
    assert merge_generation({"top_p": 0.9, "seed": 1}, {"do_sample": False}) == {
        "seed": 1,
        "do_sample": False,
    }
    assert merge_generation({"top_k": 5}, {"do_sample": False}, {"top_p": 0.5}) == {
        "do_sample": True,
        "top_p": 0.5,
    }


@pytest.mark.parametrize("name", ["greedy", "beam", "sample", "summarize", "diverse", "contrastive"])
def test_shipped_presets_are_valid(name: str) -> None:
    assert load_preset(name)


def test_unknown_preset() -> None:
    with pytest.raises(
        UsageError,
        match=r"no preset named '\.\./x' · known: beam, contrastive, diverse, greedy, sample, summarize",
    ):
        load_preset("../x")
