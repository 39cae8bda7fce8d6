"""Trained tokenizers: deterministic, loadable in transformers, lossless for bpe."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2seq_cli.errors import DataError, UsageError
from seq2seq_cli.text.tokenizer import Tokenizer
from seq2seq_cli.text.training import KINDS, train_tokenizer


def make_texts() -> list[str]:
    """Invented sentences with rare letters, equal counts and mixed scripts: what upsets an order."""
    rng = random.Random(7)
    letters = "abcdefghijklmnopqrstuvwxyzäöüßéñçøåæœλπσжшя你好世界天气0123456789QXZ_<>=*"
    words = ["".join(rng.choices(letters, k=rng.randint(1, 9))) for _ in range(400)]
    return [" ".join(rng.choices(words, k=12)) + " ." for _ in range(150)]


TEXTS = make_texts()
PRINT = """from tests.text.test_training import *
for kind in KINDS: print(train_tokenizer(kind, 700, TEXTS).fingerprint)"""


def test_the_same_texts_give_the_same_tokenizer_in_every_process() -> None:
    root = Path(__file__).parents[2]
    here = "".join(train_tokenizer(kind, 700, iter(TEXTS)).fingerprint + "\n" for kind in KINDS)
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", PRINT], cwd=root, capture_output=True, text=True, check=True
        )
        assert done.stdout == here


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lowercase", [False, True])
def test_it_loads_in_transformers_with_equal_ids(kind: str, lowercase: bool, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = train_tokenizer(kind, 600, TEXTS, lowercase=lowercase)
    assert tokenizer.kind == kind
    assert 300 < tokenizer.vocab_size <= 600
    tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    texts = [*TEXTS[:20], "", "unseen Ω words", "literal <s> [MASK] </s> [SEP]", "QXZ  two"]
    ids = tokenizer.encode(texts)
    assert ids == [theirs(text)["input_ids"] for text in texts]
    assert [tokenizer.decode(i) for i in ids] == [theirs.decode(i, skip_special_tokens=True) for i in ids]
    again = Tokenizer.from_folder(tmp_path)
    assert again is not None
    assert again.fingerprint == tokenizer.fingerprint
    assert again.encode(texts) == ids
    for name in ("pad", "bos", "eos", "cls", "sep", "mask", "unk"):
        assert getattr(tokenizer, f"{name}_id") == getattr(theirs, f"{name}_token_id")
    assert (tokenizer.encode(["QXZ"]) == tokenizer.encode(["qxz"])) == lowercase


def test_special_ids_come_first() -> None:
    bpe = train_tokenizer("bpe", 300, TEXTS)
    assert (bpe.pad_id, bpe.bos_id, bpe.eos_id, bpe.unk_id, bpe.mask_id) == (0, 1, 2, 3, 4)
    assert bpe.template == ((), ())
    piece = train_tokenizer("wordpiece", 300, TEXTS)
    assert (piece.pad_id, piece.unk_id, piece.cls_id, piece.sep_id, piece.mask_id) == (0, 1, 2, 3, 4)
    assert piece.template == ((2,), (3,))
    assert piece.bos_id is None


BPE = train_tokenizer("bpe", 400, TEXTS)


@settings(deadline=None)
@given(st.text())
def test_bpe_is_lossless(text: str) -> None:
    ids = BPE.encode([text])[0]
    assert BPE.decode(ids) == text
    assert BPE.special_ids.isdisjoint(ids)


def test_special_tokens_in_a_text_are_ordinary_characters() -> None:
    text = "a </s> b <pad><s>"
    assert BPE.decode(BPE.encode([text])[0]) == text


def test_fingerprints_differ() -> None:
    prints = {train_tokenizer(kind, size, TEXTS).fingerprint for kind in KINDS for size in (300, 315)}
    assert len(prints) == 6
    assert train_tokenizer("bpe", 400, TEXTS[:-20]).fingerprint != BPE.fingerprint


@pytest.mark.parametrize("kind", KINDS)
def test_little_text_is_enough(kind: str) -> None:
    tokenizer = train_tokenizer(kind, 500, ["a b", "b a"])
    assert tokenizer.decode(tokenizer.encode(["a b"])[0]) == "a b"


def test_refusals() -> None:
    with pytest.raises(UsageError, match="unknown tokenizer kind 'char'"):
        train_tokenizer("char", 500, TEXTS)
    with pytest.raises(UsageError, match="at least 261"):
        train_tokenizer("bpe", 260, TEXTS)
    with pytest.raises(DataError, match="no text"):
        train_tokenizer("unigram", 500, ["", " \n"])


def test_a_vocabulary_smaller_than_the_alphabet() -> None:
    assert train_tokenizer("wordpiece", 30, TEXTS).vocab_size <= 30
    with pytest.raises(UsageError, match=r"too small for the \d+ letters in the texts · at least") as caught:
        train_tokenizer("unigram", 30, TEXTS)
    smallest = int(caught.value.findings[0].remedy.split()[-1])
    assert train_tokenizer("unigram", smallest, TEXTS).vocab_size <= smallest
