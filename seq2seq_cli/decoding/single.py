"""Strategies that follow one path a row: the shared loop of greedy decoding and sampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from seq2seq_cli.decoding.processors import Context, Processor
from seq2seq_cli.decoding.stepper import Hypothesis, Steps, is_any_of
from seq2seq_cli.decoding.stop import Stop

#: scores [R, V] after the processors, the original number of each row [R], the step -> tokens [R]
Choose = Callable[[Tensor, Tensor, int], Tensor]


def follow(
    stepper: Steps,
    scores: Tensor,
    prompt: Tensor,
    visible: Tensor | None,
    *,
    choose: Choose,
    processors: Sequence[Processor],
    eos: tuple[int, ...],
    stop: Stop | None,
    limits: Tensor,
    length_penalty: float,
    with_scores: bool,
    token_scores: bool = False,
) -> list[Hypothesis]:
    """Extend each prompt [R, P] token by token until eos, a stop text or its limit [R].

    scores [R, V] are those after the prompt. Finished rows leave the batch once an eighth of it is done:
    earlier would copy the cache for little, later would compute rows that nobody needs. Those at their limit
    leave at once, because the model may have no place for another token of theirs.
    """
    rows = torch.arange(prompt.shape[0], device=prompt.device)
    longest = int(limits.max())
    tokens = prompt.new_zeros(prompt.shape[0], longest)
    lengths = torch.zeros_like(rows)
    sums = torch.zeros(prompt.shape[0], device=prompt.device)
    logs = sums.new_zeros(prompt.shape[0], longest if token_scores else 0)
    history, done = prompt, torch.zeros_like(rows, dtype=torch.bool)
    for step in range(longest):
        context = Context(tokens=history, visible=visible, rows=rows, new_tokens=step, limits=limits[rows])
        for process in processors:
            process(scores, context)
        chosen = choose(scores, rows, step)
        live = rows[~done]
        tokens[rows, step] = chosen
        lengths[live] += 1
        if with_scores:
            # one pass over the vocabulary; gather minus logsumexp takes five times as long
            picked = -F.cross_entropy(scores, chosen, reduction="none")
            sums[live] += picked[~done].to(sums.dtype)
            if token_scores:
                logs[rows, step] = picked.to(logs.dtype)
        history = torch.cat([history, chosen[:, None]], dim=1)
        if visible is not None:
            visible = torch.cat([visible, visible.new_ones(visible.shape[0], 1)], dim=1)
        spent = limits[rows] <= step + 1
        done = done | is_any_of(chosen, eos) | spent
        if stop is not None:
            done = done | stop.hits(history, visible)
        finished = int(done.sum())
        if finished == done.shape[0]:
            break
        if finished * 8 >= done.shape[0] or bool(spent.any()):
            kept = (~done).nonzero()[:, 0]
            stepper.select(kept, sources=kept)
            rows, history, chosen, done = rows[kept], history[kept], chosen[kept], done[kept]
            visible = None if visible is None else visible[kept]
        scores = stepper.step(chosen)
    means = sums / lengths.clamp(min=1).float() ** length_penalty
    found = zip(tokens.tolist(), lengths.tolist(), means.tolist(), logs.tolist(), strict=True)
    return [
        Hypothesis(ids=row[:length], score=score, token_scores=each[:length] if token_scores else None)
        for row, length, score, each in found
    ]
