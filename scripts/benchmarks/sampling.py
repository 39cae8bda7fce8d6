"""One step of sampling, without a model: s2s and transformers in turn, on the same scores."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import Row, in_turn, speedup
from benchmarks.workload import Size

ROWS, VOCABULARY, WRITTEN = 64, 50257, 40
OPTIONS: list[dict[str, Any]] = [
    {"temperature": 0.8, "top_k": 50, "top_p": 0.9, "repetition_penalty": 1.2},
    {},
    {"top_k": 50},
    {"top_p": 0.9},
    {"min_p": 0.05},
    {"typical_p": 0.9},
    {"epsilon_cutoff": 3e-4},
    {"eta_cutoff": 3e-4},
]


def sampling_rows(
    folder: Path, size: Size, *, peer: str, pairs: int, threads: int, limits: dict[str, float]
) -> Iterator[Row]:
    """Milliseconds a step for each set of options, of 64 rows of a vocabulary of 50,257 whatever the size."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    scores = torch.randn(ROWS, VOCABULARY) * 3
    tokens = torch.randint(0, VOCABULARY, (ROWS, WRITTEN))
    for options in OPTIONS:
        step, other = ours(options, tokens), theirs(options, tokens)
        _seconds(step, scores), _seconds(other, scores)
        own, peers = in_turn(partial(_seconds, step, scores), partial(_seconds, other, scores), pairs)
        yield Row(
            name=" ".join(f"{name}={value}" for name, value in options.items()) or "no filter",
            unit="ms/step",
            s2s=1000 * median(own),
            peer=1000 * median(peers),
            peer_name=peer,
            speedup=speedup(own, peers),
        )


def ours(options: dict[str, Any], tokens: Any) -> Callable[[Any], object]:
    """A step of s2s: processors, filters, draw."""
    import torch

    from seq2seq_cli.decoding import resolve_options
    from seq2seq_cli.decoding.processors import Context, build_processors
    from seq2seq_cli.decoding.sampling import Sampler
    from seq2seq_cli.model import SpecialIds

    decoding = resolve_options({**options, "do_sample": True}, {}, SpecialIds(eos=(VOCABULARY - 1,)))
    processors = build_processors(decoding, source=(tokens, None), vocab_size=VOCABULARY)
    sampler, rows = Sampler(decoding, keys=range(ROWS), steps=1), torch.arange(ROWS)
    limits, start = torch.full((ROWS,), WRITTEN), torch.zeros_like(rows)
    context = Context(tokens=tokens, visible=None, rows=rows, new_tokens=1, limits=limits)

    def step(scores: Any) -> object:
        for process in processors:
            process(scores, context)
        return sampler(scores, rows, start)

    return step


def theirs(options: dict[str, Any], tokens: Any) -> Callable[[Any], object]:
    """The same of transformers."""
    import torch
    from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=VOCABULARY))
    config = GenerationConfig(do_sample=True, **{"top_k": 0, **options})
    model._prepare_special_tokens(config, True, device="cpu")
    chain = model._get_logits_processor(config, input_ids_seq_length=1)
    return lambda scores: torch.multinomial(chain(tokens, scores).softmax(-1), 1)


def _seconds(step: Callable[[Any], object], scores: Any) -> float:
    own = scores.clone()
    start = time.perf_counter()
    step(own)
    return time.perf_counter() - start
