"""Tokenized rows: lengths, cuts, rows left out, batches, content hash."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models

from seq2seq_cli.data import sequences
from seq2seq_cli.data.dataset import PairDataset, TextDataset
from seq2seq_cli.data.rows import Row
from seq2seq_cli.errors import DataError, UsageError
from seq2seq_cli.text.tokenizer import Tokenizer
from seq2seq_cli.text.training import train_tokenizer

WORDS = ["who", "sells", "the", "most", "cars", "in", "north", "south", "and", "when", "did", "it", "end"]
TEXTS = [" ".join(WORDS[i:] + WORDS[:i]) for i in range(len(WORDS))] * 4
SOURCE = train_tokenizer("wordpiece", 200, TEXTS)
TARGET = train_tokenizer("bpe", 320, TEXTS)
WITHOUT_MASK = Tokenizer(
    backend=Backend(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>")), config={}
)
START, EOS = 1, 2


def row(source: str, target: str) -> Row:
    return Row(source=source, target=target, references=(target,), where="x:1")


ROWS = [row("who sells", "cars in north"), row("", "it"), row("who", "  "), row("the most cars", "")]
ROWS += [row("and when did it end who sells the most", "south and when did it end who")]


def make(rows: list[Row] = ROWS, **options: object) -> PairDataset:
    return PairDataset(
        rows=rows,
        source_tokenizer=SOURCE,
        target_tokenizer=TARGET,
        start_id=START,
        eos_id=EOS,
        **options,  # type: ignore[arg-type]
    )


def test_pairs_are_tokenized_and_empty_targets_left_out() -> None:
    data = make()
    assert len(data) == 3
    assert data.row_numbers.tolist() == [0, 1, 4]
    assert data.summary.rows == 5
    assert data.summary.empty_targets == 2
    for index, number in enumerate(data.row_numbers):
        source, target = data[index]
        assert source.tolist() == SOURCE.encode([ROWS[number].source])[0]
        assert target.tolist() == TARGET.encode([ROWS[number].target], special=False)[0]
        assert data.lengths[index].tolist() == [len(source), len(target) + 1]
    assert str(data.summary) == f"3 of 5 rows, {data.lengths.sum()} tokens; 2 left out: empty target"
    assert len(make(keep_empty=True)) == 5


def test_batches_name_the_original_rows() -> None:
    batch = make().batch([2, 0])
    assert batch.rows == (4, 0)
    assert batch.source_ids is not None
    assert batch.target_ids[:, 0].tolist() == [START, START]
    ids = TARGET.encode([ROWS[0].target], special=False)[0]
    assert batch.labels[1, : len(ids) + 1].tolist() == [*ids, EOS]
    assert batch.source_ids[1, 0] == SOURCE.cls_id


def test_d5_cuts_are_counted_and_keep_the_closing_token() -> None:
    data = make(max_source_length=5, max_target_length=4)
    assert data.lengths.max(axis=0).tolist() == [5, 4]
    whole = SOURCE.encode([ROWS[4].source])[0]
    source, target = data[2]
    assert source.tolist() == [*whole[:4], SOURCE.sep_id]
    assert target.tolist() == TARGET.encode([ROWS[4].target], special=False)[0][:3]
    long = sum(len(ids) > 5 for ids in SOURCE.encode([ROWS[i].source for i in (0, 1, 4)]))
    assert long > 0
    assert (data.summary.truncated_sources, data.summary.truncated_targets) == (long, 1)
    assert f"{long} sources cut" in str(data.summary)
    exact = make(max_source_length=len(whole))
    assert exact.summary.truncated_sources == 0


def test_source_prefix() -> None:
    data = make(source_prefix="when did ")
    assert data[0][0].tolist() == SOURCE.encode(["when did who sells"])[0]


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row(text, text) for text in TEXTS]
    before = make(rows).content_hash
    monkeypatch.setattr(sequences, "_CHUNK", 3)
    assert make(rows).content_hash == before


def test_content_hash_follows_the_ids() -> None:
    base = make().content_hash
    assert base == make().content_hash
    assert base != make(ROWS[:2]).content_hash
    assert base != make(ROWS[::-1]).content_hash
    assert base != make(max_source_length=5).content_hash
    assert make([row("", "a b")]).content_hash != make([row("a", "b")]).content_hash


def test_refusals() -> None:
    with pytest.raises(DataError, match="no row has a target text · x:1"):
        make(ROWS[2:4])
    with pytest.raises(UsageError, match="leaves no room"):
        make(max_source_length=2)
    with pytest.raises(UsageError, match="max_target_length of 1"):
        make(max_target_length=1)
    with pytest.raises(UsageError, match="start and an eos"):
        TextDataset(rows=ROWS, tokenizer=TARGET, objective="causal_lm")


def test_causal_texts() -> None:
    data = TextDataset(
        rows=ROWS, tokenizer=TARGET, objective="causal_lm", start_id=START, eos_id=EOS, max_length=4
    )
    assert len(data) == 3
    assert data.lengths[:, 0].tolist() == [0, 0, 0]
    assert data.lengths.max() == 4
    assert data.summary.truncated_targets == 1
    batch = data.batch([0, 1])
    ids = TARGET.encode([ROWS[0].target], special=False)[0]
    assert data[0].tolist() == ids
    assert batch.target_ids[0, : len(ids) + 1].tolist() == [START, *ids]
    assert batch.labels[0, : len(ids) + 1].tolist() == [*ids, EOS]
    assert batch.rows == (0, 1)


def test_masked_texts_have_the_template_and_change_by_epoch() -> None:
    data = TextDataset(rows=ROWS, tokenizer=SOURCE, objective="masked_lm", max_length=6, seed=3)
    assert data[2].tolist()[0] == SOURCE.cls_id
    assert data[2].tolist()[-1] == SOURCE.sep_id
    assert data.lengths.max() == 6
    one, two = data.batch([0, 2], epoch=0), data.batch([0, 2], epoch=0)
    assert one.labels.equal(two.labels)
    assert any(not one.labels.equal(data.batch([0, 2], epoch=e).labels) for e in range(1, 9))
    with pytest.raises(UsageError, match="mask token"):
        TextDataset(rows=ROWS, tokenizer=WITHOUT_MASK, objective="masked_lm")


def test_only_batches_import_torch() -> None:
    code = (
        "import sys, seq2seq_cli.data.sources, seq2seq_cli.data.dataset, seq2seq_cli.data.batches; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'datasets', 'pyarrow')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
