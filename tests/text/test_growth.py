"""Rules that can make a text far too long are refused before a text is read; published ones are not (M5)."""

from __future__ import annotations

import base64
import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.text import growth
from seq2seq_cli.text.sentencepiece_model import read_sentencepiece
from seq2seq_cli.text.tokenizer import Tokenizer
from tests.text.compare import write
from tests.text.vocabularies import sentencepiece

HERE = Path("tokenizer.json")


def replace(pattern: str, content: str, kind: str = "String") -> dict[str, Any]:
    return {"type": "Replace", "pattern": {kind: pattern}, "content": content}


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": list(steps)}


TEN = replace("a", "a" * 10)
HOSTILE: dict[str, dict[str, Any]] = {
    "one": {"normalizer": replace("a", "b" * 1_000_000)},
    "nine": {"normalizer": sequence(*[TEN] * 9)},
    "nested": {"normalizer": sequence(TEN, sequence(TEN, sequence(TEN)))},
    "without type": {"normalizer": {"pattern": {"String": "a"}, "content": "b" * 1000}},
    "regex": {"normalizer": replace("a|", "b" * 200, "Regex")},
    "everywhere": {"normalizer": replace("", "b" * 200)},
    "folded": {"normalizer": sequence(*[replace("صل", "\ufdfa"), {"type": "NFKD"}] * 9)},
    "prepend": {"normalizer": {"type": "Prepend", "prepend": "▁" * 100}},
    "bytes": {"normalizer": sequence(*[{"type": "ByteLevel"}] * 40)},
    "characters": {"normalizer": sequence(*[{"type": "BertNormalizer", "handle_chinese_chars": True}] * 30)},
    "steps": {"normalizer": sequence(*[{"type": "NFC"}] * 1000)},
    "split": {
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}] * 9,
        }
    },
    "both": {
        "normalizer": sequence(TEN, TEN),
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"},
    },
    "decoder": {"decoder": {"type": "Sequence", "decoders": [TEN] * 9}},
    "template": {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 1000,
            "pair": [],
            "special_tokens": {},
        }
    },
    "special": {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "x", "type_id": 0}}],
            "pair": [],
            "special_tokens": {"x": {"id": "x", "ids": [0] * 1000, "tokens": ["x"] * 1000}},
        }
    },
}


@pytest.mark.parametrize("name", HOSTILE)
def test_m5_rules_that_grow_without_end_are_refused(name: str, tmp_path: Path) -> None:
    backend = Backend(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    write(tmp_path, tokenizer__json={**json.loads(backend.to_str()), **HOSTILE[name]})
    with pytest.raises(CheckpointError, match=r"times as long|more than") as refused:
        Tokenizer.from_folder(tmp_path)
    assert "tokenizer.json" in str(refused.value)


PUBLISHED: dict[str, list[Any]] = {
    "llama": [
        normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
        None,
        decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]),
    ],
    "albert": [
        normalizers.Sequence(
            [
                *(normalizers.Replace("``", '"'), normalizers.Replace("''", '"')),
                *(normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()),
                normalizers.Replace(Regex(" {2,}"), " "),
            ]
        ),
        pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]),
        decoders.Metaspace(),
    ],
    "gpt2": [normalizers.NFC(), pre_tokenizers.ByteLevel(add_prefix_space=True), decoders.ByteLevel()],
    "bert": [normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()],
    "punctuation": [
        normalizers.Sequence(
            [normalizers.Replace(mark, "") for mark in "!?.,;:()[]{}<>-_'\"@#$%^&*+=/\\|~`"]
        ),
        pre_tokenizers.Metaspace(),
        None,
    ],
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_rules_are_accepted(name: str) -> None:
    backend = Backend(models.BPE())
    normalizer, split, decoder = PUBLISHED[name]
    backend.normalizer, backend.pre_tokenizer, backend.decoder = normalizer, split, decoder
    backend.post_processor = processors.BertProcessing(("b", 1), ("a", 0))
    growth.check_growth(json.loads(backend.to_str()), HERE)


@pytest.mark.parametrize("lowercase", [False, True])
def test_published_compiled_rules_are_accepted_and_hostile_ones_refused(
    lowercase: bool, tmp_path: Path
) -> None:
    sentencepiece(tmp_path, "spiece.model", lowercase=lowercase)
    rules = read_sentencepiece(tmp_path / "spiece.model").charsmap
    assert rules is not None
    assert growth.check_charsmap(rules, HERE) < 2
    first = 4 + int.from_bytes(rules[:4], "little")
    without_ends = rules[:first] + rules[first:].replace(b"\0", b"x")
    content = {
        "model": {"type": "Unigram", "vocab": [[p, -1.0] for p in ("<pad>", "</s>", "<unk>", "a")]},
        "normalizer": {
            "type": "Precompiled",
            "precompiled_charsmap": base64.b64encode(without_ends).decode(),
        },
        "added_tokens": [],
    }
    for settings in ({"tokenizer_class": "T5Tokenizer"}, {}):
        write(tmp_path, tokenizer__json=content, tokenizer_config__json=settings)
        with pytest.raises(CheckpointError, match="times as long"):
            Tokenizer.from_folder(tmp_path)
    bare = (tmp_path / "spiece.model").read_bytes().replace(rules, without_ends)
    (tmp_path / "spiece.model").write_bytes(bare)
    (tmp_path / "tokenizer.json").unlink()
    write(tmp_path, tokenizer_config__json={"tokenizer_class": "T5Tokenizer"})
    with pytest.raises(CheckpointError, match=r"times as long.*spiece\.model"):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize("letter", [chr(n) for n in (0xFDFA, 0x1F82, 0x130, 0x3C2, 0x1D160)])
def test_no_form_of_unicode_is_longer_than_it_counts(letter: str) -> None:
    weight = growth._weight(letter)
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        written = unicodedata.normalize(form, letter)
        assert len(written.encode()) <= sum(map(growth._weight, written)) <= weight


def test_malformed_rules_are_left_to_the_library() -> None:
    for wrong in (5, [], {"normalizers": 3}, {"pattern": 3, "content": 4}, {"precompiled_charsmap": "!"}):
        growth.check_growth(dict.fromkeys(("normalizer", "decoder", "post_processor"), wrong), HERE)
