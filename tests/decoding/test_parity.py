"""Greedy and beam search write what transformers.generate writes, with its scores."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
import transformers

from seq2seq_cli.checkpoint.bundle import load_bundle
from seq2seq_cli.decoding import generate_ids
from tests import tiny

SOURCES = [[5, 6, 7, 8], [9, 10, 11, 12, 13, 14, 15], [20, 21]]
PAIRS = [("bert", "gpt2"), ("bert", "bert"), ("roberta", "roberta")]
WHOLE = [("bart",), ("t5",)]
BAD = [[7], [8, 9], [30, 31, 32]]

GREEDY: list[dict[str, Any]] = [
    {},
    {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2},
    {"repetition_penalty": 0.7},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 3, "bad_words_ids": BAD},
    {"min_length": 6},
    {"min_new_tokens": 6},
    {"forced_bos_token_id": 9, "forced_eos_token_id": 2},
    {"max_length": 7, "max_new_tokens": None},
    {"eos_token_id": list(range(2, 12)), "min_new_tokens": 2},
    {"encoder_repetition_penalty": 2.5, "repetition_penalty": 1.2},
    {"encoder_no_repeat_ngram_size": 1},
    {"encoder_no_repeat_ngram_size": 2, "encoder_repetition_penalty": 4.0},
    {"sequence_bias": [[[7], 5.0], [[8, 9], -9.0], [[31, 8], 6.0]]},
    {"exponential_decay_length_penalty": (3, 1.3)},
    {"suppress_tokens": list(range(20, 40)), "begin_suppress_tokens": list(range(40, 60))},
    {"begin_suppress_tokens": list(range(10, 50)), "forced_bos_token_id": 9},
    {"remove_invalid_values": True, "renormalize_logits": True, "no_repeat_ngram_size": 2},
]
BEAMS: list[dict[str, Any]] = [
    {"num_beams": 2},
    {"num_beams": 4, "early_stopping": True, "num_return_sequences": 2},
    {"num_beams": 4, "early_stopping": False, "length_penalty": 2.0, "num_return_sequences": 4},
    {"num_beams": 4, "early_stopping": "never", "length_penalty": 2.0, "num_return_sequences": 3},
    {"num_beams": 3, "early_stopping": "never", "length_penalty": -1.0, "num_return_sequences": 3},
    {"num_beams": 3, "early_stopping": True, "length_penalty": 0.0, "min_length": 5},
    {"num_beams": 3, "length_penalty": -1.0, "no_repeat_ngram_size": 2, "num_return_sequences": 2},
    {"num_beams": 2, "early_stopping": "never", "repetition_penalty": 1.3, "forced_eos_token_id": 2},
    {"num_beams": 4, "bad_words_ids": BAD, "min_new_tokens": 3, "num_return_sequences": 4},
    {"num_beams": 5, "forced_bos_token_id": 9, "no_repeat_ngram_size": 1, "num_return_sequences": 5},
    {"num_beams": 3, "eos_token_id": list(range(2, 12)), "early_stopping": True, "num_return_sequences": 3},
    {"num_beams": 3, "eos_token_id": list(range(2, 12)), "length_penalty": 0.5, "num_return_sequences": 3},
    {"num_beams": 6, "eos_token_id": [2, 40, 50], "early_stopping": "never", "num_return_sequences": 6},
    {"num_beams": 2, "max_length": 7, "max_new_tokens": None},
    {"num_beams": 3, "max_new_tokens": 1, "num_return_sequences": 3},
    {"num_beams": 3, "encoder_repetition_penalty": 2.0, "encoder_no_repeat_ngram_size": 2},
    {"num_beams": 3, "sequence_bias": [[[7], 3.0], [[8, 9], -5.0]], "num_return_sequences": 2},
    {"num_beams": 3, "exponential_decay_length_penalty": (2, 1.5), "num_return_sequences": 3},
    {"num_beams": 4, "suppress_tokens": list(range(20, 40)), "begin_suppress_tokens": [41, 42, 43]},
    {"num_beams": 3, "repetition_penalty": 1.6, "renormalize_logits": True, "num_return_sequences": 3},
    {"num_beams": 3, "no_repeat_ngram_size": 1, "renormalize_logits": True, "remove_invalid_values": True},
]


@cache
def models(names: tuple[str, ...]) -> tuple[Any, Any]:
    """transformers' model and ours with the same weights."""
    with TemporaryDirectory() as folder:
        untied = {"tie_word_embeddings": False}  # a tied head of random weights repeats itself forever
        if len(names) == 2:
            wide = {"hidden_size": 48} if names[0] != names[1] else {}
            theirs = tiny.pair(*names, seed=2, encoder_changes=wide, decoder_changes=untied)
            # not 1: transformers' RoBERTa finds its positions by looking for its pad id, which is 1
            theirs.generation_config.decoder_start_token_id = 3
        elif names in WHOLE:
            config = tiny.config(names[0], **untied)
            theirs = tiny.scramble(transformers.AutoModelForSeq2SeqLM.from_config(config), 2)
            theirs.generation_config.update(decoder_start_token_id=3, eos_token_id=2, pad_token_id=0)
        else:
            theirs = tiny.language_model(names[0], seed=2, **untied)
            theirs.generation_config.pad_token_id = 0
        theirs.save_pretrained(folder)
        return theirs, load_bundle(str(Path(folder))).model


def check(names: tuple[str, ...], options: dict[str, Any], sources: list[list[int]] = SOURCES) -> None:
    theirs, ours = models(names)
    pad = 1 if names[0] == "roberta" else 0
    source, mask = tiny.padded(sources, pad=pad, left=names == ("gpt2",))
    options = {"max_new_tokens": 12, **options}
    if names[-1] == "roberta":  # and so it must not write it either
        options["bad_words_ids"] = [[1], *options.get("bad_words_ids", [])]
    expected = theirs.generate(
        input_ids=source,
        attention_mask=mask,
        return_dict_in_generate=True,
        output_scores=True,
        do_sample=False,
        **options,
    )
    got = generate_ids(ours, source, mask, **options)
    prompt = source.shape[1] if names == ("gpt2",) else 1
    eos = options.get("eos_token_id", 2)
    ends = frozenset({0, *(eos if isinstance(eos, list) else [eos])})
    tiny.same_hypotheses(got, expected, prompt=prompt, ends=ends)
    beams = options.get("num_beams", 1) > 1
    steps = theirs.compute_transition_scores(
        expected.sequences,
        expected.scores,
        expected.beam_indices if beams else None,
        normalize_logits=not beams,
    )
    told = generate_ids(ours, source, mask, token_scores=True, **options)
    assert [[(one.ids, one.score) for one in row] for row in told] == [
        [(one.ids, one.score) for one in row] for row in got
    ]
    assert all(one.token_scores is None for row in got for one in row)
    for one, theirs_of_it in zip(itertools.chain(*told), steps.tolist(), strict=True):
        assert one.token_scores == pytest.approx(theirs_of_it[: len(one.ids)], rel=1e-5, abs=1e-5)
        if not beams:  # greedy scores: the mean log-probability of what was chosen
            assert one.score == pytest.approx(sum(theirs_of_it[: len(one.ids)]) / len(one.ids), abs=1e-4)


@pytest.mark.parametrize("options", GREEDY + BEAMS, ids=str)
@pytest.mark.parametrize("names", [*PAIRS, *WHOLE], ids="-".join)
def test_pairs(names: tuple[str, ...], options: dict[str, Any]) -> None:
    if any(name.startswith("encoder_") for name in options):  # transformers takes padding for source there
        for source in SOURCES:
            check(names, options, [source])
    else:
        check(names, options)


EXTRAS: list[dict[str, Any]] = [
    {"eos_token_id": list(range(20, 40))},
    {"min_new_tokens": 4, "eos_token_id": [2, 9, 30, 41]},
    {"no_repeat_ngram_size": 2, "eos_token_id": list(range(40, 60))},
    {"repetition_penalty": 1.3},
    {"forced_bos_token_id": 9, "eos_token_id": list(range(20, 30))},
    {"forced_eos_token_id": 2, "repetition_penalty": 0.8, "no_repeat_ngram_size": 3},
    {"bad_words_ids": BAD, "eos_token_id": list(range(15, 60, 3))},
]


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
@pytest.mark.parametrize("names", [*PAIRS, *WHOLE, ("gpt2",)], ids="-".join)
def test_beams_by_all_settings(names: tuple[str, ...], early_stopping: Any) -> None:
    """Beams, length penalty, how many outputs: all combinations, with all else in turn."""
    settings = itertools.product([2, 4], [-1.5, 0.0, 1.0, 2.0], [False, True])
    for (beams, length_penalty, all_of_them), extra in zip(settings, itertools.cycle(EXTRAS), strict=False):
        if names == ("gpt2",) and any(key in extra for key in ALONE):
            continue
        options = {"num_beams": beams, "length_penalty": length_penalty, "early_stopping": early_stopping}
        check(names, {**options, **extra, "num_return_sequences": beams if all_of_them else 1})


#: where transformers counts a row's padding as text, ours does not; those are compared row by row below
ALONE = (
    *("repetition_penalty", "no_repeat_ngram_size", "min_length", "max_length", "forced_bos_token_id"),
    *("encoder_repetition_penalty", "encoder_no_repeat_ngram_size"),
)


@pytest.mark.parametrize(
    "options", [o for o in GREEDY + BEAMS if not any(key in o for key in ALONE)], ids=str
)
def test_one_stack_with_unequal_prompts(options: dict[str, Any]) -> None:
    check(("gpt2",), options)


@pytest.mark.parametrize("options", [o for o in GREEDY + BEAMS if any(key in o for key in ALONE)], ids=str)
@pytest.mark.parametrize("left", [False, True])
def test_padded_prompts_are_as_if_alone(options: dict[str, Any], left: bool) -> None:
    theirs, ours = models(("gpt2",))
    ids, mask = tiny.padded(SOURCES, pad=7, left=left)
    options = {"max_new_tokens": 12, **options}
    if "max_length" in options:
        options["max_length"] = 11
    got = generate_ids(ours, ids, mask, **options)
    for row, source in enumerate(SOURCES):
        prompt = torch.tensor([source])
        expected = theirs.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            return_dict_in_generate=True,
            output_scores=True,
            do_sample=False,
            **options,
        )
        eos = options.get("eos_token_id", 2)
        ends = frozenset({0, *(eos if isinstance(eos, list) else [eos])})
        tiny.same_hypotheses([got[row]], expected, prompt=len(source), ends=ends)


OF_SOURCE = {"encoder_no_repeat_ngram_size": 2, "encoder_repetition_penalty": 0.7, "repetition_penalty": 1.3}


@pytest.mark.parametrize(
    "options",
    [{}, {"num_beams": 3, "num_return_sequences": 3}, OF_SOURCE, {"num_beams": 3, **OF_SOURCE}],
    ids=str,
)
@pytest.mark.parametrize("names", [("bert", "gpt2"), ("gpt2",)], ids="-".join)
def test_rows_do_not_know_their_neighbours(names: tuple[str, ...], options: dict[str, Any]) -> None:
    """Many rows of unequal length that end at different times: each as if it were alone."""
    _, ours = models(names)
    generator = torch.Generator().manual_seed(1)
    rows = [
        torch.randint(3, 60, (int(n),), generator=generator).tolist()
        for n in torch.randint(1, 14, (20,), generator=generator)
    ]
    options = {"max_new_tokens": 20, "eos_token_id": list(range(2, 8)), "no_repeat_ngram_size": 3, **options}
    ids, mask = tiny.padded(rows)
    together = generate_ids(ours, ids, mask, **options)
    assert len({len(row[0].ids) for row in together}) > 3
    for row, got in zip(rows, together, strict=True):
        (alone,) = generate_ids(ours, torch.tensor([row]), None, **options)
        assert [h.ids for h in got] == [h.ids for h in alone]
        assert [h.score for h in got] == pytest.approx([h.score for h in alone], abs=1e-4)


def many_sources(names: tuple[str, ...], **options: Any) -> tuple[Any, Any]:
    """Outputs for 60 random sources (theirs, ours), with many ways to end."""
    theirs, ours = models(names)
    ids = torch.randint(3, 60, (60, 4), generator=torch.Generator().manual_seed(4))
    options = {"num_beams": 3, "max_new_tokens": 12, "eos_token_id": list(range(30, 50)), **options}
    reference = theirs.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        return_dict_in_generate=True,
        output_scores=True,
        do_sample=False,
        **options,
    )
    return reference, generate_ids(ours, ids, None, **options)


@pytest.mark.parametrize("length_penalty", [3.0, -2.0])
def test_the_three_stopping_rules_differ(length_penalty: float) -> None:
    """Each as in transformers, on rows where it matters which one is used."""
    texts = {}
    for rule in (True, False, "never"):
        theirs, ours = many_sources(("bert", "gpt2"), early_stopping=rule, length_penalty=length_penalty)
        tiny.same_hypotheses(ours, theirs, ends=frozenset({0, *range(30, 50)}))
        texts[rule] = str([row[0].ids for row in ours])
    if length_penalty > 0:
        assert len(set(texts.values())) == 3


def test_stopping_early_saves_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    from seq2seq_cli.decoding.stepper import Stepper

    steps, original = [0], Stepper.step

    def counted(self: Stepper, tokens: torch.Tensor) -> torch.Tensor:
        steps[0] += 1
        return original(self, tokens)

    monkeypatch.setattr(Stepper, "step", counted)
    _, ours = models(("bert", "gpt2"))
    counts = {}
    for rule in (True, "never"):
        steps[0] = 0
        options = {"early_stopping": rule, "length_penalty": 3.0, "eos_token_id": list(range(20, 60))}
        generate_ids(ours, torch.tensor([[5, 6, 7]]), None, num_beams=3, max_new_tokens=30, **options)
        counts[rule] = steps[0]
    assert counts[True] < 5
    assert counts["never"] > counts[True]


def test_the_ids_are_new_tokens_only() -> None:
    _, ours = models(("gpt2",))
    ids, mask = tiny.padded(SOURCES, left=True)
    for row in generate_ids(ours, ids, mask, max_new_tokens=5, eos_token_id=2, forced_eos_token_id=2):
        assert len(row[0].ids) <= 5
        assert row[0].ids[-1] == 2
        assert 2 not in row[0].ids[:-1]


@pytest.mark.parametrize("beams", [1, 3])
def test_the_model_is_never_overrun(beams: int) -> None:
    """40 positions: a row may have 41 - its length new tokens, whatever was asked for, each as if alone."""
    _, ours = models(("gpt2",))
    rows = [[5] * 30, [6] * 38, [7] * 39]
    ids, mask = tiny.padded(rows)
    for options in ({}, {"max_new_tokens": 1000}, {"max_length": 5000}):
        got = generate_ids(ours, ids, mask, num_beams=beams, min_new_tokens=1000, **options)
        assert [len(row[0].ids) for row in got] == [11, 3, 2]
    from seq2seq_cli.errors import UsageError

    with pytest.raises(UsageError, match="40 positions"):
        generate_ids(ours, torch.full((1, 40), 5), None)


def test_a_pair_stops_at_the_decoders_last_position() -> None:
    _, ours = models(("bert", "bert"))
    got = generate_ids(ours, torch.tensor([[5, 6]]), None, min_length=90)
    assert len(got[0][0].ids) == 40


def test_training_mode_is_kept_and_not_used() -> None:
    _, ours = models(("bert", "bert"))
    source = torch.tensor([[5, 6, 7]])
    expected = generate_ids(ours, source, None, max_new_tokens=8)
    ours.train()
    try:
        assert generate_ids(ours, source, None, max_new_tokens=8) == expected
        assert ours.training
    finally:
        ours.eval()


def test_scores_of_tokens_add_up() -> None:
    _, ours = models(("bert", "gpt2"))
    ids, mask = tiny.padded(SOURCES)
    options = {"do_sample": True, "num_return_sequences": 3, "length_penalty": 0.0, "max_new_tokens": 9}
    for row in generate_ids(ours, ids, mask, token_scores=True, **options):
        for hypothesis in row:
            assert hypothesis.token_scores is not None
            assert len(hypothesis.token_scores) == len(hypothesis.ids)
            assert sum(hypothesis.token_scores) == pytest.approx(hypothesis.score, abs=1e-5)
