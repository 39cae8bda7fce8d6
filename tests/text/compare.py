"""Ours and transformers' tokenizer of one folder, side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seq2seq_cli.text.tokenizer import Tokenizer

TEXTS = [
    "",
    " ",
    "  two  spaces  ",
    "How many employees work in Sales?",
    "isn't it, they've said, 'quoted' .  done !",
    "Größe über Straße, naïve café — Ärger",
    "你好，世界。 今天天气很好",
    "emoji 👩‍👩‍👧 😀🏳️‍🌈 end",
    "tab\tnewline\ncarriage\r\x00\x01\x7f\u200b\u2028x\ufeff",
    'SELECT name FROM t WHERE a >= 3 AND b = "x" -- ok',
    "[CLS] literal [MASK] and <s> with <mask> and </s> <|endoftext|> <extra>",
    "e\u0301 \u00e9 ﬁ Ⅷ ٣ ไทย עברית",
    "x" * 300,
    "the " * 200,
]


def write(folder: Path, **files: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


def assert_same(folder: Path, texts: Sequence[str] = TEXTS) -> Tokenizer:
    """Ours and transformers' agree on ids with and without the template, text, special ids and size."""
    from transformers import AutoTokenizer

    ours = Tokenizer.from_folder(folder)
    assert ours is not None
    theirs = AutoTokenizer.from_pretrained(folder)
    for special in (True, False):
        expected = [theirs(text, add_special_tokens=special, truncation=False)["input_ids"] for text in texts]
        assert ours.encode(texts, special=special) == expected
        assert [ours.decode(ids) for ids in expected] == [
            theirs.decode(ids, skip_special_tokens=True) for ids in expected
        ]
    for name in ("pad", "bos", "eos", "cls", "sep", "mask", "unk"):
        assert getattr(ours, f"{name}_id") == getattr(theirs, f"{name}_token_id"), name
    assert ours.vocab_size == max(theirs.get_vocab().values()) + 1
    return ours


def assert_round_trip(tokenizer: Tokenizer, folder: Path, texts: Sequence[str] = TEXTS) -> None:
    """What is saved loads here with the same fingerprint and in transformers with the same ids."""
    tokenizer.save(folder)
    again = assert_same(folder, texts)
    assert again.fingerprint == tokenizer.fingerprint
    assert again.kind == tokenizer.kind
    assert again.encode(texts) == tokenizer.encode(texts)
