"""Scores by distance are put where query and key meet: by a view, and where tokens are hidden by a gather."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from seq2seq_cli.model.distances import Distances

SHAPES = [(1, 1), (1, 5), (2, 2), (2, 5), (4, 4), (4, 6)]


def no_waves(span: Tensor) -> Tensor:
    return span[:, None].float()


def make(queries: int, keys: int, *, causal: bool, exact: Tensor | None = None) -> Distances:
    return Distances(
        queries=queries,
        keys=keys,
        causal=causal,
        exact=exact,
        waves=no_waves,
        device=torch.device("cpu"),
    )


def by_place(queries: int, keys: int) -> Tensor:
    return torch.arange(keys)[keys - queries :, None] - torch.arange(keys)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("queries", "keys"), SHAPES)
@pytest.mark.parametrize("gathered", [True, False])
def test_every_score_finds_its_place(queries: int, keys: int, causal: bool, gathered: bool) -> None:
    wanted = by_place(queries, keys)
    exact = wanted[None].expand(2, -1, -1) if gathered else None
    distances = make(queries, keys, causal=causal, exact=exact)
    span = distances.span.float()
    told = 100.0 * torch.arange(6).view(2, 3, 1, 1)  # so that rows and heads are told apart
    of_queries = distances.of_queries((told + span).expand(2, 3, queries, -1).contiguous())
    of_keys = distances.of_keys((told + span.flip(0)).expand(2, 3, keys, -1).contiguous())
    spread = distances.spread(torch.stack([span, 2 * span]))
    assert of_queries.shape == of_keys.shape == (2, 3, queries, keys)
    for query, key in itertools.product(range(queries), range(keys)):
        distance = int(wanted[query, key])
        if causal and distance < 0:
            continue  # never visible
        assert torch.equal(of_queries[:, :, query, key], told[:, :, 0, 0] + distance)
        assert torch.equal(of_keys[:, :, query, key], told[:, :, 0, 0] + distance)
        for head in (0, 1):
            assert bool((spread[:, head, query, key] == (head + 1) * distance).all())


def test_queries_and_keys_keep_their_own_scores() -> None:
    """Not only the right distance, but of the right row of the scores."""
    queries, keys = 3, 5
    distances = make(queries, keys, causal=False)
    rows = distances.span.numel()
    of_queries = distances.of_queries(torch.arange(queries).view(1, 1, -1, 1).expand(1, 1, queries, rows))
    assert torch.equal(of_queries[0, 0], torch.arange(queries)[:, None].expand(-1, keys))
    of_keys = distances.of_keys(torch.arange(keys).view(1, 1, -1, 1).expand(1, 1, keys, rows))
    assert torch.equal(of_keys[0, 0], torch.arange(keys).expand(queries, -1))


@pytest.mark.parametrize("gathered", [True, False])
def test_a_window_ends_so_many_places_back(gathered: bool) -> None:
    wanted = by_place(3, 6)
    distances = make(3, 6, causal=True, exact=wanted[None] if gathered else None)
    for window in (1, 2, 5, 9):
        assert torch.equal(distances.within(window)[0], wanted < window)


def test_waves_are_drawn_once() -> None:
    """One dropout for all layers."""
    calls = []

    def waves(span: Tensor) -> Tensor:
        calls.append(span.tolist())
        return torch.rand(len(span), 2)

    distances = Distances(
        queries=2, keys=3, causal=False, exact=None, waves=waves, device=torch.device("cpu")
    )
    assert torch.equal(distances.waves(2), distances.waves(2))
    assert calls == [[2, 1, 0, -1, -2]]
    distances.waves(4)
    assert calls[1] == [4, 3, 2, 1, 0, -1, -2]
