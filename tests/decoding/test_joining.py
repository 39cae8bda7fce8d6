"""A continuation behind its prompt: with the space between words, in every family's way of writing them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from seq2seq_cli.decoding.engine import TextGenerator
from seq2seq_cli.decoding.options import resolve_options
from seq2seq_cli.model import SpecialIds, Stack
from seq2seq_cli.text.tokenizer import Tokenizer
from tests.families.spec import spec
from tests.text.vocabularies import publish, word_list

SENTENCE = "The lazy dog, isn't it over the lazy fox. How many people are there"
FAMILIES = (
    *("bert", "distilbert", "gpt2", "roberta", "bart", "openai-gpt", "ctrl", "xlm", "albert", "xlnet"),
    *("t5", "camembert", "xlm-roberta", "transfo-xl"),
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Stack:
    import seq2seq_cli

    folder = tmp_path_factory.mktemp("gpt2")
    spec("gpt2").publish("", "decoder", folder)
    model = seq2seq_cli.load(folder, role="decoder").model
    assert isinstance(model, Stack)
    return model


def tokenizer_of(family: str, folder: Path) -> Tokenizer:
    if family == "transfo-xl":
        (folder / "config.json").write_text('{"model_type": "transfo-xl"}')
        word_list(folder)
    else:
        publish(family, folder)
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer is not None
    return tokenizer


@pytest.mark.parametrize("family", FAMILIES)
def test_words_stay_apart(family: str, stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is made to write the rest of a sentence whose beginning it is given."""
    tokenizer = tokenizer_of(family, tmp_path)
    (whole,) = tokenizer.encode([SENTENCE], special=False)
    generator = TextGenerator(
        stack,
        source_tokenizer=tokenizer,
        target_tokenizer=tokenizer,
        decoding=resolve_options({}, {}, SpecialIds()),
        echo=True,
    )
    rest: list[int] = []

    def recite(model: object, ids: torch.Tensor, mask: object, *others: object, **more: object) -> object:
        from seq2seq_cli.decoding import Hypothesis

        return [[Hypothesis(ids=rest, score=0.0)]]

    monkeypatch.setattr("seq2seq_cli.decoding.engine.run", recite)
    tried, words = 0, SENTENCE.split()
    for count in range(1, len(words) - 1):
        text = " ".join(words[:count])
        (prompt,) = tokenizer.encode([text], special=False)
        if whole[: len(prompt)] != prompt or tokenizer.unk_id in (prompt[-1], whole[len(prompt)]):
            continue  # the last word is written otherwise at the end of a text, or one of them is not known
        tried += 1
        rest[:] = whole[len(prompt) :]
        for end in ("", " "):
            (output,) = generator.texts([text + end])
            assert output.texts[0].startswith(text + end)
            new = output.texts[0][len(text + end) :]
            spaces = len(new) - len(new.lstrip(" ")) + len(end)
            # a vocabulary with spaces in its tokens writes the space that belongs to the token
            most = 2 if tokenizer.kind == "bpe" and family in ("gpt2", "roberta", "bart") and end else 1
            assert spaces == most, (text, new)
    assert tried > 5


def test_blank_and_unreadable_texts_are_echoed_as_they_are(stack: Stack, tmp_path: Path) -> None:
    """A text of which the vocabulary knows nothing still stands before the nothing that is added."""
    tokenizer = tokenizer_of("transfo-xl", tmp_path)
    (ids,) = tokenizer.encode(["\u200b"], special=False)
    generator = TextGenerator(
        stack,
        source_tokenizer=tokenizer,
        target_tokenizer=tokenizer,
        decoding=resolve_options({"max_new_tokens": 2}, {}, SpecialIds()),
        echo=True,
    )
    assert generator.texts(["  "])[0].texts == ("",)
    if not ids:
        assert generator.texts(["\u200b"])[0].texts == ("\u200b",)
        assert generator.counts.unreadable == 1
