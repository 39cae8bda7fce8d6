"""Beam search, step by step as transformers 5 does it (same candidates, same scores, same stopping rule).

A row keeps W running beams and the W best finished ones. It stops when

- early_stopping true: W beams are finished;
- false: the best running beam, scored at its present length, is no better than the worst finished one
  (a heuristic when a positive length penalty could still lift it);
- "never": no running beam can win even at the best length that is possible, which never stops too early
  under a positive length penalty.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seq2seq_cli.decoding.candidates import FORBIDDEN, Candidates, Written, best_of, nothing_written
from seq2seq_cli.decoding.largest import largest, normaliser
from seq2seq_cli.decoding.options import Decoding
from seq2seq_cli.decoding.processors import Context, Processor
from seq2seq_cli.decoding.search import Search
from seq2seq_cli.decoding.stepper import Hypothesis, is_any_of

#: the sum of beams that do not count: those that have ended, and copies of the first one at the start
LOW = -1.0e9
#: the score of a place among the finished beams that is still free: below that of every beam
FREE = torch.finfo(torch.float32).min
#: log-probabilities [B * W, V], sums of the running beams [B, W], original numbers [B], the step
Draw = Callable[[Tensor, Tensor, Tensor, int], Candidates]


@dataclass(kw_only=True)
class Beams:
    """State of the rows that are still searched; B rows, W beams, L tokens at most."""

    rows: Tensor  # [B] original numbers
    written: Written  # by the running beams
    scores: Tensor  # [B, W] sums of log-probabilities
    best: Written  # by the finished ones
    best_scores: Tensor  # [B, W] length-normalised
    best_lengths: Tensor  # [B, W]
    finished: Tensor  # [B, W] bool: this slot holds a finished beam
    can_improve: Tensor  # [B] bool

    def select(self, kept: Tensor) -> None:
        """Keep these rows only."""
        for name, value in vars(self).items():
            setattr(self, name, value[kept])


def new_beams(search: Search, *, width: int) -> Beams:
    """The beams before the first step: one alone counts, because all are alike."""
    prompt = search.prompt
    batch, device = prompt.shape[0], prompt.device
    nothing = nothing_written(prompt, width=width, longest=search.longest, token_scores=search.token_scores)
    return Beams(
        rows=torch.arange(batch, device=device),
        written=nothing,
        scores=torch.tensor([0.0] + [LOW] * (width - 1), device=device).repeat(batch, 1),
        best=nothing,
        best_scores=torch.full((batch, width), FREE, device=device),
        best_lengths=prompt.new_zeros(batch, width),
        finished=torch.zeros(batch, width, dtype=torch.bool, device=device),
        can_improve=torch.ones(batch, dtype=torch.bool, device=device),
    )


def beam_search(search: Search, *, draw: Draw | None = None) -> list[list[Hypothesis]]:
    """The ``num_return_sequences`` best hypotheses of each row, the best first. ``draw`` picks the candidates
    of each step instead of taking the likeliest."""
    stepper, decoding, limits = search.stepper, search.decoding, search.limits
    batch, width, device = limits.shape[0], decoding.num_beams, limits.device
    state = new_beams(search, width=width)
    beams = torch.arange(batch, device=device).repeat_interleave(width)
    stepper.select(beams)
    scores = search.scores[beams]
    results: list[list[Hypothesis]] = [[] for _ in range(batch)]
    for step in range(search.longest):
        context = context_of(state, search, step=step)
        if draw is None:
            count = count_of(decoding, width)
            candidates = likeliest(scores, state.scores, context, search.processors, count)
        else:
            logs = log_probabilities(scores, context, search.processors)
            candidates = draw(logs, state.scores, state.rows, step)
        origins = _advance(state, candidates, context, decoding, step=step, limits=limits[state.rows])
        done = is_closed(state, decoding) | (limits[state.rows] <= step + 1)
        kept = (~done).nonzero()[:, 0]
        gone = done.nonzero()[:, 0]
        for row in gone.tolist():
            results[int(state.rows[row])] = hypotheses(state, row, decoding.num_return_sequences)
        if kept.numel() == 0:
            break
        rows = (torch.arange(done.shape[0], device=device)[:, None] * width + origins)[kept].flatten()
        stepper.select(rows, sources=kept if gone.numel() else None)
        if gone.numel():
            state.select(kept)
        scores = stepper.step(state.written.tokens[:, :, step].flatten())
    return results


def context_of(state: Beams, search: Search, *, step: int) -> Context:
    """What processors may look at: the prompts, and what the running beams wrote behind them."""
    tokens, visible = state.written.tokens, search.visible
    beams = state.rows.repeat_interleave(tokens.shape[1])
    if visible is not None:
        visible = torch.cat([visible[beams], visible.new_ones(beams.shape[0], step)], dim=1)
    return Context(
        tokens=torch.cat([search.prompt[beams], tokens.flatten(0, 1)[:, :step]], dim=1),
        visible=visible,
        rows=beams,
        new_tokens=step,
        limits=search.limits[beams],
    )


def _advance(
    state: Beams,
    candidates: Candidates,
    context: Context,
    decoding: Decoding,
    *,
    step: int,
    limits: Tensor,
) -> Tensor:
    """One step of all rows; returns which beam each running beam came from [B, W]."""
    written = state.written.extended(candidates, step=step)
    ends = ended(decoding, context, candidates, written) | (limits <= step + 1)[:, None]
    finish(state, candidates.total, written, ends, decoding, step=step)
    running, order = (candidates.total + ends * LOW).topk(state.scores.shape[1], dim=1)
    state.written = written.take(order)
    state.scores = running
    check_improvement(state, running[:, 0], decoding, step=step, limits=limits)
    return candidates.origins.gather(1, order)


def ended(decoding: Decoding, context: Context, candidates: Candidates, written: Written) -> Tensor:
    """bool [B, n]: which candidates, with what is ``written`` then, end with eos or complete a stop text."""
    ends = is_any_of(candidates.tokens, decoding.eos)
    if decoding.stop is None:
        return ends
    batch = ends.shape[0]
    width = context.tokens.shape[0] // batch
    beams = (torch.arange(batch, device=ends.device)[:, None] * width + candidates.origins).flatten()
    prompt = context.tokens[beams, : context.tokens.shape[1] - context.new_tokens]
    visible = context.visible
    if visible is not None:
        visible = torch.cat([visible[beams], visible.new_ones(len(beams), 1)], dim=1)
    whole = torch.cat([prompt, written.tokens.flatten(0, 1)[:, : context.new_tokens + 1]], dim=1)
    return ends | decoding.stop.hits(whole, visible).view_as(ends)


def count_of(decoding: Decoding, width: int) -> int:
    """How many candidates leave ``width`` beams to go on with, however many of them end."""
    return max(2, 1 + len(decoding.eos)) * width


def log_probabilities(scores: Tensor, context: Context, processors: Sequence[Processor]) -> Tensor:
    """Scores [B * W, V] -> log-probabilities, then processed: the order of transformers' beam search. In
    place."""
    scores -= normaliser(scores)
    for process in processors:
        process(scores, context)
    return scores


def likeliest(
    scores: Tensor, running: Tensor, context: Context, processors: Sequence[Processor], count: int
) -> Candidates:
    """The ``count`` best next tokens of the beams ``running`` [B, W] by the scores [B * W, V] that follow.

    Without processors, the normaliser is subtracted from the few that are kept instead of from the whole
    vocabulary.
    """
    per_beam = min(count, scores.shape[-1])
    if processors:
        values, ids = largest(log_probabilities(scores, context, processors), per_beam)
        values = values.clamp(min=FORBIDDEN)
    else:
        values, ids = largest(scores, per_beam)
        values = values - normaliser(scores)
    return best_of(values, running, count, ids=ids)


def finish(
    state: Beams, total: Tensor, written: Written, ends: Tensor, decoding: Decoding, *, step: int
) -> None:
    """Let candidates that end join the finished beams where they are better; only the W best count."""
    width = state.scores.shape[1]
    top = torch.arange(total.shape[1], device=total.device) < width
    arrived = ends & top
    closed = is_closed(state, decoding)
    value = total / float(step + 1) ** decoding.length_penalty
    value = value.masked_fill(closed[:, None] | ~arrived, FREE)
    merged = torch.cat([state.best_scores, value], dim=1)
    state.best_scores, order = merged.topk(width, dim=1)
    lengths = torch.full_like(ends, step + 1, dtype=torch.long)
    state.best_lengths = torch.cat([state.best_lengths, lengths], dim=1).gather(1, order)
    state.finished = torch.cat([state.finished, arrived], dim=1).gather(1, order)
    state.best = state.best.beside(written).take(order)


def is_closed(state: Beams, decoding: Decoding) -> Tensor:
    """bool [B]: no beam can join the finished ones of a row any more."""
    if decoding.early_stopping is True:
        return ~state.can_improve | state.finished.all(1)
    return ~state.can_improve


def check_improvement(state: Beams, best: Tensor, decoding: Decoding, *, step: int, limits: Tensor) -> None:
    """Can the ``best`` [B] sum of log-probabilities of a row still beat its worst finished beam?"""
    length = torch.full_like(limits, step + 1)
    if decoding.early_stopping == "never" and decoding.length_penalty > 0:
        length = limits
    possible = best / length.float() ** decoding.length_penalty
    worst = torch.where(state.finished, state.best_scores.amin(1, keepdim=True), FREE)
    state.can_improve = state.can_improve & (possible[:, None] > worst).any(1)


def hypotheses(state: Beams, row: int, count: int) -> list[Hypothesis]:
    """The ``count`` best of a row, by its number among those that are still searched."""
    tokens, lengths = state.best.tokens[row].tolist(), state.best_lengths[row].tolist()
    scores = state.best_scores[row].tolist()
    logs = None if state.best.logs is None else state.best.logs[row].tolist()
    return [
        Hypothesis(
            ids=tokens[k][: lengths[k]],
            score=scores[k],
            token_scores=None if logs is None else logs[k][: lengths[k]],
        )
        for k in range(count)
    ]
