"""Transformer-XL's words equal transformers 4.30.2's, stored by make_fixtures.py; no pickle is unpickled."""

from __future__ import annotations

import io
import json
import os
import pickle
import pickletools
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
