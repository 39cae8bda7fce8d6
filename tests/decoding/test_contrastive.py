"""Contrastive search writes what transformers 4.30.2 wrote for each source alone; it has no scores for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from seq2seq_cli.decoding import generate_ids
from tests.decoding import stored


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize(("name", "options", "rows"), stored.cases("contrastive"))
def test_as_published(name: str, options: dict[str, Any], rows: list[Any], left: bool) -> None:
    stored.check(name, "contrastive", options, rows, left=left)


@pytest.mark.parametrize("name", stored.MODELS)
def test_rows_do_not_know_their_neighbours(name: str) -> None:
    """transformers 4 lets the padding of a prompt count as something to be unlike of."""
    stored.check_rows_alone(name, {"penalty_alpha": 0.6, "top_k": 5})


def test_the_score_is_the_mean_log_probability() -> None:
    model = stored.model("gpt2")
    prompt = torch.tensor([[5, 6, 7]])
    options = {"penalty_alpha": 0.6, "top_k": 4, "max_new_tokens": 8}
    ((found,),) = generate_ids(model, prompt, token_scores=True, **options)
    with torch.no_grad():
        steps = model(torch.cat([prompt, torch.tensor([found.ids])], 1)).log_softmax(-1)[0, 2:-1]
    picked = steps.gather(1, torch.tensor(found.ids)[:, None])
    assert found.score == pytest.approx(float(picked.mean()), abs=1e-5)
    assert found.token_scores == pytest.approx(picked[:, 0].tolist(), abs=1e-5)


def test_without_a_penalty_it_is_greedy() -> None:
    model, ids = stored.model("gpt2"), torch.tensor([[5, 6, 7], [8, 9, 10]])
    greedy = generate_ids(model, ids, max_new_tokens=9)
    for options in ({"penalty_alpha": 1e-9, "top_k": 5}, {"penalty_alpha": 0.0}):
        found = generate_ids(model, ids, max_new_tokens=9, **options)
        assert [row[0].ids for row in found] == [row[0].ids for row in greedy]


def test_the_model_is_never_overrun() -> None:
    """40 positions, of which the last token takes one as well."""
    model = stored.model("gpt2")
    got = generate_ids(model, torch.full((1, 38), 5), penalty_alpha=0.6, top_k=3, min_new_tokens=9)
    assert len(got[0][0].ids) == 2
