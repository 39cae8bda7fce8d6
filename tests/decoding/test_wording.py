"""Options that are texts: how words become ids, and where stop texts end a row."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer as Backend
from transformers import PreTrainedTokenizerFast
from transformers.generation.stopping_criteria import StopStringCriteria

from seq2seq_cli.decoding import generate_ids, resolve_options
from seq2seq_cli.decoding.stop import Stop
from seq2seq_cli.decoding.wording import spell
from seq2seq_cli.errors import UsageError
from seq2seq_cli.model import SpecialIds
from seq2seq_cli.text.tokenizer import Tokenizer
from seq2seq_cli.text.training import train_tokenizer
from tests import tiny

TEXTS = [
    "who sells tea",
    "the steam of a teapot",
    "tea and cake, cake and tea",
    "seat by seat, a team",
    "abcdef",
]
STOPS = ["tea", "ea", " and", "and tea", "e", "aa", "eat by s", "cake, cake", "tteate", " "]


def words(algorithm: Any = "bpe", size: int = 290) -> Tokenizer:
    return train_tokenizer(algorithm, size, TEXTS)


@pytest.mark.parametrize(
    ("algorithm", "size"), [("bpe", 262), ("bpe", 290), ("wordpiece", 60), ("unigram", 60)]
)
def test_stop_texts_are_found_where_transformers_finds_them(
    algorithm: str, size: int, tmp_path: Path
) -> None:
    """Random rows of tokens, each place in each row, texts that begin and end inside of tokens."""
    tokenizer = words(algorithm, size)
    tokenizer.save(tmp_path)
    theirs = PreTrainedTokenizerFast(tokenizer_object=Backend.from_file(str(tmp_path / "tokenizer.json")))
    generator = random.Random(4)
    encoded = [i for ids in tokenizer.encode(TEXTS, special=False) for i in ids]
    rows = torch.tensor([generator.choices(encoded, k=30) for _ in range(60)])
    rows[0, :24] = torch.tensor((encoded * 3)[:24])
    found = 0
    for texts in [*([stop] for stop in STOPS), STOPS[:2], ["cake, cake", "tea"]]:
        stop, reference = Stop(texts, tokenizer.spellings), StopStringCriteria(theirs, texts)
        for length in range(1, 31):
            part = rows[:, :length]
            hits = stop.hits(part, None)
            assert torch.equal(hits, reference(part, None)), (texts, length)
            found += int(hits.sum())
    assert found > 500


def test_a_stop_text_does_not_begin_in_padding() -> None:
    tokenizer = words(size=261)
    (ids,) = tokenizer.encode(["tea"], special=False)
    assert len(ids) == 3
    rows = torch.tensor([ids, ids])
    visible = torch.tensor([[True] * 3, [False, True, True]])
    assert Stop(["tea"], tokenizer.spellings).hits(rows, visible).tolist() == [True, False]
    beyond = torch.tensor([[ids[0], 10**6, ids[1], ids[2]], [10**6, *ids]])
    assert Stop(["tea"], tokenizer.spellings).hits(beyond, None).tolist() == [False, True]


@pytest.mark.parametrize(
    ("text", "row", "hit"),
    [
        ("aba", [2, 3], True),  # the second one begins inside of the first
        ("aba", [0, 1], True),
        ("abab", [0, 0], True),
        ("abab", [0, 9, 0], False),  # nothing goes on over what has no text
        ("abab", [0, 0, 1], False),  # complete before the last token
    ],
)
def test_stop_texts_over_whole_tokens(text: str, row: list[int], hit: bool) -> None:
    stop = Stop([text], [b"ab", b"a", b"aba", b"ba"])
    assert stop.hits(torch.tensor([row]), None).tolist() == [hit]


@pytest.mark.parametrize("options", [{}, {"num_beams": 3, "num_return_sequences": 3}], ids=str)
@pytest.mark.parametrize("single", [False, True])
def test_stopped_outputs_are_transformers(single: bool, options: dict[str, Any], tmp_path: Path) -> None:
    """Greedy and beams, pairs and single stacks: rows end where transformers' end, with the same scores."""
    from seq2seq_cli.checkpoint.bundle import load_bundle

    tokenizer = words(size=280)
    tokenizer.save(tmp_path / "words")
    backend = Backend.from_file(str(tmp_path / "words" / "tokenizer.json"))
    size = {"vocab_size": tokenizer.vocab_size, "tie_word_embeddings": False}
    if single:
        theirs = tiny.language_model("gpt2", seed=2, **size)
        theirs.generation_config.pad_token_id = 0
    else:
        theirs = tiny.pair("bert", "gpt2", seed=2, encoder_changes={"hidden_size": 48}, decoder_changes=size)
    theirs.save_pretrained(tmp_path / "model")
    ours = load_bundle(str(tmp_path / "model")).model
    source, mask = tiny.padded([[5, 6, 7, 8], [9, 10, 11, 12, 13], [20, 21]], left=single)
    letters = [chr(letter) for letter in range(ord("a"), ord("p"))]
    common = {"max_new_tokens": 15, "eos_token_id": 2, **options}
    expected = theirs.generate(
        input_ids=source,
        attention_mask=mask,
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
        stop_strings=letters,
        tokenizer=PreTrainedTokenizerFast(tokenizer_object=backend),
        **common,
    )
    got = generate_ids(ours, source, mask, stop=letters, tokenizer=tokenizer, **common)
    tiny.same_hypotheses(got, expected, prompt=source.shape[1] if single else 1)
    free = generate_ids(ours, source, mask, **common)
    assert [h.ids for row in got for h in row] != [h.ids for row in free for h in row]
    assert got == generate_ids(ours, source, mask, stop_strings=letters, tokenizer=tokenizer, **common)


def spelled(tokenizer: Tokenizer, **options: Any) -> Any:
    return spell(resolve_options(options, {}, SpecialIds(start=1, eos=(2,))), tokenizer)


@pytest.mark.parametrize("algorithm", ["bpe", "wordpiece", "unigram"])
def test_bad_words_at_a_start_and_inside(algorithm: str) -> None:
    tokenizer = words(algorithm, 290 if algorithm == "bpe" else 60)
    banned = spelled(tokenizer, bad_words=["tea"], bad_words_ids=[[5]]).bad_words_ids
    assert banned[0] == (5,)
    for text in ("tea", "who sells tea"):
        (ids,) = tokenizer.encode([text], special=False)
        assert any(tuple(ids[-len(word) :]) == word for word in banned), text


def test_words_that_cannot_be_spelled_or_are_nothing() -> None:
    tokenizer = words("wordpiece", 60)
    assert spelled(tokenizer, bad_words=["茶"]).bad_words_ids == ()
    for options in ({"bad_words": [" "]}, {"sequence_bias": {"\n": 1.0}}, {"prefix": "  "}):
        with pytest.raises(UsageError, match=r"gives no token"):
            spelled(tokenizer, **options)


def test_bias_and_prefix() -> None:
    tokenizer = words()
    decoding = spelled(tokenizer, sequence_bias={"tea": 2.5}, prefix="who sells")
    assert decoding.sequence_bias == tuple(
        (tuple(ids), 2.5) for ids in tokenizer.encode(["tea", " tea"], special=False)
    )
    assert tokenizer.decode(decoding.prefix_ids) == "who sells"
    assert decoding.wording.names() == []
    assert spelled(tokenizer, sequence_bias=[[[3, 4], 1.0]]).sequence_bias == (((3, 4), 1.0),)
    assert spelled(tokenizer, sequence_bias={(3, 4): 1.0}).sequence_bias == (((3, 4), 1.0),)


def test_texts_need_a_tokenizer(tmp_path: Path) -> None:
    from seq2seq_cli.checkpoint.bundle import load_bundle

    tiny.pair("bert", "bert").save_pretrained(tmp_path)
    model = load_bundle(str(tmp_path)).model
    for name in ("stop", "prefix", "bad_words"):
        with pytest.raises(UsageError, match=rf"{name}: texts need the target's tokenizer · give"):
            generate_ids(model, torch.tensor([[5, 6]]), **{name: "tea"})
