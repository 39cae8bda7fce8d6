"""Denoising data: sources with holes, targets, lengths within limits, lots that depend on the row alone."""

from __future__ import annotations

import numpy as np
import pytest

from seq2seq_cli.data.denoised import DenoiseDataset
from seq2seq_cli.data.noise import Noise
from seq2seq_cli.data.packed import PackedDataset
from seq2seq_cli.data.rows import Row
from seq2seq_cli.errors import DataError, UsageError
from seq2seq_cli.text.tokenizer import Tokenizer
from seq2seq_cli.text.training import train_tokenizer

WORDS = ["who", "sells", "the", "most", "cars", "in", "north", "south", "and", "when", "did", "it", "end"]
TEXTS = [" ".join((WORDS[i:] + WORDS[:i])[: 1 + i % 7]) for i in range(40)]
BERT = train_tokenizer("wordpiece", 200, TEXTS)
BPE = train_tokenizer("bpe", 320, TEXTS)
T5 = train_tokenizer("unigram", 60, TEXTS).extended({f"mark_{i}": f"<extra_id_{i}>" for i in range(20)})
START, EOS = 1, 2


def rows(*texts: str) -> list[Row]:
    return [Row(source="", target=t, references=(t,), where=f"x:{n}") for n, t in enumerate(texts)]


def make(
    *texts: str, tokenizers: tuple[Tokenizer, Tokenizer] = (BERT, BERT), **options: object
) -> DenoiseDataset:
    spans = tokenizers[0] is T5
    marks = T5.sentinel_ids if spans else (tokenizers[0].mask_id or 0,)
    noise = Noise(kind="spans" if spans else "infilling", density=0.3, mean_span_length=2.0, marks=marks)
    return DenoiseDataset(
        rows=rows(*(texts or TEXTS)),
        source_tokenizer=tokenizers[0],
        target_tokenizer=tokenizers[1],
        noise=noise,
        start_id=START,
        eos_id=EOS,
        **options,  # type: ignore[arg-type]
    )


def test_sentinels_are_found_in_their_order() -> None:
    assert len(T5.sentinel_ids) == 20
    assert T5.decode([T5.sentinel_ids[3]]) == ""
    assert BERT.sentinel_ids == ()


@pytest.mark.parametrize("target", [BERT, BPE])
def test_infilling_tells_the_whole_text(target: Tokenizer) -> None:
    data = make(tokenizers=(BERT, target), first_id=5)
    batch = data.batch([3, 6], epoch=1)
    assert batch.source_ids is not None
    assert batch.source_mask is not None
    for place, row in enumerate((3, 6)):
        read = batch.source_ids[place][batch.source_mask[place]].tolist()
        ids = BERT.encode([TEXTS[row]])[0]
        assert (read[0], read[-1]) == (BERT.cls_id, BERT.sep_id)
        assert BERT.mask_id in read
        assert set(read) - {BERT.mask_id} < set(ids)
        said = [i for i in batch.labels[place].tolist() if i >= 0]
        assert said == [5, *target.encode([TEXTS[row]], special=False)[0], EOS]
        assert batch.target_ids[place].tolist()[0] == START
    assert batch.rows == (3, 6)


def test_spans_give_the_text_back() -> None:
    data = make(tokenizers=(T5, T5))
    marks = set(T5.sentinel_ids)
    for index, text in enumerate(TEXTS):
        source, target = (ids.tolist() for ids in data.example(index, 2))
        before, after = T5.template
        source = source[len(before) : len(source) - len(after)]
        spans: dict[int, list[int]] = {}
        for number in target:
            if number in marks:
                spans[number] = told = []
            else:
                told.append(number)
        whole = [i for number in source for i in (spans[number] if number in marks else [number])]
        assert whole == T5.encode([text], special=False)[0]
        assert len(spans) == sum(number in marks for number in source) + 1
        sizes = data.lengths[index].tolist()
        assert sizes == [len(source) + len(before) + len(after), len(target) + 1]


@pytest.mark.parametrize("tokenizers", [(BERT, BERT), (BERT, BPE), (T5, T5)])
def test_lots_depend_on_seed_epoch_and_row_alone(tokenizers: tuple[Tokenizer, Tokenizer]) -> None:
    data = make(tokenizers=tokenizers, seed=4)
    both, alone = data.batch([6, 5], epoch=3), data.batch([5], epoch=3)
    assert both.source_ids is not None
    assert alone.source_ids is not None
    width = alone.source_ids.shape[1]
    assert both.source_ids[1, :width].equal(alone.source_ids[0])
    others = [make(tokenizers=tokenizers, seed=seed).example(6, 3)[0].tolist() for seed in range(12)]
    others += [data.example(6, epoch)[0].tolist() for epoch in range(4, 12)]
    assert len({tuple(ids) for ids in others}) > 1
    moved = make("", *TEXTS[:7], tokenizers=tokenizers, seed=4)
    assert moved.row_numbers.tolist()[0] == 1
    found = [(moved.example(i, 3)[0].tolist(), data.example(i, 3)[0].tolist()) for i in range(7)]
    assert any(one != two for one, two in found), "the number of the row decides, not its place"


@pytest.mark.parametrize("tokenizers", [(BERT, BERT), (BERT, BPE), (T5, T5)])
@pytest.mark.parametrize(("source", "target"), [(5, 9), (9, 6), (6, 6)])
def test_d5_nothing_is_longer_than_asked_for(
    tokenizers: tuple[Tokenizer, Tokenizer], source: int, target: int
) -> None:
    data = make(tokenizers=tokenizers, max_source_length=source, max_target_length=target)
    assert data.lengths.max(axis=0).tolist() <= [source, target]
    for epoch in range(30):
        for index in range(len(data)):
            read, said = data.example(index, epoch)
            assert len(read) <= data.lengths[index, 0]
            assert len(said) + 1 == data.lengths[index, 1]
    assert data.summary.truncated_sources > 0


def test_refusals() -> None:
    with pytest.raises(DataError, match="no row has a target"):
        make("", " ")
    with pytest.raises(UsageError, match="max_source_length of 2"):
        make(max_source_length=2)
    with pytest.raises(UsageError, match="no room for text and its sentinels"):
        make(tokenizers=(T5, T5), max_target_length=3)


def test_content_hash_follows_the_ids() -> None:
    assert make().content_hash == make().content_hash
    assert make().content_hash != make(tokenizers=(BERT, BPE)).content_hash
    assert make("who", "sells").content_hash != make("sells", "who").content_hash


# -- packing -------------------------------------------------------------------------------------------------


def pack(*texts: str, length: int = 7) -> PackedDataset:
    return PackedDataset(rows=rows(*texts), tokenizer=BPE, start_id=START, eos_id=EOS, block_length=length)


@pytest.mark.parametrize("length", [2, 3, 7, 1000])
def test_blocks_are_the_texts_one_behind_another(length: int) -> None:
    texts = [TEXTS[i] for i in (4, 0, 6)] + ["  "] + TEXTS[:20]
    pairs = []
    for number, text in enumerate(texts):
        if text.strip():
            ids = BPE.encode([text], special=False)[0]
            pairs += list(zip([START, *ids], [*ids, EOS], [number] * (len(ids) + 1), strict=True))
    data = pack(*texts, length=length)
    assert len(data) == -(-len(pairs) // length)
    assert data.lengths.sum() == len(pairs) == data.summary.tokens
    for index in range(len(data)):
        wanted = pairs[index * length : (index + 1) * length]
        read, said = data[index]
        assert read.tolist() == [pair[0] for pair in wanted]
        assert said.tolist() == [pair[1] for pair in wanted]
        assert data.row_numbers[index] == wanted[0][2]
        assert data.lengths[index].tolist() == [0, len(wanted)]
    assert str(data.summary).startswith(f"23 of 24 rows, {len(pairs)} tokens in {len(data)} blocks")


def test_a_batch_of_blocks_is_full_but_for_the_last() -> None:
    data = pack(*TEXTS)
    batch = data.batch([0, 1])
    assert batch.target_mask.all()
    assert batch.source_ids is None
    assert batch.label_count == 14
    last = data.batch([0, len(data) - 1])
    assert last.label_count == data.lengths[[0, -1], 1].sum()
    assert np.array_equal(last.target_mask.numpy(), last.labels.numpy() != -100)
    assert pack("who", "sells").content_hash != pack("who sells").content_hash
    with pytest.raises(UsageError, match="max_target_length of 1"):
        pack(*TEXTS, length=1)
