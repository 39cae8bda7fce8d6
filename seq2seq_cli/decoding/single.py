"""Strategies that follow one path a row: the shared loop of greedy decoding and sampling."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from seq2seq_cli.decoding.processors import Context
from seq2seq_cli.decoding.search import Search
from seq2seq_cli.decoding.stepper import Hypothesis, is_any_of

#: scores [R, V] after the processors, the original number of each row [R], its step [R] -> tokens [R]
Choose = Callable[[Tensor, Tensor, Tensor], Tensor]


def follow(search: Search, *, choose: Choose, with_scores: bool) -> list[Hypothesis]:
    """Extend each prompt token by token until eos, a stop text or its limit.

    Finished rows leave the batch once an eighth of it is done:
    earlier would copy the cache for little, later would compute rows that nobody needs. Those at their limit
    leave at once, because the model may have no place for another token of theirs.
    """
    stepper, decoding, limits, longest = search.stepper, search.decoding, search.limits, search.longest
    scores, prompt, visible = search.scores, search.prompt, search.visible
    rows = torch.arange(prompt.shape[0], device=prompt.device)
    tokens = prompt.new_zeros(prompt.shape[0], longest)
    lengths = torch.zeros_like(rows)
    sums = torch.zeros(prompt.shape[0], device=prompt.device)
    logs = sums.new_zeros(prompt.shape[0], longest if search.token_scores else 0)
    history, done = prompt, torch.zeros_like(rows, dtype=torch.bool)
    for step in range(longest):
        context = Context(tokens=history, visible=visible, rows=rows, new_tokens=step, limits=limits[rows])
        for process in search.processors:
            process(scores, context)
        chosen = choose(scores, rows, torch.full_like(rows, step))
        live = rows[~done]
        tokens[rows, step] = chosen
        lengths[live] += 1
        if with_scores:
            # one pass over the vocabulary; gather minus logsumexp takes five times as long
            picked = -F.cross_entropy(scores, chosen, reduction="none")
            sums[live] += picked[~done].to(sums.dtype)
            if search.token_scores:
                logs[rows, step] = picked.to(logs.dtype)
        history = torch.cat([history, chosen[:, None]], dim=1)
        if visible is not None:
            visible = torch.cat([visible, visible.new_ones(visible.shape[0], 1)], dim=1)
        spent = limits[rows] <= step + 1
        done = done | is_any_of(chosen, decoding.eos) | spent
        if decoding.stop is not None:
            done = done | decoding.stop.hits(history, visible)
        finished = int(done.sum())
        if finished == done.shape[0]:
            break
        if finished * 8 >= done.shape[0] or bool(spent.any()):
            kept = (~done).nonzero()[:, 0]
            stepper.select(kept, sources=kept)
            rows, history, chosen, done = rows[kept], history[kept], chosen[kept], done[kept]
            visible = None if visible is None else visible[kept]
        scores = stepper.step(chosen)
    means = sums / lengths.clamp(min=1).float() ** decoding.length_penalty
    found = zip(tokens.tolist(), lengths.tolist(), means.tolist(), logs.tolist(), strict=True)
    return [
        Hypothesis(ids=row[:length], score=score, token_scores=each[:length] if search.token_scores else None)
        for row, length, score, each in found
    ]
