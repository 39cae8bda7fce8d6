"""The chunked loss and its gradients against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from seq2seq_cli.model import losses
from seq2seq_cli.model.losses import label_loss


def _inputs(rows: int, size: int, vocab: int) -> list[torch.Tensor]:
    make = torch.Generator().manual_seed(0)
    shapes = [(rows, size), (vocab, size), (vocab,)]
    return [torch.randn(*shape, generator=make).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("rows", [1, 64, 150])
def test_loss_and_gradients_equal_plain_torch(
    rows: int, smoothing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "_CHUNK_ELEMENTS", 1)  # chunks of the fewest rows: several of them
    labels = torch.randint(0, 37, (rows,), generator=torch.Generator().manual_seed(1))
    ours, theirs = _inputs(rows, 16, 37), _inputs(rows, 16, 37)
    loss = label_loss(*ours, labels, smoothing=smoothing)
    (loss * 0.3).backward()
    plain = F.cross_entropy(F.linear(*theirs), labels, label_smoothing=smoothing, reduction="sum")
    (plain * 0.3).backward()
    torch.testing.assert_close(loss, plain, rtol=1e-5, atol=1e-5)
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, reference.grad, rtol=1e-5, atol=1e-5)


def test_extreme_scores_stay_finite_and_exact() -> None:
    states = torch.tensor([[500.0], [-500.0]], requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0], [0.0]], requires_grad=True)
    labels = torch.tensor([1, 1])
    loss = label_loss(states, weight, None, labels)
    loss.backward()
    assert loss.item() == 1000.0
    assert torch.isfinite(states.grad).all()
    assert torch.isfinite(weight.grad).all()


def test_no_labels_give_zero_loss_and_zero_gradients() -> None:
    states, weight, bias = _inputs(0, 8, 11)
    label_loss(states, weight, bias, torch.empty(0, dtype=torch.long)).backward()
    assert weight.grad.abs().sum() == 0
    assert bias.grad.abs().sum() == 0


def test_without_gradients_only_the_loss_is_made() -> None:
    states, weight, bias = _inputs(5, 8, 11)
    labels = torch.arange(5)
    with torch.no_grad():
        loss = label_loss(states, weight, bias, labels)
    assert not loss.requires_grad
    plain = F.cross_entropy(F.linear(states, weight, bias), labels, reduction="sum")
    torch.testing.assert_close(loss, plain.detach())


def test_frozen_weight_gets_no_gradient_and_states_do() -> None:
    states, weight, bias = _inputs(5, 8, 11)
    weight.requires_grad_(False)
    label_loss(states, weight, bias, torch.arange(5)).backward()
    assert weight.grad is None
    assert states.grad is not None


def test_half_precision_follows_the_states() -> None:
    states, weight, bias = _inputs(40, 16, 37)
    labels = torch.arange(40) % 37
    loss = label_loss(states.bfloat16(), weight, bias, labels)
    loss.backward()
    plain = F.cross_entropy(F.linear(states, weight, bias), labels, reduction="sum")
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(plain.item(), rel=0.02)
    assert weight.grad.dtype == torch.float32


def test_the_kept_buffer_serves_after_an_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "_buffers", {})
    states, weight, bias = _inputs(70, 8, 11)
    labels = torch.arange(70) % 11
    with torch.inference_mode():
        evaluated = label_loss(states, weight, bias, labels).item()
    trained = label_loss(states, weight, bias, labels)
    trained.backward()
    assert trained.item() == evaluated
