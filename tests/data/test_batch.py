"""Tensors of a batch: one shift, masks from lengths, masked language modelling as published."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seq2seq_cli.data.batch import IGNORED, Batch, causal_batch, masked_batch, pad, pair_batch


def test_pairs_are_shifted_once() -> None:
    batch = pair_batch(
        [[5, 6, 7], [8]],
        [[11], [12, 13]],
        rows=[4, 2],
        start_id=1,
        eos_id=2,
        source_pad_id=9,
        target_pad_id=3,
    )
    assert batch.source_ids is not None
    assert batch.source_mask is not None
    assert batch.source_ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch.source_mask.tolist() == [[True] * 3, [True, False, False]]
    assert batch.target_ids.tolist() == [[1, 11, 3], [1, 12, 13]]
    assert batch.target_mask.tolist() == [[True, True, False], [True, True, True]]
    assert batch.labels.tolist() == [[11, 2, IGNORED], [12, 13, 2]]
    assert batch.rows == (4, 2)
    assert batch.label_count == 5
    for tensor in (batch.source_ids, batch.target_ids, batch.labels):
        assert tensor.dtype == torch.int64


def test_start_equal_to_pad_and_eos_is_not_masked() -> None:
    batch = pair_batch([[0, 0], [0]], [[0], [0, 0]], rows=[0, 1], start_id=0, eos_id=0)
    assert batch.source_mask is not None
    assert batch.source_mask.tolist() == [[True, True], [True, False]]
    assert batch.target_mask.tolist() == [[True, True, False], [True] * 3]
    assert batch.labels.tolist() == [[0, 0, IGNORED], [0, 0, 0]]


def test_empty_sequences() -> None:
    ids, mask = pad([[], []], 7)
    assert ids.tolist() == [[7], [7]]
    assert mask.tolist() == [[False], [False]]
    batch = pair_batch([[], [3]], [[], [4]], rows=[0, 1], start_id=1, eos_id=2)
    assert batch.labels.tolist() == [[2, IGNORED], [4, 2]]
    assert batch.target_ids[0].tolist() == [1, 0]


def test_causal_has_no_source() -> None:
    batch = causal_batch([[3, 4]], rows=[0], start_id=1, eos_id=2)
    assert batch.source_ids is None
    assert batch.source_mask is None
    assert batch.target_ids.tolist() == [[1, 3, 4]]
    assert batch.labels.tolist() == [[3, 4, 2]]


def test_to_moves_everything() -> None:
    pair = pair_batch([[5]], [[6]], rows=[0], start_id=1, eos_id=2).to("meta")
    assert pair.source_ids is not None
    assert {t.device.type for t in (pair.source_ids, pair.target_ids, pair.target_mask, pair.labels)} == {
        "meta"
    }
    assert causal_batch([[5]], rows=[0], start_id=1, eos_id=2).to("cpu").source_ids is None


# -- masked language modelling -------------------------------------------------------------------------------

SPECIAL = frozenset({0, 1, 2, 3, 4})
CLS, SEP, MASK, VOCAB = 2, 3, 4, 1000


def mask(texts: list[list[int]], rows: list[int], seed: int = 0, epoch: int = 0) -> Batch:
    return masked_batch(
        texts, rows=rows, mask_id=MASK, vocab_size=VOCAB, special_ids=SPECIAL, seed=seed, epoch=epoch
    )


def test_masking_shares() -> None:
    rng = np.random.default_rng(0)
    texts = [[CLS, *rng.integers(5, VOCAB, 100).tolist(), SEP] for _ in range(400)]
    batch = mask(texts, list(range(400)))
    original = torch.tensor(texts)
    chosen = batch.labels != IGNORED
    assert torch.equal(batch.labels[chosen], original[chosen])
    assert torch.equal(batch.target_ids[~chosen], original[~chosen])
    assert not chosen[:, 0].any()
    assert not chosen[:, -1].any()
    assert chosen.sum(dim=1).tolist() == [15] * 400
    read = batch.target_ids[chosen]
    masked = (read == MASK).float().mean().item()
    same = (read == original[chosen]).float().mean().item()
    assert masked == pytest.approx(0.8, abs=0.02)
    assert same == pytest.approx(0.1, abs=0.02)
    other = read[(read != MASK) & (read != original[chosen])]
    assert other.min() >= 5
    assert len(set(other.tolist())) > 300


def test_masking_depends_on_seed_epoch_and_row_alone() -> None:
    texts = [[CLS, *range(10, 50), SEP], [CLS, *range(60, 110), SEP]]
    both, alone = mask(texts, [7, 8]), mask(texts[:1], [7])
    width = len(texts[0])
    assert torch.equal(both.labels[0, :width], alone.labels[0])
    assert torch.equal(both.target_ids[0, :width], alone.target_ids[0])
    for other in (mask(texts[:1], [8]), mask(texts[:1], [7], seed=1), mask(texts[:1], [7], epoch=1)):
        assert not torch.equal(other.labels, alone.labels)


def test_a_short_text_has_one_label_and_an_empty_one_none() -> None:
    batch = mask([[CLS, 9, SEP], [CLS, SEP]], [0, 1])
    assert batch.labels.tolist() == [[IGNORED, 9, IGNORED], [IGNORED] * 3]
    assert batch.target_mask.tolist() == [[True] * 3, [True, True, False]]


# -- whole words -------------------------------------------------------------------------------------------


def spelled(text: list[int]) -> list[int]:
    return [i if i >= 0 else ~i for i in text]


def test_whole_words_are_masked_together() -> None:
    rng = np.random.default_rng(0)
    texts = []
    for _ in range(300):
        ids = rng.integers(5, VOCAB, 100)
        ids[1:] = np.where(rng.random(99) < 0.5, ~ids[1:], ids[1:])  # every second piece goes on
        texts.append([CLS, *ids.tolist(), SEP])
    batch = mask(texts, list(range(300)))
    original = torch.tensor([spelled(text) for text in texts])
    chosen = batch.labels != IGNORED
    assert torch.equal(batch.labels[chosen], original[chosen])
    assert torch.equal(batch.target_ids[~chosen], original[~chosen])
    goes_on = torch.tensor(texts) < 0
    assert torch.equal(chosen[:, 1:][goes_on[:, 1:]], chosen[:, :-1][goes_on[:, 1:]]), "one lot a word"
    counts = chosen.sum(dim=1)
    assert counts.max() == 15
    assert counts.float().mean() > 14.8, "a word that would be too much is passed over, not the rest"
    read = batch.target_ids[chosen]
    assert (read == MASK).float().mean().item() == pytest.approx(0.8, abs=0.02)
    shares = chosen[:, 1:-1].float().mean(dim=0)
    assert shares.max() < 2.2 * shares.min(), "every place has its chance"


def test_a_long_word_is_masked_whole() -> None:
    batch = mask([[CLS, 9, ~10, ~11, SEP]], [0])
    assert batch.labels.tolist() == [[IGNORED, 9, 10, 11, IGNORED]]


def test_words_of_one_piece_are_masked_as_ever() -> None:
    texts = [[CLS, *range(10, 60), SEP]]
    goes_on = [[CLS, *range(10, 58), 58, ~59, SEP]]
    plain, whole = mask(texts, [3]), mask(goes_on, [3])
    assert plain.labels.ne(IGNORED).sum() == round(0.15 * 50)
    assert whole.labels.ne(IGNORED).sum() in (7, 8)
