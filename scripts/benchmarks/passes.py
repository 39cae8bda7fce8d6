"""What a step of decoding does with a whole vocabulary, without a model: s2s beside plain torch, in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import Row, in_turn, speedup
from benchmarks.workload import Size

#: rows of a batch, and of its beams
BATCH, BEAMS = 64, 256

Pass = Callable[[], Any]


def pass_rows(
    folder: Path, size: Size, *, peer: str, pairs: int, threads: int, limits: dict[str, float]
) -> Iterator[Row]:
    """Milliseconds of each pass: what s2s does, and the torch call that it stands for."""
    import torch

    torch.set_num_threads(threads)
    for name, (ours, plain) in passes(size).items():
        ours(), plain()
        own, other = in_turn(partial(_seconds, ours), partial(_seconds, plain), pairs)
        yield Row(
            name=name,
            unit="ms",
            s2s=1000 * median(own),
            peer=1000 * median(other),
            peer_name=peer,
            speedup=speedup(own, other),
        )


def passes(size: Size) -> dict[str, tuple[Pass, Pass]]:
    """By name: the pass as s2s does it, and as one call of torch does."""
    import torch
    from torch.nn import functional as F

    from seq2seq_cli.decoding.largest import largest, likeliest, normaliser
    from seq2seq_cli.model.head import Room
    from seq2seq_cli.model.shortlist import Shortlist

    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(size.target_vocabulary, size.hidden_size, generator=generator) * 0.02
    states = torch.randn(BEAMS, size.hidden_size, generator=generator)
    scores = states @ weight.t()
    few, one, room, short = states[:BATCH], states[:1], Room(), Shortlist(weight, None)
    likely = torch.inference_mode()(short)

    def whole(rows: Any) -> Pass:
        return lambda: F.linear(rows, weight)

    def in_room() -> Any:
        return torch.mm(states, weight.t(), out=room.of(states, len(weight)))

    return {
        f"normaliser, {BEAMS} rows, beside log_softmax": (
            lambda: normaliser(scores),
            lambda: scores.log_softmax(-1),
        ),
        f"8 likeliest, {BEAMS} rows, beside topk": (lambda: largest(scores, 8), lambda: scores.topk(8)),
        f"the likeliest, {BATCH} rows, beside argmax": (
            lambda: likeliest(scores[:BATCH]),
            lambda: scores[:BATCH].argmax(-1),
        ),
        f"head in memory used again, {BEAMS} rows": (in_room, whole(states)),
        "short list of 2, 1 row, beside the head": (lambda: likely(one, 2), whole(one)),
        f"short list of 2, {BATCH} rows, beside the head": (lambda: likely(few, 2), whole(few)),
    }


def _seconds(run: Pass) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
