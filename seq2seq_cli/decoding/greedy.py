"""Greedy decoding: the likeliest next token, always."""

from __future__ import annotations

from torch import Tensor

from seq2seq_cli.decoding.largest import likeliest


def choose_greedily(scores: Tensor, rows: Tensor, step: int) -> Tensor:
    """scores [R, V] -> tokens [R]."""
    return likeliest(scores)
