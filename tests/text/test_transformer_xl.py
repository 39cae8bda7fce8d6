"""Transformer-XL's words equal transformers 4.30.2's, stored by make_fixtures.py; no pickle is unpickled."""

from __future__ import annotations

import io
import json
import os
import pickle
import pickletools
import re
import sys
import types
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from seq2seq_cli.errors import CheckpointError, DataError
from seq2seq_cli.text.tokenizer import Tokenizer
from tests.text.compare import write

REFERENCE: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "transfo_xl.json").read_text())
WORDS: list[str] = REFERENCE["words"]


def folder_with(folder: Path, **settings: Any) -> Path:
    config = {"tokenizer_class": "TransfoXLTokenizer", **settings}
    return write(folder, vocab__txt="".join(f"{word}\n" for word in WORDS), tokenizer_config__json=config)


def assert_equal(tokenizer: Tokenizer | None, case: dict[str, Any]) -> Tokenizer:
    assert tokenizer is not None
    lines = REFERENCE["lines"][: len(case["ids"])]
    for line, ours, theirs in zip(lines, tokenizer.encode(lines), case["ids"], strict=True):
        assert ours == theirs, line
    assert [tokenizer.decode(ids) for ids in case["ids"]] == case["text"]
    return tokenizer


@pytest.mark.parametrize("case", REFERENCE["cases"], ids=lambda case: str(case["settings"]))
def test_equal_to_transformers(case: dict[str, Any], tmp_path: Path) -> None:
    tokenizer = assert_equal(Tokenizer.from_folder(folder_with(tmp_path / "in", **case["settings"])), case)
    assert (tokenizer.kind, tokenizer.vocab_size) == ("wordlevel", len(WORDS))
    assert (tokenizer.eos_id, tokenizer.unk_id, tokenizer.pad_id) == (0, 1, None)
    assert tokenizer.template == ((), ())
    tokenizer.save(tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"vocab.txt", "tokenizer_config.json"}
    again = assert_equal(Tokenizer.from_folder(tmp_path / "out"), case)
    assert again.fingerprint == tokenizer.fingerprint


def published_dict() -> dict[str, Any]:
    """The dict that the published file holds."""
    return {
        "counter": Counter(dict.fromkeys(WORDS, 3)),
        "special": ["<eos>"],
        "min_freq": 0,
        "max_size": None,
        "lower_case": False,
        "delimiter": None,
        "vocab_file": None,
        "idx2sym": WORDS,
        "sym2idx": OrderedDict((word, i) for i, word in enumerate(WORDS)),
        "unk_idx": 1,
        "eos_idx": 0,
        "big": 2**80,
        "half": 0.5,
        "pair": (1, 2, (True, "x")),
    }


def pickled(folder: Path, content: bytes, name: str = "vocab.pkl") -> Path:
    write(folder, config__json={"model_type": "transfo-xl"})
    (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_the_published_pickle_is_read(protocol: int, tmp_path: Path) -> None:
    content = pickle.dumps(published_dict(), protocol=protocol)
    assert_equal(Tokenizer.from_folder(pickled(tmp_path, content)), REFERENCE["cases"][0])


def test_the_pickle_that_torch_wrote_is_read(tmp_path: Path) -> None:
    stream = io.BytesIO()
    torch.save(published_dict(), stream, _use_new_zipfile_serialization=False)
    folder = pickled(tmp_path, stream.getvalue(), "vocab.bin")
    assert_equal(Tokenizer.from_folder(folder), REFERENCE["cases"][0])


def saved_dict(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The dict that transformers 4.30.2's save_pretrained writes: the tokenizer with all its helpers."""
    helpers = {
        "tokens_trie": ("transformers.tokenization_utils", "Trie"),
        "moses_punct_normalizer": ("sacremoses.normalize", "MosesPunctNormalizer"),
        "moses_tokenizer": ("sacremoses.tokenize", "MosesTokenizer"),
        "moses_detokenizer": ("sacremoses.tokenize", "MosesDetokenizer"),
    }
    made: dict[str, Any] = {}
    for key, (module, name) in helpers.items():
        kind = type(name, (), {"__module__": module})
        monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
        for other, (where, called) in helpers.items():
            if where == module and other in made:
                setattr(sys.modules[module], called, type(made[other]))
        setattr(sys.modules[module], name, kind)
        made[key] = kind()
        made[key].data = {"a": {"": 1}, "of": re.compile("x")}
    return {"init_inputs": (), "added_tokens_encoder": {"<formula>": 9}, **made, **published_dict()}


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_the_pickle_that_save_pretrained_wrote_is_read(
    protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        content = pickle.dumps(saved_dict(patched), protocol=protocol)
    assert b"MosesDetokenizer" in content
    assert_equal(Tokenizer.from_folder(pickled(tmp_path, content)), REFERENCE["cases"][0])


def test_letters_may_be_spaces(tmp_path: Path) -> None:
    """delimiter: "" is a vocabulary of letters (transformers 4.30.2 gives these ids)."""
    letters = ["<eos>", "<unk>", " ", "t", "a", "e"]
    content = {**published_dict(), "delimiter": "", "idx2sym": letters}
    folder = pickled(tmp_path / "in", pickle.dumps(content))
    with pytest.raises(CheckpointError, match="' ' is not one word"):
        Tokenizer.from_folder(folder)
    write(folder, tokenizer_config__json={"tokenizer_class": "TransfoXLTokenizer", "delimiter": ""})
    tokenizer = Tokenizer.from_folder(folder)
    assert tokenizer is not None
    assert tokenizer.encode([" tea at  "]) == [[3, 5, 4, 2, 4, 3]]
    tokenizer.save(tmp_path / "out")
    again = Tokenizer.from_folder(tmp_path / "out")
    assert again is not None
    assert again.encode([" tea x"]) == [[3, 5, 4, 2, 1]]
    assert again.fingerprint == tokenizer.fingerprint


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("made-by-a-pickle",)


def bomb() -> bytes:
    """A tuple in a tuple in a tuple..., each twice, as a key: hashing it would never end."""
    value: Any = ("x",)
    for _ in range(60):
        value = (value, value)
    return pickle.dumps([value]).replace(b"]", b"}", 1).replace(b"a.", b"K\x01s.")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"idx2sym": Hostile()}), "posix.mkdir"),
        (pickle.dumps({"idx2sym": Path("x")}), "pathlib"),
        (pickle.dumps(published_dict())[:-100], "not a pickled vocabulary"),
        (pickle.dumps({"idx2sym": [1]}), "no word list"),
        (pickle.dumps({"idx2sym": ["<unk>", "two words"]}), "not one word"),
        (pickle.dumps({"idx2sym": ["<unk>", "x", "x"]}), "twice"),
        (pickle.dumps({"idx2sym": ["x"]}), "no <unk>"),
        (pickle.dumps({"idx2sym": ["<unk>"], "unk_idx": 7}), "no <unk>"),
        (pickle.dumps([]), "no word list"),
        (b"", "not a pickled vocabulary"),
        (b"\x80\x02]}b.", "no object"),  # a state for a list
        (b"\x80\x02c__main__\nTrie\n)\x81.", "__main__.Trie"),
        (b"\x80\x02ctransformers.tokenization_utils\nPreTrainedTokenizer\n)\x81.", "PreTrainedTokenizer"),
        (b"\x80\x02})\x81.", "no class"),
        (b"PK\x03\x04", "refused|not a pickled"),
        (b"\x80\x02cos\nsystem\n(S'x'\ntR.", "os.system"),
        (bomb(), "not a pickled vocabulary"),
        (b"(" * 100_000 + b"t" * 99_999 + b".", "no word list|not a pickled"),
    ],
)
@pytest.mark.timeout(20)
def test_m1_a_hostile_pickle_is_refused_and_does_nothing(
    content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pickled(tmp_path / "in", content)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        Tokenizer.from_folder(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_the_bomb_is_a_dict_with_the_tuple_as_its_key() -> None:
    names = [opcode.name for opcode, _, _ in pickletools.genops(bomb())]
    assert {"EMPTY_DICT", "SETITEM", "TUPLE2"} <= set(names)


@pytest.mark.parametrize(
    ("content", "message"), [("a\n\nb\n", "without a word"), ("a\nb\n", "no <unk>"), ("\n", "without a word")]
)
def test_a_damaged_word_list(content: str, message: str, tmp_path: Path) -> None:
    write(tmp_path, vocab__txt=content, config__json={"model_type": "transfo-xl"})
    with pytest.raises(CheckpointError, match=message):
        Tokenizer.from_folder(tmp_path)


def test_a_text_with_too_many_protected_words_is_a_data_error(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_folder(folder_with(tmp_path))
    assert tokenizer is not None
    assert len(tokenizer.encode(["<UNK> " * 1000])[0]) == 1000
    with pytest.raises(DataError, match="1000"):
        tokenizer.encode(["<UNK> " * 1001])
