"""How far a text is with the phrases that it has to contain, and their spelling."""

from __future__ import annotations

from itertools import product

import pytest

from seq2seq_cli.decoding.options import resolve_options
from seq2seq_cli.decoding.phrases import start
from seq2seq_cli.decoding.wording import spell
from seq2seq_cli.errors import UsageError
from seq2seq_cli.model import SpecialIds
from seq2seq_cli.text.training import train_tokenizer


def contains(text: tuple[int, ...], phrase: tuple[int, ...]) -> bool:
    return any(text[at : at + len(phrase)] == phrase for at in range(len(text)))


def test_what_counts_as_complete_is_there() -> None:
    phrases = [((1, 2), (3,)), ((2, 2),)]
    found = 0
    for text in product(range(4), repeat=6):
        progress = start(phrases).add_all(text)
        if progress.is_complete:
            found += 1
            assert all(any(contains(text, phrase) for phrase in each) for each in phrases)
    assert found > 500


def test_a_break_sends_a_phrase_to_the_end_of_the_line() -> None:
    progress = start([((5, 6),), ((7, 8),)]).add(5)
    assert [token for token, _ in progress.steps()] == [6]
    broken = progress.add(5)
    assert not broken.current, "the token that breaks it does not begin it again"
    assert [token for token, _ in broken.steps()] == [7, 5]
    assert start([((5, 6),), ((7, 8),)]).add_all([5, 6, 7, 8, 9]).is_complete


def test_banks_count_tokens_of_phrases() -> None:
    phrases = start([((5, 6, 7),), ((8,), (9, 10))])
    banks = [phrases.add_all(text).bank(3) for text in ([], [5], [5, 6], [8], [5, 6, 7], [9], [5, 6, 7, 9])]
    assert banks == [0, 1, 2, 3, 3, 2, 5]


def test_an_alternative_that_begins_with_another_is_left_out() -> None:
    (alternatives,) = start([((5, 6), (5,), (7, 8), (5,), (7, 9))]).waiting
    assert alternatives == ((5,), (7, 8), (7, 9))


def test_a_phrase_is_spelt_with_and_without_a_space() -> None:
    tokenizer = train_tokenizer("bpe", 300, ["who sells tea", "tea and cake"])
    asked = {"force_words": ["tea|cake", ["who sells"]], "force_words_ids": [[3]], "num_beams": 2}
    decoding = spell(resolve_options(asked, {}, SpecialIds(start=1, eos=(2,))), tokenizer)
    assert decoding.wording.names() == []
    texts = [[tokenizer.decode(ids) for ids in each] for each in decoding.force_words_ids[1:]]
    assert texts == [["tea", " tea", "cake", " cake"], ["who sells", " who sells"]]
    assert decoding.force_words_ids[0] == ((3,),)
    pieces = train_tokenizer("wordpiece", 80, ["who sells tea", "tea and cake"])
    one = resolve_options({"force_words": ["tea"], "num_beams": 2}, {}, SpecialIds())
    ((_only,),) = spell(one, pieces).force_words_ids  # a space before it is nothing to this one
    with pytest.raises(UsageError, match="force_words: 茶 cannot be spelled"):
        spell(resolve_options({"force_words": ["茶"], "num_beams": 2}, {}, SpecialIds()), pieces)
