"""A short list holds the likeliest tokens with their scores, whatever the matrix is, or there is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import seq2seq_cli
from seq2seq_cli.decoding.generate import run
from seq2seq_cli.decoding.options import resolve_options
from seq2seq_cli.model import shortlist
from seq2seq_cli.model.shortlist import Preview, Shortlist
from tests import tiny


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def plain(weight: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
    return weight, states


def outliers(weight: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
    """Some columns are far larger than the rest, as behind the last norm of large models."""
    factors = torch.ones(weight.shape[1])
    factors[:2] = 40.0
    return weight, states * factors


def uneven(weight: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens with vectors a thousand times longer than their neighbours', and some of zeros."""
    order = torch.randperm(len(weight), generator=torch.Generator().manual_seed(1))
    weight = weight * torch.logspace(-2, 1, len(weight))[order][:, None]
    weight[5:20] = 0.0
    return weight, states


def negative(weight: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
    """All scores are below zero: no zero of the padding may come before them."""
    return weight.abs(), -states.abs()


@pytest.mark.parametrize("shape", [plain, outliers, uneven, negative])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("vocabulary", [64 * 40, 64 * 40 + 17])
def test_the_likeliest_are_right(
    shape: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    bias: bool,
    vocabulary: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weight, states = shape(drawn(vocabulary, 48), drawn(70, 48, seed=1))
    offsets = drawn(vocabulary, seed=2) * 3 - 5 if bias else None
    whole = F.linear(states, weight, offsets)
    monkeypatch.setattr(shortlist, "_MOST_TOKENS", vocabulary)
    for count in (1, 3, 20):
        found = Shortlist(weight, offsets)(states, count)
        assert found is not None
        values, tokens = whole.topk(count)
        assert torch.equal(found.topk(count).indices, tokens)
        torch.testing.assert_close(found.topk(count).values, values, rtol=1e-5, atol=1e-4)
        shown = found.isfinite()
        assert float(shown.float().mean()) < 0.6
        torch.testing.assert_close(found[shown], whole[shown], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("width", [2, 3, 8])
@pytest.mark.parametrize("bias", [False, True])
def test_near_ties(width: int, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors that differ by as much as rounding changes them, and few columns, in which the bounds are
    nearly reached: what is likeliest in double precision is always on the list."""
    monkeypatch.setattr(shortlist, "_MOST_TOKENS", 64 * 30)
    for seed in range(30):
        around = drawn(1, width, seed=seed) * torch.logspace(0, 1, 30).repeat_interleave(64)[:, None]
        weight = around + 0.02 * drawn(64 * 30, width, seed=100 + seed)
        weight *= torch.rand(64 * 30, 1, generator=torch.Generator().manual_seed(seed)) < 0.9
        states = drawn(50, width, seed=200 + seed)
        offsets = -(weight @ around[0]) if bias else None
        found = Shortlist(weight, offsets)(states, 1)
        assert found is not None
        whole = states.double() @ weight.double().T
        whole = whole if offsets is None else whole + offsets
        best = whole.amax(1, keepdim=True)
        on_the_list = found.isfinite() & (whole >= best - 1e-6 * best.abs())
        assert bool(on_the_list.any(1).all())


def test_states_that_round_badly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A matrix that eight bits hold exactly, and states of which one column drowns the others."""
    monkeypatch.setattr(shortlist, "_MOST_TOKENS", 64 * 30)
    whole = torch.randint(-127, 128, (64 * 30, 3), generator=torch.Generator().manual_seed(0)).float()
    whole[:, 0] = 127.0
    states = drawn(2000, 3, seed=1) * torch.tensor([60.0, 1.0, 1.0])
    found = Shortlist(whole, None)(states, 1)
    assert found is not None
    exact = states.double() @ whole.double().T
    chosen = exact.gather(1, found.argmax(1, keepdim=True))[:, 0]
    torch.testing.assert_close(chosen, exact.amax(1), rtol=1e-6, atol=1e-5)


def test_rounding_alone_would_be_wrong() -> None:
    """The rough product by itself misses the likeliest token of some rows: the test above can fail."""
    weight, states = drawn(64 * 40, 48), drawn(400, 48, seed=1)
    short = Shortlist(weight, None)
    whole, scale = shortlist.rounded(states)
    rough = (torch._int_mm(whole, short._whole.t()) * scale).view(400, -1, shortlist.BLOCK)
    guessed = (rough * short._scale[:, None]).flatten(1).argmax(1)
    assert int((guessed != (states @ weight.T).argmax(1)).sum()) > 3


def test_no_short_list() -> None:
    """Equal vectors, numbers that are none, and more than there are blocks: the whole product it is."""
    alike = drawn(1, 48).expand(64 * 60, -1).clone()
    assert Shortlist(alike, None)(drawn(3, 48), 1) is None
    weight = drawn(64 * 20, 48)
    broken = drawn(3, 48)
    broken[1, 4] = float("nan")
    assert Shortlist(weight, None)(broken, 1) is None
    assert Shortlist(weight, None)(drawn(3, 48), 21) is None


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor that is fast at eight bits, from the first step of a small vocabulary on."""
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)
    monkeypatch.setattr(shortlist, "_LEAST_VOCABULARY", 1)
    monkeypatch.setattr(shortlist, "_FIRST_STEPS", 0)


@pytest.mark.usefixtures("eager")
def test_a_changed_matrix_is_rounded_anew() -> None:
    weight, states, preview = torch.nn.Parameter(drawn(64 * 40, 48)), drawn(2, 48, seed=1), Preview()
    with torch.no_grad():
        first = preview.scores(states, weight, None, 1)
        weight.add_(drawn(64 * 40, 48, seed=3))
        second = preview.scores(states, weight, None, 1)
    assert first is not None
    assert second is not None
    assert torch.equal(second.argmax(1), (states @ weight.T).argmax(1))
    assert not torch.equal(first.argmax(1), second.argmax(1))


@pytest.mark.usefixtures("eager")
def test_what_does_not_help_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(Shortlist, "__call__", lambda self, states, count: asked.append(count))
    weight, preview = drawn(64 * 4, 8), Preview()
    for _ in range(40):
        assert preview.scores(drawn(1, 8), weight, None, 1) is None
    assert len(asked) == 9


def test_small_or_slow_ones_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shortlist, "_FIRST_STEPS", 0)
    weight, states = drawn(64 * 200, 8), drawn(1, 8)
    for fast, rows, helps in ((True, 64 * 200, True), (True, 64 * 100, False), (False, 64 * 200, False)):
        monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda fast=fast: fast)
        assert (Preview().scores(states, weight[:rows], None, 1) is not None) == helps
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)
    assert Preview().scores(states.double(), weight.double(), None, 1) is None


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"min_new_tokens": 7, "suppress_tokens": [5, 9, 11]},
        {"repetition_penalty": 1.3},
        {"bad_words_ids": [[7], [8, 9]]},
    ],
    ids=str,
)
def test_greedy_decoding_writes_the_same(
    options: dict[str, object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A pair with a vocabulary of some blocks, with and without short lists."""
    tiny.pair("bert", "gpt2", decoder_changes={"vocab_size": 64 * 30}).save_pretrained(tmp_path)
    model = seq2seq_cli.load(tmp_path).model
    ids = torch.randint(3, 50, (5, 9), generator=torch.Generator().manual_seed(0))
    decoding = resolve_options({"max_new_tokens": 12, **options}, model.generation, model.special_ids)
    used = []
    real = Shortlist.__call__

    def counting(self: Shortlist, states: Tensor, count: int) -> Tensor | None:
        used.append(count)
        return real(self, states, count)

    monkeypatch.setattr(Shortlist, "__call__", counting)
    short = [found[0].ids for found in run(model, ids, None, decoding, with_scores=False)]
    assert bool(used) == ("repetition_penalty" not in options)
    whole = [found[0].ids for found in run(model, ids, None, decoding, with_scores=True)]
    assert short == whole
