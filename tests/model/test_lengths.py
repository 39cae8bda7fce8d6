"""Batches that are worked on in groups of like length."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from seq2seq_cli.model import EncoderDecoder, HeadConfig, Stack
from seq2seq_cli.model.initialise import initialise
from tests.model.test_stack import CONFIG, made

ROWS, LENGTH = 9, 12


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of any length, with padding on the left, on the right, in between, and nothing but padding."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, 30, (ROWS, LENGTH), generator=generator)
    mask = torch.rand(ROWS, LENGTH, generator=generator) < torch.linspace(0.1, 1, ROWS)[:, None]
    mask[0] = False
    mask[1, :5], mask[1, 5:] = False, True
    mask[2, :7], mask[2, 7:] = True, False
    return ids, mask


@pytest.mark.parametrize("causal", [False, True])
def test_states_stand_where_their_tokens_do(causal: bool) -> None:
    stack = made(replace(CONFIG, causal=causal)).eval()
    ids, mask = batch()
    calls: list[int] = []
    stack.layers[0].register_forward_pre_hook(lambda layer, args: calls.append(args[0].shape[1]))
    together = stack(ids, mask)
    assert len(calls) == 4
    assert max(calls) == int(mask.sum(1).max())
    assert sum(calls) < 4 * max(calls)  # the shorter groups are narrower
    assert together.shape == (ROWS, LENGTH, 16)
    for row in range(1, ROWS):
        alone = stack(ids[row][mask[row]][None])[0]
        torch.testing.assert_close(together[row][mask[row]], alone, rtol=1e-5, atol=1e-6)
    assert together.isfinite().all()


def test_a_pair_attends_to_the_same_states() -> None:
    decoder = replace(
        CONFIG, hidden_size=24, head_size=12, causal=True, cross_attention=True, head=HeadConfig()
    )
    pair = EncoderDecoder(made(CONFIG), made(decoder)).eval()
    assert pair.projection is not None
    initialise(pair.projection, config=decoder, generator=torch.Generator().manual_seed(1))
    ids, mask = batch()
    target = torch.randint(0, 30, (ROWS, 4))
    together = pair(ids, mask, target)
    for row in range(1, ROWS):
        alone = pair(ids[row][mask[row]][None], None, target[row : row + 1])[0]
        torch.testing.assert_close(together[row], alone, rtol=1e-5, atol=1e-6)


def test_training_takes_a_batch_as_it_is() -> None:
    """Dropout draws the same numbers whatever the lengths are."""
    stack: Stack = made(CONFIG).train()
    ids, mask = batch()
    calls: list[int] = []
    stack.layers[0].register_forward_pre_hook(lambda layer, args: calls.append(args[0].shape[0]))
    stack(ids, mask)
    assert calls == [ROWS]
