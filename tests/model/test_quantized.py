"""Matrices in eight bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import seq2seq_cli
from seq2seq_cli.model import HeadConfig
from seq2seq_cli.model.quantized import QuantizedLinear, quantize
from tests import tiny
from tests.model.test_stack import CONFIG, IDS, made


def rounded(rows: torch.Tensor) -> torch.Tensor:
    """Rows as the nearest multiples of a 127th of their largest number."""
    step = rows.abs().amax(-1, keepdim=True) / 127
    return (rows / step).round() * step


@pytest.mark.parametrize("bias", [None, torch.linspace(-1, 1, 24)])
def test_a_product_is_that_of_rounded_matrices(bias: torch.Tensor | None) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(24, 40, generator=generator) * torch.logspace(-3, 2, 24)[:, None]
    x = torch.randn(2, 3, 40, generator=generator) * torch.tensor([1e-4, 1.0, 50.0])[None, :, None]
    product = QuantizedLinear(weight, bias)(x)
    expected = torch.nn.functional.linear(rounded(x).double(), rounded(weight).double())
    expected = expected if bias is None else expected + bias
    assert product.shape == (2, 3, 24)
    torch.testing.assert_close(product.double(), expected, rtol=1e-5, atol=1e-7)


def test_rows_of_zeros_stay_zeros() -> None:
    product = QuantizedLinear(torch.zeros(2, 8), None)(torch.zeros(3, 8))
    assert product.tolist() == [[0.0, 0.0]] * 3


@pytest.mark.parametrize("tied", [True, False])
def test_a_stack_comes_close_with_a_quarter_of_the_matrices(tied: bool) -> None:
    stack = made(replace(CONFIG, hidden_size=64, head_size=32, head=HeadConfig(tied=tied, bias=True))).eval()
    before = stack(IDS)
    embeddings = [stack.embedding, stack.position_embedding]
    kept = sum(p.nbytes for e in embeddings for p in e.parameters())  # type: ignore[union-attr]
    bytes_before = sum(p.nbytes for p in stack.parameters()) - kept
    quantize(stack)
    after = stack(IDS)
    bytes_after = sum(t.nbytes for t in (*stack.parameters(), *stack.buffers())) - kept
    assert 0 < (after - before).norm() / before.norm() < 0.03
    assert bytes_after < bytes_before * (0.5 if not tied else 0.6)
    assert hasattr(stack.head, "weight") == tied


@pytest.mark.parametrize("decoder", ["bert", "gpt2"])
def test_a_pair_generates_nearly_the_same(decoder: str, tmp_path: Path) -> None:
    tiny.pair("bert", decoder).save_pretrained(tmp_path)
    plain, whole = (seq2seq_cli.load(tmp_path).model for _ in range(2))
    quantize(whole)
    ids, mask = tiny.padded([[3, 4, 5, 6, 7], [8, 9]])
    options = {"max_new_tokens": 6, "min_new_tokens": 6}
    expected = seq2seq_cli.generate_ids(plain, ids, mask, **options)
    found = seq2seq_cli.generate_ids(whole, ids, mask, **options)
    for before, after in zip(expected, found, strict=True):
        assert before[0].ids[0] == after[0].ids[0]
        assert before[0].score != after[0].score
        assert before[0].score == pytest.approx(after[0].score, abs=0.3)
