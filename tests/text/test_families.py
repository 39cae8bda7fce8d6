"""Every family's tokenizer equals transformers' on 500 lines in more than 20 scripts, token by token."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken

from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.text.tokenizer import Tokenizer
from tests.text.compare import assert_round_trip, assert_same, write
from tests.text.corpus import LINES
from tests.text.vocabularies import publish, sentencepiece

FAMILIES = (
    *("bert", "distilbert", "electra", "gpt2", "roberta", "bart", "openai-gpt", "ctrl", "xlm"),
    *("albert", "xlnet", "t5", "camembert", "xlm-roberta", "mbart"),
)


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folders: dict[str, Path] = {}

    def get(model_type: str) -> Path:
        if model_type not in folders:
            folders[model_type] = publish(model_type, tmp_path_factory.mktemp(model_type))
        return folders[model_type]

    return get


@pytest.mark.parametrize("model_type", FAMILIES)
def test_equal_to_transformers(model_type: str, published: Any, tmp_path: Path) -> None:
    tokenizer = assert_same(published(model_type), LINES)
    assert_round_trip(tokenizer, tmp_path / "saved", LINES)


#: Settings that change ids, beside the families' defaults.
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("bert", {"do_lower_case": False, "strip_accents": True}),
    ("bert", {"strip_accents": False, "tokenize_chinese_chars": False, "clean_up_tokenization_spaces": True}),
    ("electra", {"tokenizer_class": "ElectraTokenizer", "do_lower_case": False}),
    ("bart", {"tokenizer_class": "BartTokenizer", "add_prefix_space": True}),
    ("gpt2", {"add_prefix_space": True, "clean_up_tokenization_spaces": True}),
    ("openai-gpt", {"pad_token": "<pad>", "clean_up_tokenization_spaces": True}),
    ("albert", {"do_lower_case": False, "keep_accents": True}),
    ("albert", {"add_prefix_space": False, "clean_up_tokenization_spaces": True}),
    ("albert", {"mask_token": {"__type": "AddedToken", "content": "[MASK]", "lstrip": True}}),
    ("xlnet", {"do_lower_case": True, "keep_accents": True, "additional_special_tokens": ["<eop>", "<new>"]}),
    ("t5", {"extra_ids": 7}),
    ("t5", {"extra_ids": 0, "additional_special_tokens": []}),
    ("camembert", {"add_prefix_space": False, "additional_special_tokens": ["<s>NOTUSED"]}),
    ("xlm-roberta", {"tokenizer_class": "XLMRobertaTokenizerFast", "pad_token": "<fill>"}),
    ("mbart", {"src_lang": "ro_RO", "additional_special_tokens": None}),
    ("ctrl", {"pad_token": "<pad>", "clean_up_tokenization_spaces": True}),
    ("ctrl", {"split_special_tokens": True}),
    ("ctrl", {"mask_token": {"__type": "AddedToken", "content": "<mask>", "lstrip": True}}),
    ("ctrl", {"mask_token": {"__type": "AddedToken", "content": "\n<mask>", "rstrip": True}}),
    ("xlm", {"do_lowercase_and_remove_accent": False}),
    ("xlm", {"split_special_tokens": True, "additional_special_tokens": ["<special0>"]}),
]


@pytest.mark.parametrize(("model_type", "settings"), SETTINGS, ids=str)
def test_settings(model_type: str, settings: dict[str, Any], published: Any, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    shutil.copytree(published(model_type), folder)
    write(folder, tokenizer_config__json=settings)
    tokenizer = assert_same(folder, LINES)
    assert_round_trip(tokenizer, tmp_path / "saved", LINES)


def test_xlnet_with_another_unknown_piece(tmp_path: Path) -> None:
    write(tmp_path, config__json={"model_type": "xlnet"})
    ids = {"unk_id": 3, "bos_id": 1, "eos_id": 2, "pad_id": 0}
    sentencepiece(tmp_path, "spiece.model", control_symbols="<cls>,<sep>,<mask>", **ids)
    tokenizer = assert_same(tmp_path, LINES)
    assert tokenizer.unk_id == 3
    assert_round_trip(tokenizer, tmp_path / "saved", LINES)


@pytest.mark.parametrize("model_type", ["ctrl", "xlm"])
def test_merges_without_a_head_line_or_an_end(model_type: str, published: Any, tmp_path: Path) -> None:
    """CTRL's first line is never a merge, and what stands behind the last line end is one for neither."""
    folder = tmp_path / "in"
    shutil.copytree(published(model_type), folder)
    merges = (folder / "merges.txt").read_text(encoding="utf-8").removeprefix("#version: 0.2\n")
    (folder / "merges.txt").write_text(merges.rstrip("\n"), encoding="utf-8")
    assert_round_trip(assert_same(folder, LINES), tmp_path / "saved", LINES)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_what_transformers_saves(model_type: str, published: Any, tmp_path: Path) -> None:
    """Its tokenizer.json and the tokens in its tokenizer_config.json."""
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(published(model_type))
    theirs.add_tokens(["quick", "quick brown", "Größe", AddedToken("two", lstrip=True, rstrip=True)])
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer = assert_same(tmp_path / "theirs", LINES)
    assert_round_trip(tokenizer, tmp_path / "saved", LINES)


PAIRS = (
    *(("bert", "gpt2"), ("albert", "openai-gpt"), ("xlm", "t5"), ("camembert", "ctrl"), ("gpt2", "xlnet")),
    *(("t5", "bert"), ("ctrl", "xlm"), ("xlnet", "albert")),
)


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_both_sides_of_a_pair_in_transformers(
    source: str, target: str, published: Any, tmp_path: Path
) -> None:
    """AutoTokenizer on the folder is the source's, with the subfolder it is the target's."""
    from transformers import AutoTokenizer

    config = {
        "model_type": "encoder-decoder",
        "encoder": {"model_type": source},
        "decoder": {"model_type": target},
    }
    write(tmp_path, config__json=config)
    for model_type, folder in ((source, tmp_path), (target, tmp_path / "decoder_tokenizer")):
        ours = Tokenizer.from_folder(published(model_type))
        assert ours is not None
        ours.save(folder)
        settings = {} if folder == tmp_path else {"subfolder": "decoder_tokenizer"}
        theirs = AutoTokenizer.from_pretrained(tmp_path, **settings)
        assert ours.encode(LINES) == [theirs(line)["input_ids"] for line in LINES]
        again = Tokenizer.from_folder(folder)
        assert again is not None
        assert again.fingerprint == ours.fingerprint
        assert again.encode(LINES) == ours.encode(LINES)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_new_tokens_survive_saving(model_type: str, published: Any, tmp_path: Path) -> None:
    """What combine adds to a decoder that was published without them."""
    ours = Tokenizer.from_folder(published(model_type))
    assert ours is not None
    size = ours.vocab_size
    new = [name for name in ("pad", "bos", "eos") if getattr(ours, f"{name}_id") is None]
    more = ours.extended({f"{name}_token": f"<|{name}|>" for name in new})
    assert more.vocab_size == size + len(new)
    assert (more.fingerprint == ours.fingerprint) == (not new)
    more.save(tmp_path / "saved")
    again = assert_same(tmp_path / "saved", LINES)
    assert again.fingerprint == more.fingerprint
    assert [getattr(again, f"{name}_id") for name in new] == list(range(size, size + len(new)))


NEW = [
    "newtok newtokx  xnewtok",
    "A<lst> <lst> b",
    "newtok<lst>newtok newtok",
    "a<NEW>b newtok.",
    "<NEW> newtok",
]
NEW += ["newtok", " newtok\n", "a <special9> </s>", "newtok newtok", "x <lst>newtok<lst> y"]


@pytest.mark.parametrize("model_type", ["ctrl", "xlm"])
def test_added_tokens_of_words_as_transformers_matches_and_drops_them(
    model_type: str, published: Any, tmp_path: Path
) -> None:
    """Words of their own, spaces taken along, and the listed ones alone left out of a decoded text."""
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(published(model_type))
    theirs.add_tokens(["<NEW>", AddedToken("newtok", single_word=True, normalized=False)])
    listed = {"extra_special_tokens": [AddedToken("<lst>", lstrip=True, rstrip=True)]}
    theirs.add_special_tokens(listed)
    theirs.save_pretrained(tmp_path / "theirs")
    (tmp_path / "theirs/config.json").write_text(json.dumps({"model_type": model_type}))
    ours = assert_same(tmp_path / "theirs", [*LINES[::20], *NEW])
    ours.save(tmp_path / "ours")
    (tmp_path / "ours/config.json").write_text(json.dumps({"model_type": model_type}))
    assert assert_same(tmp_path / "ours", NEW).fingerprint == ours.fingerprint
    again = AutoTokenizer.from_pretrained(tmp_path / "ours")
    for line in NEW:
        ids = theirs(line)["input_ids"]
        assert again(line)["input_ids"] == ids
        assert again.decode(ids, skip_special_tokens=True) == ours.decode(ids)


# -- what the reference is not asked for -------------------------------------------------------------------


def tokenizer_of(published: Any, model_type: str) -> Tokenizer:
    tokenizer = Tokenizer.from_folder(published(model_type))
    assert tokenizer is not None
    return tokenizer


def test_templates(published: Any) -> None:
    """The published positions of special tokens; XLNet's come last."""

    def of(model_type: str) -> tuple[list[str], list[str]]:
        tokenizer = tokenizer_of(published, model_type)
        before, after = tokenizer.template
        names = tokenizer._backend.id_to_token
        return [names(i) for i in before], [names(i) for i in after]

    for model_type in ("bert", "distilbert", "electra", "albert"):
        assert of(model_type) == (["[CLS]"], ["[SEP]"])
    for model_type in ("roberta", "bart", "camembert", "xlm-roberta", "xlm"):
        assert of(model_type) == (["<s>"], ["</s>"])
    for model_type in ("gpt2", "openai-gpt", "ctrl"):
        assert of(model_type) == ([], [])
    assert of("xlnet") == ([], ["<sep>", "<cls>"])
    assert of("t5") == ([], ["</s>"])
    assert of("mbart") == ([], ["</s>", "en_XX"])


def test_ids_of_fairseq_are_shifted_and_those_of_t5_end_in_sentinels(published: Any) -> None:
    import sentencepiece as spm

    for model_type, first in (("xlm-roberta", 1), ("mbart", 1), ("camembert", 4)):
        folder = published(model_type)
        model = spm.SentencePieceProcessor(str(folder / "sentencepiece.bpe.model"))
        tokenizer = tokenizer_of(published, model_type)
        for piece in (5, 77, 300):
            assert tokenizer._backend.token_to_id(model.id_to_piece(piece)) == piece + first
        assert tokenizer.pad_id == 1
        assert tokenizer._backend.token_to_id("<unk>") == 3
    tokenizer = tokenizer_of(published, "t5")
    ids = [tokenizer._backend.token_to_id(f"<extra_id_{i}>") for i in (0, 1, 99)]
    assert ids == [tokenizer.vocab_size - 1, tokenizer.vocab_size - 2, tokenizer.vocab_size - 100]


@pytest.mark.parametrize("model_type", [*FAMILIES])
def test_plain_text_comes_back(model_type: str, published: Any) -> None:
    tokenizer = tokenizer_of(published, model_type)
    words = ["the", "quick", "brown", "fox", "over", "lazy", "dog", "people", "they", "done"]
    text = " ".join(w for w in words if tokenizer.unk_id not in tokenizer.encode([w])[0])
    assert text.count(" ") >= 4
    assert tokenizer.decode(tokenizer.encode([text])[0]) == text


@pytest.mark.parametrize(
    ("language", "bare"),
    [("fr", True), ("de", True), ("ro", True), ("ro", False), ("ko", True), ("xx", True)],
)
def test_xlm_in_other_languages(language: str, bare: bool, published: Any, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = tmp_path / "in"
    shutil.copytree(published("xlm"), folder)
    write(folder, tokenizer_config__json={"lang": language, "do_lowercase_and_remove_accent": bare})
    ours = Tokenizer.from_folder(folder)
    assert ours is not None
    theirs = AutoTokenizer.from_pretrained(folder)
    lines = [line for line in LINES if "<" not in line]
    expected = [theirs.convert_tokens_to_ids(theirs._tokenize(line, lang=language)) for line in lines]
    assert ours.encode(lines, special=False) == expected
    english = tokenizer_of(published, "xlm")
    assert english.fingerprint != ours.fingerprint
    ours.save(tmp_path / "saved")
    again = Tokenizer.from_folder(tmp_path / "saved")
    assert again is not None
    assert again.encode(lines, special=False) == expected


@pytest.mark.parametrize(
    ("model_type", "settings", "message"),
    [
        ("xlm", {"lang": "zh"}, "jieba"),
        ("xlm", {"lang": "ja"}, "KyTea"),
        ("xlm", {"lang": "th"}, "PyThaiNLP"),
        ("xlm", {"lang": "../../en"}, "not a language code"),
        ("xlm", {"lang": 3}, "not a language code"),
        ("xlm", {"unk_token": "<none>"}, "not in vocab.json"),
        ("ctrl", {"added_tokens_decoder": {"99999": {"content": "<x>"}}}, "'<x>' has the id 99999"),
        ("xlm", {"do_lowercase_and_remove_accent": "no"}, "true or false"),
        ("t5", {"extra_ids": -1}, "number from 0"),
        ("t5", {"extra_ids": 10**9}, "number from 0"),
        ("t5", {"eos_token": None}, "switched off"),
        ("mbart", {"src_lang": "xx_YY"}, "'xx_YY', which is no token"),
        ("albert", {"keep_accents": 1}, "true or false"),
    ],
)
def test_refused_settings(
    model_type: str, settings: dict[str, Any], message: str, published: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    shutil.copytree(published(model_type), folder)
    write(folder, tokenizer_config__json=settings)
    with pytest.raises(CheckpointError, match=message):
        Tokenizer.from_folder(folder)


@pytest.mark.parametrize("model_type", ["gpt2", "roberta", "t5", "xlnet", "openai-gpt", "xlm"])
def test_pieces_are_text(model_type: str, published: Any) -> None:
    """No sign of the vocabulary is left: put together they are the text."""
    tokenizer = tokenizer_of(published, model_type)
    text = "the tea of a café" if model_type in ("gpt2", "roberta", "t5") else "the tea of a cafe"
    pieces = tokenizer.pieces(tokenizer.encode([text], special=False)[0])
    assert "".join(pieces).strip() == text


def test_pieces_that_are_no_text(published: Any) -> None:
    gpt2, bert = tokenizer_of(published, "gpt2"), tokenizer_of(published, "bert")
    assert gpt2.pieces(gpt2.encode(["\u4e00"])[0]) == ["\\xe4", "\\xb8", "\\x80"]
    assert bert.pieces([*bert.encode([""])[0], 99_999, -1]) == ["[CLS]", "[SEP]", "#99999", "#-1"]
