"""Pieces that go on with a word are marked, by every kind of tokenizer."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers

from seq2seq_cli.errors import DataError
from seq2seq_cli.text.tokenizer import Tokenizer
from seq2seq_cli.text.training import train_tokenizer
from seq2seq_cli.text.words import Words

TEXTS = ["the cat sat on the mat", "unbelievable catastrophes, unmatched", "don't sit"]


def words_of(tokenizer: Tokenizer, text: str) -> list[str]:
    """The text of each word, as its pieces spell it."""
    ids = tokenizer.encode_words([text], special=False)[0]
    assert [i if i >= 0 else ~i for i in ids] == tokenizer.encode([text], special=False)[0]
    found: list[str] = []
    for number in ids:
        piece = tokenizer.pieces([number if number >= 0 else ~number])[0]
        if number >= 0:
            found.append(piece)
        else:
            found[-1] += piece.removeprefix("##")
    return [word.strip() for word in found]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("wordpiece", ["the", "catastrophe", ",", "un", "sat"]),
        ("bpe", ["the", "catastrophe", ",", "un", "sat"]),
        ("unigram", ["the", "catastrophe,", "un", "sat"]),
    ],
)
def test_words_are_those_of_the_text(kind: str, words: list[str]) -> None:
    tokenizer = train_tokenizer(kind, {"unigram": 40}.get(kind, 290 if kind == "bpe" else 40), TEXTS)
    text = "the catastrophe, un sat"
    assert words_of(tokenizer, text) == words
    assert len(tokenizer.encode([text], special=False)[0]) > len(words), "there are pieces"


def test_templates_and_empty_texts() -> None:
    tokenizer = train_tokenizer("wordpiece", 40, TEXTS)
    ids = tokenizer.encode_words(["cat", ""])
    before, after = tokenizer.template
    assert ids[0][0] == before[0]
    assert ids[0][-1] == after[0]
    assert ids[1] == [*before, *after]
    with pytest.raises(DataError, match="text 2 has a lone surrogate"):
        tokenizer.encode_words(["a", "\ud800"])


def test_white_space_ends_a_word_where_nothing_splits() -> None:
    """SentencePiece as some folders have it: the whole text is one word to the library."""
    pieces = [("<unk>", 0.0), ("▁c", -1.0), ("at", -1.0), ("▁m", -1.0), ("▁", -3.0), ("x", -2.0)]
    backend = Backend(models.Unigram(pieces, unk_id=0))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer = Tokenizer(backend=backend, config={})
    assert words_of(tokenizer, "cat mat x") == ["cat", "mat", "x"]


def test_a_rule_over_words() -> None:
    vocab = {"<unk>": 0, "ca": 1, "t": 2, "m": 3, "<s>": 4}
    spelled = {"cat": [1, 2], "mt": [3, 2], "t": [2]}
    words = Words(
        kind="bpe", files={}, split=str.split, spell=spelled.__getitem__, join="".join, before=("bos_token",)
    )
    backend = Backend(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer = Tokenizer(backend=backend, config={"bos_token": "<s>"}, words=words)
    assert tokenizer.encode_words(["cat t mt"]) == [[4, 1, ~2, 2, 3, ~2]]
    assert tokenizer.encode(["cat t mt"]) == [[4, 1, 2, 2, 3, 2]]
