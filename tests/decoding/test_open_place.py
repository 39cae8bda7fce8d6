"""Models that were trained to fill gaps write as they were published: at an open place behind the text."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

import seq2seq_cli
from seq2seq_cli.checkpoint.bundle import load_bundle
from seq2seq_cli.checkpoint.saving import save_bundle
from seq2seq_cli.decoding import generate_ids, resolve_options, run
from seq2seq_cli.errors import CheckpointError, UsageError
from seq2seq_cli.model import OpenPlace, PrefixModel, SpecialIds, Stack
from tests import tiny

PROMPTS = [[5, 6, 7, 8, 9], [10], [12, 13, 14], [9, 31, 40, 22, 17, 33, 8]]
#: the reference takes no mask, so it sees each prompt alone; XLM's also takes a pad id for padding
COMMON: dict[str, Any] = {"bad_words_ids": [[0]], "eos_token_id": [2, 3, 4], "max_new_tokens": 9}
UNTIED = {"tie_word_embeddings": False}  # a tied head of random weights repeats itself
LANGUAGES = {"n_langs": 3, "lang2id": {"en": 0, "fr": 1, "de": 2}}
#: family, what its config.json says, what ours says besides, the open place
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], OpenPlace]] = {
    "xlnet": ("xlnet", {}, {}, OpenPlace()),
    "xlnet-clamped": ("xlnet", {"clamp_len": 2, "n_head": 2, "same_length": True}, {}, OpenPlace()),
    "xlnet-tied": ("xlnet", {"tie_word_embeddings": True, "mem_len": 3}, {}, OpenPlace()),
    "xlm": ("xlm", {"mask_token_id": 5}, {}, OpenPlace(token=5)),
    "xlm-first-language": ("xlm", {"mask_token_id": 6, **LANGUAGES}, {}, OpenPlace(token=6, language=0)),
    "xlm-its-language": (
        "xlm",
        {"mask_token_id": 6, "lang_id": 2, **LANGUAGES},
        {},
        OpenPlace(token=6, language=2),
    ),
    "xlm-our-language": (
        *("xlm", {"mask_token_id": 6, "lang_id": 1, **LANGUAGES}, {"language": "fr", "lang_id": 2}),
        OpenPlace(token=6, language=1),
    ),
    "xlm-no-table": ("xlm", {"mask_token_id": 6, "use_lang_emb": False, **LANGUAGES}, {}, OpenPlace(token=6)),
}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"no_repeat_ngram_size": 1, "min_new_tokens": 9},
    {"repetition_penalty": 1.5},
    {"num_beams": 3, "num_return_sequences": 3},
    {"num_beams": 4, "no_repeat_ngram_size": 2, "early_stopping": True, "num_return_sequences": 2},
    {"num_beams": 2, "length_penalty": -1.0, "min_new_tokens": 3},
]


def published(name: str, folder: Path) -> Any:
    """The reference's model, saved, with our keys in its config.json."""
    family, changes, ours, _ = CASES[name]
    kinds = {"xlnet": transformers.XLNetLMHeadModel, "xlm": transformers.XLMWithLMHeadModel}
    theirs = tiny.scramble(kinds[family](tiny.config(family, **{**UNTIED, **changes})), seed=3)
    theirs.save_pretrained(folder)
    change(folder, **ours)
    theirs.generation_config.pad_token_id = 0
    return theirs


def change(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@cache
def models(name: str) -> tuple[Any, Stack]:
    with TemporaryDirectory() as folder:
        theirs = published(name, Path(folder))
        ours = load_bundle(folder).model
        assert isinstance(ours, Stack)
        return theirs, ours


def reference(theirs: Any, prompt: list[int], **options: Any) -> Any:
    """What the reference writes behind one prompt. Its XLNet is told to read everything anew: by default it
    keeps the states that earlier tokens had before later ones stood there."""
    if theirs.config.model_type == "xlnet":
        options["use_mems"] = False
    ids = torch.tensor([prompt])
    settings = {"return_dict_in_generate": True, "output_scores": True, "output_logits": True}
    return theirs.generate(
        ids, attention_mask=torch.ones_like(ids), **{"do_sample": False, **settings, **options}
    )


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_writes_what_the_reference_writes(name: str, options: dict[str, Any]) -> None:
    theirs, ours = models(name)
    assert ours.open_place == CASES[name][-1]
    options = {**COMMON, **options}
    expected = [reference(theirs, prompt, **options) for prompt in PROMPTS]
    for left in (False, True):
        ids, mask = tiny.padded(PROMPTS, pad=7, left=left)
        together = generate_ids(ours, ids, mask, **options)
        for prompt, got, told in zip(PROMPTS, together, expected, strict=True):
            tiny.same_hypotheses([got], told, prompt=len(prompt), ends=frozenset({0, 2, 3, 4}))
            if options.get("num_beams", 1) == 1:
                scores = theirs.compute_transition_scores(told.sequences, told.scores, normalize_logits=True)
                length = len(got[0].ids)
                assert got[0].score == pytest.approx(float(scores[0, :length].mean()), abs=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_logits_are_the_published_ones(name: str) -> None:
    """Each step's, over texts in one batch with padding, which the causal ones are not."""
    theirs, ours = models(name)
    rows, told = [], []
    for prompt in PROMPTS:
        output = reference(theirs, prompt, bad_words_ids=[[0]], min_new_tokens=6, max_new_tokens=6)
        told += [logits[0] for logits in output.logits]
        rows += [output.sequences[0, : len(prompt) + step].tolist() for step in range(6)]
    ids, mask = tiny.padded(rows, pad=7, left=True)
    with torch.no_grad():
        got = ours.logits(ours.open_states(ids, mask))
        assert tiny.relative_error(got, torch.stack(told)) < 1e-5
        causal = torch.stack([ours(torch.tensor([row]))[0, -1] for row in rows])
    assert tiny.relative_error(causal, torch.stack(told)) > 1e-2


@pytest.mark.parametrize("name", ["xlnet", "xlm-its-language"])
def test_sampling_draws_from_the_published_distribution(name: str) -> None:
    """The score of what was drawn is the reference's for those tokens, and a draw does not know its batch."""
    theirs, ours = models(name)
    options = {"do_sample": True, "num_return_sequences": 3, "seed": 5, "max_new_tokens": 6}
    decoding = resolve_options(options, {}, SpecialIds())  # nothing ends a text
    ids, mask = tiny.padded(PROMPTS)
    together = run(ours, ids, mask, decoding)
    texts = set()
    for number, prompt in enumerate(PROMPTS):
        alone = run(ours, torch.tensor([prompt]), None, decoding, keys=[number])[0]
        assert [h.ids for h in together[number]] == [h.ids for h in alone]
        for hypothesis in together[number]:
            if 0 in hypothesis.ids:  # XLM's reference takes it for padding
                continue
            steps = (prompt + hypothesis.ids[:step] for step in range(6))
            first = [reference(theirs, row, max_new_tokens=1).logits[0][0].log_softmax(-1) for row in steps]
            told = [float(row[token]) for row, token in zip(first, hypothesis.ids, strict=True)]
            assert hypothesis.score == pytest.approx(sum(told) / 6, abs=1e-4)
            texts.add(str(hypothesis.ids))
    assert len(texts) > 6


@pytest.mark.parametrize("name", ["xlnet", "xlnet-clamped", "xlm"])
def test_as_a_decoder_it_is_causal_to_the_end(name: str, tmp_path: Path) -> None:
    """Asked for as a decoder it writes what its causal logits say, and its folder says that it does."""
    published(name, tmp_path / "published")
    bundle = load_bundle(str(tmp_path / "published"), role="decoder")
    save_bundle(bundle, tmp_path / "ours")
    again = load_bundle(str(tmp_path / "ours")).model
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    for prompt in PROMPTS:
        written = generate_ids(bundle.model, torch.tensor([prompt]), **COMMON)[0][0]
        assert generate_ids(again, torch.tensor([prompt]), **COMMON)[0][0] == written  # type: ignore[arg-type]
        whole = torch.tensor([prompt + written.ids])
        with torch.no_grad():
            logits = bundle.model(whole)
            assert tiny.relative_error(logits, theirs(input_ids=whole)[0]) < 1e-5
        logits[..., 0] = float("-inf")
        assert logits[0, len(prompt) - 1 : -1].argmax(-1).tolist() == written.ids


@pytest.mark.parametrize("name", CASES)
def test_a_folder_keeps_its_way(name: str, tmp_path: Path) -> None:
    """Loaded and saved it is still the published model, for us and for the reference."""
    theirs = published(name, tmp_path / "published")
    pair = seq2seq_cli.load(tmp_path / "published")
    pair.save(tmp_path / "ours")
    again = seq2seq_cli.load(tmp_path / "ours").model
    saved = type(theirs).from_pretrained(tmp_path / "ours").eval()
    for prompt in PROMPTS[:2]:
        options = {**COMMON, "num_beams": 2}
        expected = generate_ids(pair.model, torch.tensor([prompt]), **options)
        assert generate_ids(again, torch.tensor([prompt]), **options) == expected
        if name != "xlm-our-language":  # a key that the reference does not know
            tiny.same_hypotheses(expected, reference(saved, prompt, **options), prompt=len(prompt))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("xlnet", {"attn_type": "uni"}),
        ("xlm", {"causal": True}),
        ("xlm", {"causal": True, "mask_token_id": 99}),
    ],
)
def test_what_was_published_causal_stays_so(name: str, changes: dict[str, Any], tmp_path: Path) -> None:
    published(name, tmp_path)
    change(tmp_path, **changes)
    found = [seq2seq_cli.load(tmp_path, role=role).model for role in (None, "decoder")]
    assert [model.open_place for model in found] == [None, None]  # type: ignore[union-attr]
    ids, mask = tiny.padded(PROMPTS)
    written = [generate_ids(model, ids, mask, **COMMON) for model in found]
    assert written[0] == written[1]


def test_a_stack_that_reads_a_source_writes_from_left_to_right(tmp_path: Path) -> None:
    """One that was opened as published and then made a sequence-to-sequence model."""
    published("xlnet", tmp_path)
    closed, opened = (load_bundle(str(tmp_path), role=role).model for role in ("decoder", None))  # type: ignore[arg-type]
    assert isinstance(closed, Stack)
    assert isinstance(opened, Stack)
    written = []
    for stack in (closed, opened):
        model = PrefixModel(stack)
        options = {**COMMON, "decoder_start_token_id": 1}
        written.append(generate_ids(model, torch.tensor(PROMPTS[:1]), **options))
    assert written[0] == written[1]


@pytest.mark.parametrize("name", ["xlnet", "xlm"])
def test_the_open_place_needs_a_position(name: str, tmp_path: Path) -> None:
    published(name, tmp_path)
    change(tmp_path, n_positions=40)
    ours = load_bundle(str(tmp_path)).model
    rows = [[5] * 30, [6] * 38, [7] * 39]
    ids, mask = tiny.padded(rows)
    for options in ({}, {"max_new_tokens": 1000}, {"max_length": 5000}):
        got = generate_ids(ours, ids, mask, min_new_tokens=1000, **options)
        assert [len(row[0].ids) for row in got] == [10, 2, 1]
    with pytest.raises(UsageError, match="40 positions"):
        generate_ids(ours, torch.full((1, 40), 5), None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask_token_id": 60}, "mask_token_id=60 is not one of the 60 tokens"),
        ({"mask_token_id": "[MASK]"}, "mask_token_id='\\[MASK\\]' is not a whole number"),
        ({"mask_token_id": None}, "mask_token_id=None is not one of"),
        ({"lang_id": 3, **LANGUAGES}, "lang_id=3 is none of the 3 languages"),
    ],
)
def test_what_nobody_can_write_with(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    published("xlm-first-language", tmp_path)
    change(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_bundle(str(tmp_path))
    load_bundle(str(tmp_path), role="decoder")


def test_no_open_place_by_itself() -> None:
    _, ours = models("xlm")
    other = Stack(ours.config)
    with pytest.raises(TypeError, match="no open place"):
        other.open_states(torch.tensor([[1]]))


def widths(model: Stack, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Shapes of what is read while it writes."""
    seen, original = [], Stack.open_states

    def counted(self: Stack, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        seen.append((ids.shape[0], ids.shape[1]))
        return original(self, ids, mask)

    monkeypatch.setattr(Stack, "open_states", counted)
    generate_ids(model, torch.tensor([[5, 6], [8, 9]]), max_new_tokens=3, eos_token_id=[])
    return seen


def test_one_pass_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    assert widths(models("xlnet")[1], monkeypatch) == [(2, 2), (2, 3), (2, 4)]
