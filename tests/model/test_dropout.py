"""Dropout on a CPU: how much is dropped, what is left, and attention in pieces beside its formula."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from seq2seq_cli.model import attention_dropout
from seq2seq_cli.model.attention import Attention, left_to_right, safe_mask
from seq2seq_cli.model.dropout import Dropout, draws_here, kept

B, N, Q, K, H = 2, 2, 3, 5, 4
SHARE = 0.7


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.999])
def test_as_much_is_dropped_as_was_asked_for(rate: float) -> None:
    torch.manual_seed(3)
    keep, share = kept((400, 1001), rate)
    assert share == pytest.approx(1 - rate, abs=2**-17)
    spread = math.sqrt(rate * (1 - rate) / keep.numel())
    assert abs(float(keep.double().mean()) - share) < 5 * spread
    lanes = keep.flatten()[: keep.numel() // 4 * 4].view(-1, 4).double()
    assert all(abs(float(lane.mean()) - share) < 10 * spread for lane in lanes.T)
    together = torch.corrcoef(lanes.T) - torch.eye(4)  # the four of one draw know nothing of each other
    assert together.abs().max() < 5 / math.sqrt(len(lanes))


def test_a_seed_gives_the_same_draws_and_another_others() -> None:
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(kept((50, 50), 0.5)[0])
    assert draws[0].equal(draws[1])
    assert not draws[0].equal(draws[2])


def test_dropout_scales_what_is_left_and_its_gradient() -> None:
    module = Dropout(0.25)
    x = torch.randn(200, 300, requires_grad=True)
    y = module(x)
    left = y != 0
    assert 0.2 < 1 - float(left.double().mean()) < 0.3
    torch.testing.assert_close(y[left], x[left] / 0.75)
    y.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, left.float() / 0.75)
    assert module.eval()(x) is x


def test_what_is_not_float32_or_no_dropout_is_left_to_torch() -> None:
    x = torch.ones(4)
    assert draws_here(x, 0.1)
    assert not draws_here(x.bfloat16(), 0.1)
    assert not draws_here(x, 0.0)
    assert not draws_here(x, 1.0)
    assert Dropout(1.0)(x).eq(0).all()


def visible(shape: tuple[int, ...]) -> Tensor:
    return safe_mask(torch.rand(shape) > 0.3)


def bias(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


MASKS: dict[str, Callable[[], Tensor | None]] = {
    "none": lambda: None,
    "keys": lambda: torch.zeros(B, 1, 1, K).double().masked_fill_(~visible((B, 1, 1, K)), -torch.inf),
    "left to right": lambda: (
        torch.zeros(1, 1, Q, K).double().masked_fill_(~visible((1, 1, Q, K)), -torch.inf)
    ),
    "bias of heads": lambda: bias(1, N, Q, K),
    "bias of rows": lambda: bias(B, N, Q, K),
    "bias of all": lambda: bias(1, 1, 1, K),
}


@pytest.mark.parametrize("piece", [2**18, 2 * Q * K, 1])
@pytest.mark.parametrize("name", MASKS)
def test_attention_in_pieces_is_the_formula(name: str, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_dropout, "_PIECE", piece)
    torch.manual_seed(0)
    sides = [torch.randn(B, length, N * H, dtype=torch.float64, requires_grad=True) for length in (Q, K, K)]
    keep = (torch.rand(B, N, Q, K) > 0.3).view(torch.uint8)
    mask = MASKS[name]()

    def split(x: Tensor) -> Tensor:
        return x.view(B, -1, N, H).transpose(1, 2)

    def ours(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        heads = (split(query), split(keys), split(values))
        mixed: Tensor = attention_dropout._Attending.apply(*heads, mask, keep, SHARE, 0.3)  # type: ignore[no-untyped-call]
        return mixed

    scores = split(sides[0]) @ split(sides[1]).transpose(-1, -2) * 0.3
    weights = (scores if mask is None else scores + mask).softmax(-1)
    torch.testing.assert_close(ours(*sides, mask), (weights * keep / SHARE) @ split(sides[2]))
    assert torch.autograd.gradcheck(ours, (*sides, mask))


def attention() -> Attention:
    module = Attention(hidden_size=N * H, num_heads=N, head_size=H, scale=0.2, dropout=0.3)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return module


@pytest.mark.parametrize("kind", ["self", "causal", "keys", "cross"])
def test_a_module_in_training_drops_its_weights(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    keep = (torch.rand(B, N, Q, Q) > 0.3).view(torch.uint8)
    monkeypatch.setattr(attention_dropout, "kept", lambda shape, rate: (keep.view(*shape), SHARE))
    module = attention()
    x, states = torch.randn(B, Q, N * H), torch.randn(B, Q, N * H)
    mask = visible((B, 1, 1, Q)) if kind in ("keys", "cross") else None
    if kind == "cross":
        found = module.cross_attend(x, states, mask=mask)
    else:
        found = module(x, mask=mask, causal=kind == "causal")
    read = states if kind == "cross" else x
    query, keys, values = (
        module._split(f(y)) for f, y in ((module.query, x), (module.key, read), (module.value, read))
    )
    seen = left_to_right(Q, Q, x.device) if kind == "causal" else mask
    scores = query @ keys.transpose(-1, -2) * 0.2
    weights = (scores if seen is None else scores.masked_fill(~seen, -torch.inf)).softmax(-1)
    wanted = module.output(((weights * keep / SHARE) @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(found, wanted)


def test_no_scores_are_kept_for_the_way_back() -> None:
    module = attention()
    length = 64
    held = list[Tensor]()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: held.append(t) or t, lambda t: t):
        module(torch.randn(2, length, N * H), mask=None)
    large = [t for t in held if t.numel() >= 2 * N * length * length]
    assert {t.dtype for t in large} == {torch.uint8}
