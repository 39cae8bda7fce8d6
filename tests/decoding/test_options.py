"""Options: what is refused, with which words; what the checkpoint wishes for, and what wins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from seq2seq_cli.checkpoint.bundle import load_bundle
from seq2seq_cli.decoding import generate_ids, resolve_options
from seq2seq_cli.decoding.options import Wording
from seq2seq_cli.decoding.overlay import overlay
from seq2seq_cli.errors import CheckpointError, UsageError
from seq2seq_cli.model import SpecialIds
from tests import tiny

IDS = SpecialIds(start=1, eos=(2,), pad=0, bos=1)
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beam": 2}, "unknown key 'num_beam'.*did you mean 'num_beams'"),
        ({"penalty_alpha": 0.6}, "penalty_alpha needs top_k of at least 2"),
        ({"penalty_alpha": 0.6, "top_k": 1}, "penalty_alpha needs top_k of at least 2"),
        ({"penalty_alpha": 1.1, "top_k": 4}, "penalty_alpha must be at most 1"),
        ({"penalty_alpha": -0.1, "top_k": 4}, "penalty_alpha must be at least 0"),
        ({"penalty_alpha": NAN, "top_k": 4}, "penalty_alpha must be a finite number"),
        (
            {"penalty_alpha": 0.6, "top_k": 4, "num_beams": 2},
            "penalty_alpha 0.6 does not go with num_beams 2",
        ),
        ({"penalty_alpha": 0.6, "top_k": 4, "do_sample": True}, "penalty_alpha does not go with sampling"),
        ({"penalty_alpha": 0.6, "top_k": 4, "top_p": 0.9}, "penalty_alpha does not go with sampling"),
        ({"penalty_alpha": 0.6, "top_k": 4, "num_return_sequences": 2}, "num_return_sequences 2 needs"),
        ({"penalty_alpha": 0.6, "top_k": 4, "force_words_ids": [[5]]}, "force_words_ids needs beam search"),
        ({"prompt_lookup": -1}, "prompt_lookup must be at least 0"),
        ({"prompt_lookup": 5, "num_beams": 2}, "prompt_lookup 5 does not go with num_beams 2"),
        ({"prompt_lookup": 5, "draft_model": "a"}, "prompt_lookup 5 does not go with draft_model a"),
        ({"draft_model": "a", "num_beams": 2}, "draft_model a does not go with num_beams 2"),
        (
            {"draft_model": "a", "penalty_alpha": 0.6, "top_k": 4},
            "draft_model a does not go with penalty_alpha 0.6",
        ),
        ({"draft_tokens": 5}, "draft_tokens has no effect without a draft model"),
        ({"num_assistant_tokens": 5}, "draft_tokens has no effect without a draft model"),
        ({"draft_model": "a", "draft_tokens": -1}, "draft_tokens must be at least 0"),
        ({"prompt_lookup_num_tokens": -1}, "prompt_lookup must be at least 0"),
        ({"prompt_lookup": 5, "num_return_sequences": 2}, "num_return_sequences 2 needs"),
        (
            {"prompt_lookup": 5, "penalty_alpha": 0.6, "top_k": 4},
            "prompt_lookup 5 does not go with penalty_alpha 0.6",
        ),
        ({"num_beams": 4, "num_beam_groups": 0}, "num_beam_groups must be at least 1"),
        (
            {"num_beams": 4, "num_beam_groups": 3, "diversity_penalty": 0.5},
            "num_beam_groups 3 does not divide num_beams 4",
        ),
        ({"num_beam_groups": 2, "diversity_penalty": 0.5}, "num_beam_groups 2 does not divide num_beams 1"),
        ({"num_beams": 4, "num_beam_groups": 2}, "num_beam_groups 2 needs a diversity_penalty above 0"),
        (
            {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.0},
            "num_beam_groups 2 needs a diversity_penalty above 0",
        ),
        ({"num_beams": 4, "diversity_penalty": 0.5}, "diversity_penalty 0.5 has no effect without groups"),
        ({"num_beams": 4, "diversity_penalty": -1.0}, "diversity_penalty must be at least 0"),
        ({"num_beams": 4, "diversity_penalty": INF}, "diversity_penalty must be a finite number"),
        (
            {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5, "do_sample": True},
            "num_beam_groups does not go with sampling",
        ),
        ({"force_words_ids": [[5]]}, "force_words_ids needs beam search"),
        ({"force_words": ["tea"]}, "force_words needs beam search"),
        ({"force_words": ["tea"], "num_beams": 1}, "force_words needs beam search"),
        ({"force_words_ids": [[5]], "num_beams": 2, "top_k": 4}, "force_words_ids does not go with sampling"),
        (
            {"force_words_ids": [[5]], "num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
            "force_words_ids does not go with groups of beams",
        ),
        ({"force_words_ids": [[]], "num_beams": 2}, "force_words_ids.0 must not be empty"),
        ({"force_words_ids": [[[5], []]], "num_beams": 2}, "force_words_ids.0.1 must not be empty"),
        ({"force_words_ids": [[5, -1]], "num_beams": 2}, "force_words_ids.0.0 must be at least 0"),
        ({"force_words": [3], "num_beams": 2}, "force_words.0 must be a phrase, or a list of phrases"),
        ({"force_words": ["tea|"], "num_beams": 2}, "force_words.0 must be some text, not an empty one"),
        ({"temperature": NAN}, "temperature must be a finite number"),
        ({"temperature": INF}, "temperature"),
        ({"temperature": 0}, "temperature must be above 0"),
        ({"temperature": -1.0}, "temperature must be above 0"),
        ({"length_penalty": NAN}, "length_penalty"),
        ({"length_penalty": "1"}, "length_penalty must be a number.*without quotes"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be above 0"),
        ({"num_beams": 0}, "num_beams must be at least 1, not 0 · change it, or leave it out"),
        ({"num_beams": 2.0}, "num_beams must be a whole number.*write 2"),
        ({"num_beams": True}, "num_beams must be a whole number"),
        ({"num_beams": "4"}, "num_beams must be a whole number"),
        ({"max_new_tokens": [4]}, "max_new_tokens must be a whole number"),
        ({"top_p": 2.0}, "top_p must be at most 1"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"top_p": NAN}, "top_p"),
        ({"top_k": -1}, "top_k must be at least 0"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
        ({"max_length": 0}, "max_length must be at least 1"),
        ({"min_new_tokens": -1}, "min_new_tokens must be at least 0"),
        ({"early_stopping": "often"}, "early_stopping must be true, false or never"),
        ({"early_stopping": 1}, "early_stopping"),
        ({"eos_token_id": -1}, "eos_token_id must be at least 0"),
        ({"eos_token_id": "2"}, "eos_token_id"),
        ({"bad_words_ids": [[]]}, "bad_words_ids.0 must not be empty · write a value"),
        ({"bad_words_ids": [3]}, "bad_words_ids"),
        ({"bad_words_ids": [[3], [-1]]}, "bad_words_ids"),
        ({"do_sample": "yes"}, "do_sample must be true or false.*write true"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"min_p": 1.1}, "min_p must be at most 1"),
        ({"min_p": -0.1}, "min_p must be at least 0"),
        ({"typical_p": 0.0}, "typical_p must be above 0"),
        ({"typical_p": INF}, "typical_p must be a finite number"),
        ({"epsilon_cutoff": 1.0}, "epsilon_cutoff must be below 1"),
        ({"eta_cutoff": -1e-3}, "eta_cutoff must be at least 0"),
        ({"encoder_repetition_penalty": 0}, "encoder_repetition_penalty must be above 0"),
        ({"encoder_no_repeat_ngram_size": -1}, "encoder_no_repeat_ngram_size must be at least 0"),
        (
            {"exponential_decay_length_penalty": 3},
            "exponential_decay_length_penalty must be a number of tokens",
        ),
        (
            {"exponential_decay_length_penalty": [3, 0.0]},
            "exponential_decay_length_penalty.1 must be above 0",
        ),
        (
            {"exponential_decay_length_penalty": [1, NAN]},
            "exponential_decay_length_penalty.1 must be a finite",
        ),
        (
            {"exponential_decay_length_penalty": [-1, 1.1]},
            "exponential_decay_length_penalty.0 must be at least 0",
        ),
        ({"sequence_bias": {"tea": NAN}}, "sequence_bias.tea must be a finite number"),
        ({"sequence_bias": {}}, "sequence_bias must be texts with a number each"),
        ({"sequence_bias": [[[], 1.0]]}, r"sequence_bias.0.0 must not be empty"),
        ({"sequence_bias": "tea"}, "sequence_bias must be texts with a number each"),
        ({"suppress_tokens": [-1]}, "suppress_tokens.0 must be at least 0"),
        ({"begin_suppress_tokens": ["x"]}, "begin_suppress_tokens.0 must be a whole number"),
        ({"forced_bos_token_id": -2}, "forced_bos_token_id must be at least 0"),
        ({"bad_words": ""}, "bad_words must not be empty"),
        ({"bad_words": [3]}, "bad_words.0 must be text"),
        ({"stop": [""]}, "stop.0 must not be empty"),
        ({"stop_strings": [5]}, "stop_strings.0 must be text"),
        ({"prefix": ""}, "prefix must not be empty"),
        ({"renormalize_logits": 1}, "renormalize_logits must be true or false"),
        ({"remove_invalid_values": "yes"}, "remove_invalid_values must be true or false"),
        ({"min_length": 5, "max_length": 4}, "min_length 5 is more than max_length 4"),
        ({"do_sample": False, "typical_p": 0.9}, "typical_p has no effect when do_sample is false"),
        ({"do_sample": False, "eta_cutoff": 0.1}, "eta_cutoff has no effect when do_sample is false"),
        ({"num_return_sequences": 0}, "num_return_sequences must be at least 1"),
        ({"num_return_sequences": 2}, "num_return_sequences 2 needs"),
        ({"num_return_sequences": 3, "num_beams": 2}, "num_return_sequences 3 .*num_beams"),
        ({"num_return_sequences": 3, "num_beams": 2, "top_k": 5}, "num_return_sequences 3 .*num_beams"),
        ({"do_sample": False, "top_p": 0.9}, "top_p has no effect when do_sample is false"),
        ({"min_new_tokens": 5, "max_new_tokens": 4}, "min_new_tokens 5 is more than max_new_tokens 4"),
    ],
    ids=str,
)
def test_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        resolve_options(options, {}, IDS)
    assert len(caught.value.findings) == 1, "one fault, one line"


def test_all_faults_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        resolve_options({"num_beams": 0, "top_p": 2.0, "tempratur": 1.0, "eos_token_id": -4}, {}, IDS)
    assert len(caught.value.findings) == 4


def test_plain_defaults() -> None:
    """No hidden top-k, no hidden limit."""
    decoding = resolve_options({}, {}, IDS)
    assert (decoding.top_k, decoding.top_p, decoding.temperature) == (0, 1.0, 1.0)
    assert (decoding.max_new_tokens, decoding.max_length) == (None, None)
    assert (decoding.num_beams, decoding.do_sample, decoding.num_return_sequences) == (1, False, 1)
    assert (decoding.start, decoding.eos) == (1, (2,))


@pytest.mark.parametrize(
    ("given", "checkpoint", "expected"),
    [
        ({}, {"num_beams": 4, "length_penalty": 2.0}, {"num_beams": 4, "length_penalty": 2.0}),
        ({"num_beams": 2}, {"num_beams": 4, "length_penalty": 2.0}, {"num_beams": 2, "length_penalty": 2.0}),
        ({"num_beams": None}, {"num_beams": 4}, {"num_beams": 4}),
        ({}, {"max_length": 20}, {"max_length": None}),
        ({}, {"max_length": 21}, {"max_length": 21}),
        ({"max_length": 20}, {}, {"max_length": 20}),
        ({}, {"transformers_version": "4.1", "_from_model_config": True, "use_cache": True}, {}),
        ({}, {"do_sample": False, "temperature": 0.5, "top_k": 50}, {"do_sample": False, "top_k": 0}),
        ({}, {"do_sample": True, "top_k": 50}, {"do_sample": True, "top_k": 50}),
        ({"top_p": 0.9}, {}, {"do_sample": True, "top_p": 0.9, "top_k": 0}),
        ({"min_p": 0.1}, {}, {"do_sample": True, "min_p": 0.1}),
        ({"typical_p": 0.9}, {"num_beams": 4}, {"do_sample": True, "num_beams": 1}),
        ({"epsilon_cutoff": 1e-3, "eta_cutoff": 0.0}, {}, {"do_sample": True, "epsilon_cutoff": 1e-3}),
        (
            {},
            {"typical_p": 0.5, "eta_cutoff": 0.1},
            {"do_sample": False, "typical_p": 1.0, "eta_cutoff": 0.0},
        ),
        ({"max_length": 5}, {"min_length": 56}, {"max_length": 5, "min_length": 5}),
        ({"min_length": 9}, {"max_length": 4}, {"max_length": None, "min_length": 9}),
        ({"exponential_decay_length_penalty": [3, 1.2]}, {}, {"exponential_decay": (3, 1.2)}),
        ({"suppress_tokens": 4}, {"begin_suppress_tokens": [5, 6]}, {"begin_suppress_tokens": (5, 6)}),
        ({"temperature": 0.5}, {"num_beams": 4}, {"do_sample": True, "num_beams": 1}),
        ({"num_beams": 3}, {"do_sample": True, "top_k": 50}, {"num_beams": 3, "do_sample": False}),
        ({"do_sample": False}, {"do_sample": True, "top_k": 50}, {"do_sample": False, "top_k": 0}),
        ({"num_beams": 2}, {"num_beams": 4, "num_return_sequences": 4}, {"num_return_sequences": 1}),
        ({"eos_token_id": [5, 6]}, {}, {"eos": (5, 6)}),
        ({"eos_token_id": 0}, {}, {"eos": (0,)}),
        ({"eos_token_id": []}, {}, {"eos": ()}),
        ({"decoder_start_token_id": 0}, {}, {"start": 0}),
        ({"forced_bos_token_id": 0}, {"forced_eos_token_id": 0}, {"forced_bos": 0, "forced_eos": 0}),
        ({"do_sample": True, "num_return_sequences": 5}, {}, {"num_return_sequences": 5}),
        ({"max_new_tokens": 5}, {"min_new_tokens": 10}, {"max_new_tokens": 5, "min_new_tokens": 5}),
        ({"max_new_tokens": 50}, {"min_new_tokens": 10}, {"max_new_tokens": 50, "min_new_tokens": 10}),
        ({"min_new_tokens": 9}, {"max_new_tokens": 4}, {"max_new_tokens": None, "min_new_tokens": 9}),
        ({"min_new_tokens": 3}, {"max_new_tokens": 4}, {"max_new_tokens": 4, "min_new_tokens": 3}),
        ({"num_beams": 3, "temperature": 0.5}, {}, {"num_beams": 3, "do_sample": True}),
        ({}, {"num_beams": 3, "do_sample": True}, {"num_beams": 3, "do_sample": True}),
        ({}, {"num_beam_groups": 1, "diversity_penalty": 0.0}, {"num_beams": 1, "num_beam_groups": 1}),
        (
            {"prompt_lookup": 5},
            {"num_beams": 4, "do_sample": True, "num_return_sequences": 2},
            {"prompt_lookup": 5, "num_beams": 1, "do_sample": True, "num_return_sequences": 2},
        ),
        (
            {"prompt_lookup": 5},
            {"num_beams": 4, "top_p": 0.9, "num_return_sequences": 2},
            {"prompt_lookup": 5, "num_beams": 1, "do_sample": False, "num_return_sequences": 1},
        ),
        ({"prompt_lookup": 5, "top_p": 0.9}, {}, {"prompt_lookup": 5, "do_sample": True, "top_p": 0.9}),
        ({"top_p": 0.9, "num_beams": 2}, {"prompt_lookup": 5}, {"prompt_lookup": 0, "num_beams": 2}),
        ({}, {"prompt_lookup_num_tokens": 7}, {"prompt_lookup": 7}),
        ({"prompt_lookup": 0}, {"prompt_lookup_num_tokens": 7}, {"prompt_lookup": 0}),
        ({"num_beams": 3}, {"prompt_lookup_num_tokens": 7}, {"prompt_lookup": 0, "num_beams": 3}),
        ({}, {"prompt_lookup_num_tokens": 7, "num_beams": 4}, {"prompt_lookup": 0, "num_beams": 4}),
        ({"do_sample": True}, {"prompt_lookup_num_tokens": 7, "num_beams": 4}, {"prompt_lookup": 7}),
        ({"draft_model": "a"}, {"prompt_lookup_num_tokens": 7}, {"prompt_lookup": 0, "draft_tokens": 5}),
        ({"draft_model": "a", "draft_tokens": 0}, {"prompt_lookup": 7}, {"prompt_lookup": 7}),
        ({"prompt_lookup": 3}, {"draft_model": "a"}, {"prompt_lookup": 3, "draft_tokens": 0}),
        (
            {"draft_model": "a", "num_assistant_tokens": 3},
            {"num_beams": 4, "num_return_sequences": 4, "do_sample": False},
            {"draft_model": "a", "draft_tokens": 3, "num_beams": 1, "num_return_sequences": 1},
        ),
        ({"draft_tokens": 9}, {"draft_model": "a"}, {"draft_model": "a", "draft_tokens": 9}),
        ({"draft_model": "a"}, {"draft_tokens": 9}, {"draft_model": "a", "draft_tokens": 9}),
        ({"draft_tokens": 0}, {"draft_model": "a"}, {"draft_tokens": 0}),
        ({"penalty_alpha": 0.6, "top_k": 4}, {"draft_model": "a"}, {"draft_tokens": 0, "penalty_alpha": 0.6}),
        ({}, {"num_assistant_tokens": 20}, {"draft_tokens": 0}),
        ({"prompt_lookup": 5}, {"penalty_alpha": 0.6, "top_k": 4}, {"penalty_alpha": 0.0, "top_k": 0}),
        ({"prompt_lookup": 0}, {"num_beams": 4}, {"prompt_lookup": 0, "num_beams": 4}),
        ({"num_beams": 4}, {"prompt_lookup": 5}, {"prompt_lookup": 0, "num_beams": 4}),
        ({"top_p": 0.9}, {"prompt_lookup": 5}, {"prompt_lookup": 5, "do_sample": True}),
        ({"penalty_alpha": 0.6, "top_k": 4}, {}, {"penalty_alpha": 0.6, "top_k": 4, "do_sample": False}),
        ({}, {"penalty_alpha": 0.6, "top_k": 4}, {"penalty_alpha": 0.6, "top_k": 4, "do_sample": False}),
        ({"top_k": 6}, {"penalty_alpha": 0.6, "top_k": 4}, {"penalty_alpha": 0.6, "top_k": 6}),
        ({"penalty_alpha": 0.0}, {"penalty_alpha": 0.6, "top_k": 4}, {"penalty_alpha": 0.0, "top_k": 0}),
        (
            {"penalty_alpha": 0.6, "top_k": 4},
            {"do_sample": True, "top_p": 0.9, "num_beams": 4, "num_return_sequences": 2},
            {"penalty_alpha": 0.6, "do_sample": False, "num_beams": 1, "num_return_sequences": 1},
        ),
        ({"top_p": 0.9}, {"penalty_alpha": 0.6, "top_k": 4}, {"penalty_alpha": 0.0, "top_k": 0}),
        ({"num_beams": 3}, {"penalty_alpha": 0.6, "top_k": 4}, {"penalty_alpha": 0.0, "do_sample": False}),
        ({"force_words_ids": [[5, 6]]}, {"num_beams": 3}, {"force_words_ids": (((5, 6),),), "num_beams": 3}),
        (
            {"force_words_ids": [[5], [[6], [7, 8]]], "num_beams": 2},
            {"do_sample": True, "top_k": 5, "num_beam_groups": 2, "diversity_penalty": 1.0},
            {"force_words_ids": (((5,),), ((6,), (7, 8))), "do_sample": False, "num_beam_groups": 1},
        ),
        (
            {"force_words": ["tea", "a|b"], "num_beams": 2},
            {},
            {"wording": Wording(force_words=(("tea",), ("a", "b")))},
        ),
        (
            {"force_words": [["a|b", "c"]], "num_beams": 2},
            {},
            {"wording": Wording(force_words=(("a|b", "c"),))},
        ),
        ({"num_beams": 3}, {"num_beam_groups": 2, "diversity_penalty": 1.0}, {"num_beam_groups": 1}),
        ({"num_beams": 6}, {"num_beam_groups": 2, "diversity_penalty": 1.0}, {"num_beam_groups": 2}),
        ({"top_p": 0.5}, {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0}, {"num_beams": 1}),
        (
            {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 1.0},
            {"do_sample": True, "penalty_alpha": 0.0},
            {"do_sample": False, "num_beam_groups": 2, "diversity_penalty": 1.0},
        ),
    ],
    ids=str,
)
def test_who_wins(given: dict[str, Any], checkpoint: dict[str, Any], expected: dict[str, Any]) -> None:
    decoding = resolve_options(given, checkpoint, IDS)
    assert {name: getattr(decoding, name) for name in expected} == expected


def test_layers_give_way_one_after_the_other() -> None:
    """A checkpoint, a default preset, a recipe, flags: each over the one before."""
    preset = overlay({"do_sample": True, "top_k": 50}, {"num_beams": 4, "min_new_tokens": 10})
    assert preset == {"do_sample": False, "num_beams": 4, "min_new_tokens": 10}
    recipe = overlay(preset, {"top_p": 0.9})
    assert recipe == {"do_sample": True, "top_p": 0.9, "min_new_tokens": 10}
    assert overlay(recipe, {"num_beams": 2}) == {"do_sample": False, "num_beams": 2, "min_new_tokens": 10}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("pair")
    tiny.pair("bert", "bert").save_pretrained(folder)
    return load_bundle(str(folder)).model


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("forced_bos_token_id", 60),
        ("forced_eos_token_id", 10**6),
        ("decoder_start_token_id", 60),
        ("eos_token_id", [2, 60]),
        ("bad_words_ids", [[5, 60]]),
        ("suppress_tokens", [60]),
        ("begin_suppress_tokens", [3, 61]),
        ("sequence_bias", [[[5, 60], 1.0]]),
        ("force_words_ids", [[5], [[7], [8, 60]]]),
    ],
)
def test_ids_beyond_the_vocabulary(pair: Any, name: str, value: Any) -> None:
    options = {"num_beams": 2, "max_new_tokens": 2, "min_new_tokens": 1, name: value}
    with pytest.raises(UsageError, match=rf"{name}.*60 tokens"):
        generate_ids(pair, torch.tensor([[5, 6]]), None, **options)


def test_texts_without_a_tokenizer(pair: Any) -> None:
    with pytest.raises(UsageError, match="force_words: texts need the target's tokenizer"):
        generate_ids(pair, torch.tensor([[5, 6]]), None, num_beams=2, force_words=["tea"])


def test_a_pair_without_a_start_id(pair: Any) -> None:
    from dataclasses import replace

    ids = pair.special_ids
    try:
        pair.special_ids = replace(ids, start=None)
        with pytest.raises(CheckpointError, match="decoder_start_token_id"):
            generate_ids(pair, torch.tensor([[5, 6]]), None, max_new_tokens=2)
        assert generate_ids(pair, torch.tensor([[5, 6]]), None, max_new_tokens=2, decoder_start_token_id=1)
    finally:
        pair.special_ids = ids


def test_defaults_of_the_folder_decode(tmp_path: Path) -> None:
    """generation_config.json and old keys of config.json reach the search; a stray max_length 20 does not."""
    import json

    theirs = tiny.pair("bert", "bert", seed=5)
    theirs.save_pretrained(tmp_path)
    ids = torch.tensor([[5, 6, 7]])
    (tmp_path / "generation_config.json").write_text(
        json.dumps({"decoder_start_token_id": 1, "max_length": 20})
    )
    model = load_bundle(str(tmp_path)).model
    free = generate_ids(model, ids, None, min_new_tokens=30)
    assert len(free[0][0].ids) > 20
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "num_beams": 3, "max_length": 9, "no_repeat_ngram_size": 1}))
    (tmp_path / "generation_config.json").unlink()
    old = load_bundle(str(tmp_path)).model
    expected = generate_ids(model, ids, None, num_beams=3, max_length=9, no_repeat_ngram_size=1)
    assert generate_ids(old, ids, None) == expected
    assert len(expected[0][0].ids) <= 8
    assert generate_ids(old, ids, None, num_beams=1, no_repeat_ngram_size=0) != expected
