"""Greedy decoding: the likeliest next token, always."""

from __future__ import annotations

from torch import Tensor

from seq2seq_cli.decoding.largest import likeliest
from seq2seq_cli.decoding.options import Decoding

#: where more may be forbidden, all scores are made
_MOST = 64


def choose_greedily(scores: Tensor, rows: Tensor, steps: Tensor) -> Tensor:
    """scores [R, V] -> tokens [R]."""
    return likeliest(scores)


def needed(decoding: Decoding) -> int | None:
    """How many of a row's largest scores have to be right for greedy decoding: one more than the options can
    forbid. None where it is another strategy, or where options raise tokens or forbid any number of them."""
    if decoding.do_sample or decoding.num_beams > 1 or decoding.penalty_alpha:
        return None
    reweighed = (
        decoding.sequence_bias
        or decoding.encoder_repetition_penalty != 1.0
        or decoding.repetition_penalty != 1.0
        or decoding.no_repeat_ngram_size
        or decoding.encoder_no_repeat_ngram_size
        or decoding.exponential_decay
        or decoding.remove_invalid_values
        or decoding.language is not None
    )
    forbidden = decoding.eos + decoding.suppress_tokens + decoding.begin_suppress_tokens
    count = 1 + len(forbidden) + len(decoding.bad_words_ids)
    return None if reweighed or count > _MOST else count
