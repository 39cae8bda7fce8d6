"""Constrained beam search (Post and Vilar 2018, with the candidates and banks of transformers 4): the output
contains given phrases.

Candidates of a step are the likeliest continuations and, of every beam, the tokens that take it on with a
phrase. They are sorted into banks by how much of the phrases they contain, and the next beams taken in turn
from the banks, the fullest first. A beam that lacks a phrase is not finished by eos. At the length limit, as
in transformers, beams that lack one count as well where fewer than ``num_return_sequences`` lack none.

As in transformers, phrases in the prompt count, too. Rows stop by the rules of ``groups``.
"""

from __future__ import annotations

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
    log_probabilities,
    new_beams,
)
from seq2seq_cli.decoding.candidates import FORBIDDEN, Candidates, best_of
from seq2seq_cli.decoding.options import Decoding
from seq2seq_cli.decoding.phrases import Progress, start
from seq2seq_cli.decoding.processors import Context
from seq2seq_cli.decoding.search import Search
from seq2seq_cli.decoding.stepper import Hypothesis


def constrained_beam_search(search: Search) -> list[list[Hypothesis]]:
    """The ``num_return_sequences`` best hypotheses of each row, the best first."""
    stepper, decoding, limits = search.stepper, search.decoding, search.limits
    prompt, batch, width, device = search.prompt, limits.shape[0], decoding.num_beams, limits.device
    state = new_beams(search, width=width)
    shown = torch.ones_like(prompt, dtype=torch.bool) if search.visible is None else search.visible
    nothing = start(decoding.force_words_ids)
    progress = [
        [nothing.add_all(row[mask].tolist())] * width for row, mask in zip(prompt, shown, strict=True)
    ]
    beams = state.rows.repeat_interleave(width)
    stepper.select(beams)
    scores = search.scores[beams]
    results: list[list[Hypothesis]] = [[] for _ in range(batch)]
    for step in range(search.longest):
        context = context_of(state, search, step=step)
        logs = log_probabilities(scores, context, search.processors)
        origins, progress = _advance(
            state, logs, progress, context, decoding, step=step, limits=limits[state.rows]
        )
        done = is_closed(state, decoding) | (limits[state.rows] <= step + 1)
        for row in done.nonzero()[:, 0].tolist():
            results[int(state.rows[row])] = hypotheses(state, row, decoding.num_return_sequences)
        kept = (~done).nonzero()[:, 0]
        if kept.numel() == 0:
            break
        moved = torch.arange(done.shape[0], device=device)[:, None] * width + origins
        is_smaller = kept.shape[0] < done.shape[0]
        stepper.select(moved[kept].flatten(), sources=kept if is_smaller else None)
        if is_smaller:
            state.select(kept)
            progress = [progress[row] for row in kept.tolist()]
        scores = stepper.step(state.written.tokens[:, :, step].flatten())
    return results


def _advance(
    state: Beams,
    logs: Tensor,
    progress: list[list[Progress]],
    context: Context,
    decoding: Decoding,
    *,
    step: int,
    limits: Tensor,
) -> tuple[Tensor, list[list[Progress]]]:
    """One step of all rows by log-probabilities [B * W, V]; returns which beam each running beam came from
    [B, W], and the ``progress`` of each."""
    width = state.scores.shape[1]
    likely = best_of(logs, state.scores, count_of(decoding, width))
    written = state.written.extended(likely, step=step)
    ends = ended(decoding, context, likely, written)
    whole = torch.tensor([[each.is_complete for each in row] for row in progress], device=logs.device)
    values = likely.total.clamp(min=FORBIDDEN)
    finish(state, values, written, ends & whole.gather(1, likely.origins), decoding, step=step)
    check_improvement(state, values[:, 0], decoding, step=step, limits=limits)
    order = values.masked_fill(ends, FREE).topk(width, dim=1).indices
    running, progress = _by_banks(state, likely.take(order), logs, progress, decoding, step=step)
    state.scores, state.written = running.total, state.written.extended(running, step=step)
    whole = torch.tensor([[each.is_complete for each in row] for row in progress], device=logs.device)
    few = whole.sum(1) < decoding.num_return_sequences
    last = (limits <= step + 1)[:, None] & (whole | few[:, None])
    finish(state, state.scores.clamp(min=FORBIDDEN), state.written, last, decoding, step=step)
    return running.origins, progress


def _by_banks(
    state: Beams,
    likeliest: Candidates,
    logs: Tensor,
    progress: list[list[Progress]],
    decoding: Decoding,
    *,
    step: int,
) -> tuple[Candidates, list[list[Progress]]]:
    """The running beams of the next step, from the ``likeliest`` continuations and all that lead on with a
    phrase, and the progress of each."""
    batch, width = state.scores.shape
    longest = max(len(phrase) for alternatives in decoding.force_words_ids for phrase in alternatives)
    kept: list[list[tuple[int, int]]] = []
    behind: list[list[Progress]] = []
    following = logs.view(batch, width, -1)
    origins, chosen = likeliest.origins.tolist(), likeliest.tokens.tolist()
    for row, (beams, words) in enumerate(zip(origins, chosen, strict=True)):
        texts = state.written.tokens[row, :, :step].tolist()
        found = list(zip(beams, words, strict=True))
        states = [progress[row][beam].add(word) for beam, word in found]
        known = {(*texts[beam], word) for beam, word in found}
        for beam, before in enumerate(progress[row]):
            for word, after in before.steps():
                text = (*texts[beam], word)
                if text not in known:
                    known.add(text)
                    found.append((beam, word))
                    states.append(after)
        picked = list(range(width))
        if len(found) > width:
            beam_of, word_of = torch.tensor(found, device=logs.device).unbind(1)
            values = following[row, beam_of, word_of] + state.scores[row, beam_of]
            picked = _in_turn([each.bank(longest) for each in states], values)[:width]
        kept.append([found[number] for number in picked])
        # what a way on counts for is this step's affair: from here on, what stands counts
        behind.append([progress[row][beam].add(word) for beam, word in kept[-1]])
    beams_of, words_of = torch.tensor(kept, device=logs.device).unbind(2)  # [B, W]
    rows = torch.arange(batch, device=logs.device)[:, None]
    running = Candidates(
        total=following[rows, beams_of, words_of] + state.scores.gather(1, beams_of),
        origins=beams_of,
        tokens=words_of,
        logs=logs.view(batch, -1),
        places=beams_of * logs.shape[-1] + words_of,
    )
    return running, behind


def _in_turn(banks: list[int], values: Tensor) -> list[int]:
    """Numbers of candidates, the best of each bank first, then the second best of each, and so on. A bank is
    worth a hundred units of log-probability; where a candidate is that unlikely, a new round begins."""
    worth = torch.tensor(banks, device=values.device) * 100 + values
    order = worth.sort(descending=True).indices.tolist()
    rounds, before = list[int](), -1
    for number in order:
        rounds.append(rounds[-1] + 1 if rounds and banks[number] == before else 0)
        before = banks[number]
    return [order[place] for place in sorted(range(len(order)), key=lambda place: rounds[place])]
