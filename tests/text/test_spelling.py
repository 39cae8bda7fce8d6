"""What each token adds to a text: put together, spellings are the text that is decoded."""

from __future__ import annotations

from pathlib import Path

import pytest

from seq2seq_cli.text.tokenizer import Tokenizer
from seq2seq_cli.text.training import train_tokenizer
from tests.text.vocabularies import publish

TEXTS = ["the cats of rome", "one more word here", "who sells tea"]
FAMILIES = ["transfo-xl", "bert", "gpt2", "openai-gpt", "ctrl", "xlm", "xlnet", "t5", "albert", "roberta"]


def written(tokenizer: Tokenizer, text: str) -> tuple[str, str]:
    """A text from its spellings, and as it is decoded; spaces at the ends do not count."""
    (ids,) = tokenizer.encode([text], special=False)
    spelled = b"".join(tokenizer.spellings[number] for number in ids)
    return spelled.decode().strip(), tokenizer.decode(ids).strip()


@pytest.mark.parametrize("family", FAMILIES)
def test_spellings_of_published_vocabularies(family: str, tmp_path: Path) -> None:
    if family == "transfo-xl":
        (tmp_path / "config.json").write_text('{"model_type": "transfo-xl"}')
        words = ["<unk>", *" ".join(TEXTS).split()]
        (tmp_path / "vocab.txt").write_text("\n".join(dict.fromkeys(words)) + "\n")
    tokenizer = Tokenizer.from_folder(tmp_path if family == "transfo-xl" else publish(family, tmp_path))
    assert tokenizer is not None
    assert len(tokenizer.spellings) == tokenizer.vocab_size
    words = [word for word in " ".join(TEXTS).split() if tokenizer.unk_id not in tokenizer.encode([word])[0]]
    spelled, decoded = written(tokenizer, " ".join(words))
    assert spelled == decoded
    assert spelled.count(" ") >= 3


@pytest.mark.parametrize("algorithm", ["bpe", "wordpiece", "unigram"])
def test_spellings_of_trained_tokenizers(algorithm: str) -> None:
    tokenizer = train_tokenizer(algorithm, 300, TEXTS)  # type: ignore[arg-type]
    for text in TEXTS:
        spelled, decoded = written(tokenizer, text)
        assert spelled == decoded == text


def test_parts_of_characters_are_bytes() -> None:
    tokenizer = train_tokenizer("bpe", 270, TEXTS)
    (ids,) = tokenizer.encode(["tea – 茶"], special=False)
    assert b"".join(tokenizer.spellings[number] for number in ids) == "tea – 茶".encode()
    assert any(b"\xe8" in tokenizer.spellings[number] for number in ids)


def test_added_tokens_are_spelled_as_they_are() -> None:
    tokenizer = train_tokenizer("bpe", 270, TEXTS)
    eos = tokenizer.eos_id
    assert eos is not None
    assert tokenizer.spellings[eos] == b"</s>"
