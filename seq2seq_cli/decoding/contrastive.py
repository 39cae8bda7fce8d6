"""Contrastive search (Su et al. 2022, eq. 5): of the k likeliest tokens, the one that is likely and unlike
what stands there already.

A candidate's value is (1 - alpha) * its probability - alpha * the largest cosine between its last hidden
state and those of the tokens before it (prompt and start id included, padding not). The candidates of a row
are k rows of the decoder, as beams are, that go on from the winner.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from seq2seq_cli.decoding.options import Decoding
from seq2seq_cli.decoding.processors import Context
from seq2seq_cli.decoding.search import Search
from seq2seq_cli.decoding.stepper import Hypothesis, Stepper, is_any_of


def contrastive_search(search: Search) -> list[list[Hypothesis]]:
    """One hypothesis of each row, with the mean log-probability of its tokens.

    Every new token takes a position of the decoder, the last one too, because candidates are read before they
    are chosen.
    """
    stepper, decoding, limits, prompt = search.stepper, search.decoding, search.limits, search.prompt
    assert isinstance(stepper, Stepper)  # others are refused: their tokens have no lasting states
    scores, visible, longest = search.scores, search.visible, search.longest
    batch, device = prompt.shape[0], prompt.device
    width = min(decoding.top_k, scores.shape[-1])
    rows = torch.arange(batch, device=device)
    history, shown = prompt, torch.ones_like(prompt, dtype=torch.bool) if visible is None else visible
    before = F.normalize(stepper.states, dim=-1)  # [B, L, D] of all tokens so far
    written, lengths, sums = prompt.new_zeros(batch, longest), torch.zeros_like(rows), scores.new_zeros(batch)
    told = sums.new_zeros(batch, longest if search.token_scores else 0)
    stepper.select(rows.repeat_interleave(width))
    for step in range(longest):
        context = Context(
            tokens=history,
            visible=None if visible is None else shown,
            rows=rows,
            new_tokens=step,
            limits=limits[rows],
        )
        for process in search.processors:
            process(scores, context)
        logs, candidates = scores.log_softmax(-1).topk(width, dim=-1)
        states = stepper.look(candidates.flatten()).view(-1, width, before.shape[-1])
        winner = _merit(logs, states, before, shown, decoding).argmax(-1, keepdim=True)
        chosen = candidates.gather(1, winner)
        written[rows, step] = chosen[:, 0]
        lengths[rows] += 1
        picked = logs.gather(1, winner)[:, 0]
        sums[rows] += picked
        if search.token_scores:
            told[rows, step] = picked
        history = torch.cat([history, chosen], dim=1)
        shown = torch.cat([shown, shown.new_ones(shown.shape[0], 1)], dim=1)
        done = is_any_of(chosen[:, 0], decoding.eos) | (limits[rows] <= step + 1)
        if decoding.stop is not None:
            done = done | decoding.stop.hits(history, shown)
        kept = (~done).nonzero()[:, 0]
        if kept.numel() == 0:
            break
        winner = winner[kept, 0]
        is_smaller = kept.shape[0] < rows.shape[0]
        stepper.select((kept * width + winner).repeat_interleave(width), sources=kept if is_smaller else None)
        states = states[kept, winner]
        before = torch.cat([before[kept], F.normalize(states, dim=-1)[:, None]], dim=1)
        history, shown = history[kept], shown[kept]
        rows, scores = rows[kept], stepper.scores(states)
    means = sums / lengths.float() ** decoding.length_penalty
    found = zip(written.tolist(), lengths.tolist(), means.tolist(), told.tolist(), strict=True)
    return [
        [Hypothesis(ids=ids[:size], score=score, token_scores=each[:size] if search.token_scores else None)]
        for ids, size, score, each in found
    ]


def _merit(logs: Tensor, states: Tensor, before: Tensor, shown: Tensor, decoding: Decoding) -> Tensor:
    """The values of candidates, all [B, k], by their log-probabilities and states [B, k, D]; before [B, L, D]
    are the states, of length 1, of the tokens that stand there, where they are ``shown`` [B, L]."""
    likeness = F.normalize(states, dim=-1) @ before.transpose(1, 2)  # [B, k, L]
    likeness = likeness.masked_fill(~shown[:, None], -1.0).amax(-1)
    alpha = decoding.penalty_alpha
    merit = (1 - alpha) * logs.exp() - alpha * likeness
    if decoding.language is not None:
        # in transformers what is forbidden may win by being unlike the rest; no grammar allows that
        merit = merit.masked_fill(logs.isinf(), -2.0)
    return merit
