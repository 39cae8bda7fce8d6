"""Diverse beam search (Vijayakumar et al. 2016), step by step as transformers 4 does it.

The beams of a row are split into groups that search one after the other within a step. A group pays for each
token that beams of the groups before it took in this step (Hamming diversity); what it pays stays in its
scores. The outputs are the best of all groups.

A group stops by the rules of beam search (see ``beam``), but compares its finished beams with its best
candidate, ended or not, where plain beam search takes the best running beam.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seq2seq_cli.decoding.beam import (
    FREE,
    Beams,
    check_improvement,
    context_of,
    count_of,
    ended,
    finish,
    hypotheses,
    is_closed,
    likeliest,
    new_beams,
)
from seq2seq_cli.decoding.candidates import Candidates
from seq2seq_cli.decoding.options import Decoding
from seq2seq_cli.decoding.processors import Context, Processor
from seq2seq_cli.decoding.search import Search
from seq2seq_cli.decoding.stepper import Hypothesis


def group_beam_search(search: Search) -> list[list[Hypothesis]]:
    """The ``num_return_sequences`` best hypotheses of each row, the best first."""
    stepper, decoding, limits = search.stepper, search.decoding, search.limits
    batch, device = limits.shape[0], limits.device
    groups, size = decoding.num_beam_groups, decoding.num_beams // decoding.num_beam_groups
    states = [new_beams(search, width=size) for _ in range(groups)]
    rows = torch.arange(batch, device=device)
    beams = rows.repeat_interleave(groups * size)
    stepper.select(beams)
    scores = search.scores[beams]
    results: list[list[Hypothesis]] = [[] for _ in range(batch)]
    for step in range(search.longest):
        origins, words = [], search.prompt.new_empty(rows.shape[0], 0)
        for group, (state, following) in enumerate(zip(states, _split(scores, groups, size), strict=True)):
            context = context_of(state, search, step=step)
            diverse = [_hamming(words, decoding.diversity_penalty)] if group else []
            candidates = likeliest(
                following, state.scores, context, [*diverse, *search.processors], count_of(decoding, size)
            )
            closed = is_closed(state, decoding)
            origins.append(
                group * size + advance(state, candidates, context, decoding, step=step, limits=limits[rows])
            )
            # a group that is done writes padding, and transformers counts that as its words
            written = state.written.tokens[:, :, step].masked_fill(closed[:, None], decoding.pad)
            words = torch.cat([words, written], dim=1)
        done = (limits[rows] <= step + 1) | torch.stack([is_closed(s, decoding) for s in states]).all(0)
        for row in done.nonzero()[:, 0].tolist():
            found = [hypothesis for state in states for hypothesis in hypotheses(state, row, size)]
            found.sort(key=lambda hypothesis: -hypothesis.score)
            results[int(rows[row])] = found[: decoding.num_return_sequences]
        kept = (~done).nonzero()[:, 0]
        if kept.numel() == 0:
            break
        moved = torch.arange(rows.shape[0], device=device)[:, None] * (groups * size) + torch.cat(origins, 1)
        is_smaller = kept.shape[0] < rows.shape[0]
        stepper.select(moved[kept].flatten(), sources=kept if is_smaller else None)
        if is_smaller:
            rows = rows[kept]
            for state in states:
                state.select(kept)
        last = [state.written.tokens[:, :, step] for state in states]
        scores = stepper.step(torch.cat(last, dim=1).flatten())
    return results


def _split(scores: Tensor, groups: int, size: int) -> Sequence[Tensor]:
    """Scores [B * groups * size, V] -> those of each group [B * size, V]."""
    return [each.flatten(0, 1) for each in scores.view(-1, groups, size, scores.shape[-1]).unbind(1)]


def _hamming(words: Tensor, penalty: float) -> Processor:
    """Take off ``penalty`` for each time that a token stands in ``words`` [B, N]."""

    def process(scores: Tensor, context: Context) -> None:
        size = scores.shape[0] // words.shape[0]
        taken_off = scores.new_full(words.shape, -penalty)
        counted = scores.new_zeros(words.shape[0], scores.shape[1]).scatter_add_(1, words, taken_off)
        scores += counted.repeat_interleave(size, dim=0)

    return process


def advance(
    state: Beams,
    candidates: Candidates,
    context: Context,
    decoding: Decoding,
    *,
    step: int,
    limits: Tensor,
) -> Tensor:
    """One step of all rows; returns which beam each running beam came from [B, W]. Beams that are still
    running at their limit [B] are finished there, unless the row was done before."""
    total = candidates.total
    written = state.written.extended(candidates, step=step)
    ends = ended(decoding, context, candidates, written)
    finish(state, total, written, ends, decoding, step=step)
    check_improvement(state, total[:, 0], decoding, step=step, limits=limits)
    order = total.masked_fill(ends, FREE).topk(state.scores.shape[1], dim=1).indices
    state.scores = total.gather(1, order)
    state.written = written.take(order)
    last = (limits <= step + 1)[:, None].expand(state.scores.shape)
    finish(state, state.scores, state.written, last, decoding, step=step)
    return candidates.origins.gather(1, order)
