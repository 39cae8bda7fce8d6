"""Beam search, step by step as transformers 5 does it (same candidates, same scores, same stopping rule).

A row keeps W running beams and the W best finished ones. It stops when

- early_stopping true: W beams are finished;
- false: the best running beam, scored at its present length, is no better than the worst finished one
  (a heuristic when a positive length penalty could still lift it);
- "never": no running beam can win even at the best length that is possible, which never stops too early
  under a positive length penalty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seq2seq_cli.decoding.options import Decoding
from seq2seq_cli.decoding.processors import Context, Processor
from seq2seq_cli.decoding.stepper import Hypothesis, Steps, is_any_of
from seq2seq_cli.decoding.stop import Stop

#: stands for "impossible" in sums of scores; -inf would turn into NaN
_LOW = -1.0e9


@dataclass(kw_only=True)
class _Beams:
    """State of the rows that are still searched; B rows, W beams, L tokens at most."""

    rows: Tensor  # [B] original numbers
    tokens: Tensor  # [B, W, L] of the running beams
    scores: Tensor  # [B, W] sums of log-probabilities
    best_tokens: Tensor  # [B, W, L] of the finished ones
    best_scores: Tensor  # [B, W] length-normalised
    best_lengths: Tensor  # [B, W]
    finished: Tensor  # [B, W] bool: this slot holds a finished beam
    can_improve: Tensor  # [B] bool

    def select(self, kept: Tensor) -> None:
        """Keep these rows only."""
        for name, value in vars(self).items():
            setattr(self, name, value[kept])


def beam_search(
    stepper: Steps,
    scores: Tensor,
    prompt: Tensor,
    visible: Tensor | None,
    *,
    decoding: Decoding,
    processors: Sequence[Processor],
    limits: Tensor,
) -> list[list[Hypothesis]]:
    """The ``num_return_sequences`` best hypotheses of each prompt [B, P], the best first.

    scores [B, V] are those after the prompt; limits [B] the most new tokens a row may have.
    """
    batch, width, device = prompt.shape[0], decoding.num_beams, prompt.device
    longest = int(limits.max())
    state = _Beams(
        rows=torch.arange(batch, device=device),
        tokens=prompt.new_zeros(batch, width, longest),
        scores=torch.tensor([0.0] + [_LOW] * (width - 1), device=device).repeat(batch, 1),
        best_tokens=prompt.new_zeros(batch, width, longest),
        best_scores=torch.full((batch, width), _LOW, device=device),
        best_lengths=prompt.new_zeros(batch, width),
        finished=torch.zeros(batch, width, dtype=torch.bool, device=device),
        can_improve=torch.ones(batch, dtype=torch.bool, device=device),
    )
    beams = torch.arange(batch, device=device).repeat_interleave(width)
    stepper.select(beams)
    scores = scores[beams]
    results: list[list[Hypothesis]] = [[] for _ in range(batch)]
    for step in range(longest):
        context = Context(
            tokens=torch.cat([prompt[beams], state.tokens.flatten(0, 1)[:, :step]], dim=1),
            visible=_visible(visible, beams, step),
            rows=beams,
            new_tokens=step,
            limits=limits[beams],
        )
        origins = _advance(state, scores, context, processors, decoding, step=step, limits=limits[state.rows])
        done = ~state.can_improve | (limits[state.rows] <= step + 1)
        if decoding.early_stopping is True:
            done = done | state.finished.all(1)
        kept = (~done).nonzero()[:, 0]
        gone = done.nonzero()[:, 0]
        for row in gone.tolist():
            results[int(state.rows[row])] = _hypotheses(state, row, decoding.num_return_sequences)
        if kept.numel() == 0:
            break
        rows = (torch.arange(done.shape[0], device=device)[:, None] * width + origins)[kept].flatten()
        stepper.select(rows, sources=kept if gone.numel() else None)
        if gone.numel():
            state.select(kept)
            beams = state.rows.repeat_interleave(width)
        scores = stepper.step(state.tokens[:, :, step].flatten())
    return results


def _visible(visible: Tensor | None, beams: Tensor, step: int) -> Tensor | None:
    if visible is None:
        return None
    return torch.cat([visible[beams], visible.new_ones(beams.shape[0], step)], dim=1)


def _advance(
    state: _Beams,
    scores: Tensor,
    context: Context,
    processors: Sequence[Processor],
    decoding: Decoding,
    *,
    step: int,
    limits: Tensor,
) -> Tensor:
    """One step of all rows; returns which beam each running beam came from [B, W]."""
    batch, width = state.scores.shape
    candidates = max(2, 1 + len(decoding.eos)) * width
    values, ids = _best_per_beam(scores, context, processors, min(candidates, scores.shape[-1]))
    per_beam = values.shape[-1]
    total = (values.view(batch, width, per_beam) + state.scores[:, :, None]).flatten(1)
    total, place = total.topk(min(candidates, total.shape[1]), dim=1)
    origins = place // per_beam
    chosen = ids.view(batch, -1).gather(1, place)
    tokens = state.tokens.gather(1, origins[:, :, None].expand(-1, -1, state.tokens.shape[-1]))
    tokens[:, :, step] = chosen
    ends = is_any_of(chosen, decoding.eos) | (limits <= step + 1)[:, None]
    if decoding.stop is not None:
        ends = ends | _stops(decoding.stop, context, width, origins, tokens[:, :, : step + 1])
    _finish(state, total, tokens, ends, decoding, step=step)
    running, order = (total + ends * _LOW).topk(width, dim=1)
    state.tokens = tokens.gather(1, order[:, :, None].expand(-1, -1, tokens.shape[-1]))
    state.scores = running
    _check_improvement(state, decoding, step=step, limits=limits)
    return origins.gather(1, order)


def _stops(stop: Stop, context: Context, width: int, origins: Tensor, written: Tensor) -> Tensor:
    """bool [B, C]: which candidates, written [B, C, step + 1], complete a stop text."""
    batch, candidates = written.shape[:2]
    beams = (torch.arange(batch, device=origins.device)[:, None] * width + origins).flatten()
    prompt = context.tokens[beams, : context.tokens.shape[1] - context.new_tokens]
    visible = context.visible
    if visible is not None:
        visible = torch.cat([visible[beams], visible.new_ones(len(beams), 1)], dim=1)
    return stop.hits(torch.cat([prompt, written.flatten(0, 1)], dim=1), visible).view(batch, candidates)


def _best_per_beam(
    scores: Tensor, context: Context, processors: Sequence[Processor], count: int
) -> tuple[Tensor, Tensor]:
    """The ``count`` likeliest next tokens of each beam with their log-probabilities, both [B * W, count].

    Processors see log-probabilities, as in transformers' beam search; without any, the normaliser is
    subtracted from the few that are kept instead of from the whole vocabulary.
    """
    if not processors:
        values, ids = scores.topk(count, dim=-1)
        return values - scores.logsumexp(-1, keepdim=True), ids
    scores = scores.log_softmax(-1)
    for process in processors:
        process(scores, context)
    values, ids = scores.topk(count, dim=-1)
    return values.clamp(min=_LOW), ids


def _finish(
    state: _Beams, total: Tensor, tokens: Tensor, ends: Tensor, decoding: Decoding, *, step: int
) -> None:
    """Let candidates that end join the finished beams where they are better; only the W best count."""
    width = state.scores.shape[1]
    top = torch.arange(total.shape[1], device=total.device) < width
    arrived = ends & top
    closed = ~state.can_improve
    if decoding.early_stopping is True:
        closed = closed | state.finished.all(1)
    value = total / float(step + 1) ** decoding.length_penalty
    value = value + (closed[:, None] | ~arrived) * _LOW
    merged = torch.cat([state.best_scores, value], dim=1)
    state.best_scores, order = merged.topk(width, dim=1)
    lengths = torch.full_like(ends, step + 1, dtype=torch.long)
    state.best_lengths = torch.cat([state.best_lengths, lengths], dim=1).gather(1, order)
    state.finished = torch.cat([state.finished, arrived], dim=1).gather(1, order)
    sequences = torch.cat([state.best_tokens, tokens], dim=1)
    state.best_tokens = sequences.gather(1, order[:, :, None].expand(-1, -1, tokens.shape[-1]))


def _check_improvement(state: _Beams, decoding: Decoding, *, step: int, limits: Tensor) -> None:
    """Can the best running beam of a row still beat its worst finished one?"""
    length = torch.full_like(limits, step + 1)
    if decoding.early_stopping == "never" and decoding.length_penalty > 0:
        length = limits
    possible = state.scores[:, 0] / length.float() ** decoding.length_penalty
    worst = torch.where(state.finished, state.best_scores.amin(1, keepdim=True), _LOW)
    state.can_improve = state.can_improve & (possible[:, None] > worst).any(1)


def _hypotheses(state: _Beams, row: int, count: int) -> list[Hypothesis]:
    tokens, lengths = state.best_tokens[row].tolist(), state.best_lengths[row].tolist()
    scores = state.best_scores[row].tolist()
    return [Hypothesis(ids=tokens[k][: lengths[k]], score=scores[k]) for k in range(count)]
