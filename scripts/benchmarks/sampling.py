"""One step of sampling, without a model: s2s and transformers in turn, on the same scores.

PYTHONPATH=scripts python -m benchmarks.sampling
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

ROWS, VOCABULARY, WRITTEN, PAIRS = 64, 50257, 40, 9
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


def main() -> None:
    """Print milliseconds a step and the ratio, the median of the pairs, for each set of options."""
    import torch

    torch.manual_seed(0)
    scores = torch.randn(ROWS, VOCABULARY) * 3
    tokens = torch.randint(0, VOCABULARY, (ROWS, WRITTEN))
    for options in OPTIONS:
        programs = [ours(options, tokens), theirs(options, tokens)]
        pairs = [[_seconds(step, scores) for step in programs] for _ in range(PAIRS)]
        ratio = median(peer / own for own, peer in pairs)
        own, peer = (1000 * median(column) for column in zip(*pairs, strict=True))
        print(f"{options}: {own:.1f} and {peer:.1f} ms, {ratio:.1f} times")


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
    limits = torch.full((ROWS,), WRITTEN)
    context = Context(tokens=tokens, visible=None, rows=rows, new_tokens=1, limits=limits)

    def step(scores: Any) -> object:
        for process in processors:
            process(scores, context)
        return sampler(scores, rows, 0)

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


if __name__ == "__main__":
    main()
