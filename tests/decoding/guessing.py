"""What tests of guesses share: outputs with them are the outputs without."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from seq2seq_cli.decoding import Hypothesis, resolve_options, run
from seq2seq_cli.decoding.draft import Draft
from seq2seq_cli.model import Stack
from tests import tiny

PROCESSORS: list[dict[str, Any]] = [
    {},
    {"repetition_penalty": 1.4},
    {"repetition_penalty": 0.6},
    {"encoder_repetition_penalty": 1.5},
    {"no_repeat_ngram_size": 2},
    {"encoder_no_repeat_ngram_size": 2},
    {"min_new_tokens": 9},
    {"min_length": 12},
    {"forced_eos_token_id": 2, "forced_bos_token_id": 7},
    {"exponential_decay_length_penalty": (4, 1.3)},
    {"begin_suppress_tokens": [5, 6, 7, 8], "suppress_tokens": [9, 10, 11]},
    {"bad_words_ids": [[12], [5, 6]], "sequence_bias": [[[20, 21], 3.0]]},
    {"length_penalty": 0.0, "max_new_tokens": 1},
    {"max_length": 17, "max_new_tokens": None},
]
SAMPLING: list[dict[str, Any]] = [
    {"do_sample": True, "seed": 3},
    {"top_k": 7, "temperature": 1.4, "seed": 5},
    {"top_p": 0.9, "min_p": 0.01, "typical_p": 0.95, "seed": 6},
]


def rows(count: int = 12) -> list[list[int]]:
    """Sources or prompts of unequal length, with pieces that come again."""
    generator = torch.Generator().manual_seed(4)
    lengths = torch.randint(1, 12, (count,), generator=generator).tolist()
    return [torch.randint(3, 40, (n,), generator=generator).tolist() for n in lengths]


def decode(
    model: Any,
    sources: list[list[int]],
    options: dict[str, Any],
    *,
    hints: Any = None,
    draft: Any = None,
    left: bool = False,
    keys: Any = None,
) -> list[Hypothesis]:
    """The outputs of a batch, those of one source behind one another; ``hints``: the texts that guesses come
    from."""
    wanted = {"max_new_tokens": 24, "eos_token_id": [2, 13, 27], **options}
    if draft is not None:
        wanted["draft_model"] = "draft"
    else:
        wanted.pop("draft_tokens", None)
    decoding = resolve_options(wanted, model.generation, model.special_ids)
    ids, mask = tiny.padded(sources, pad=11, left=left)
    found = run(
        model,
        ids,
        mask,
        decoding,
        keys=keys,
        source=None if hints is None else tiny.padded(hints, left=left),
        draft=None if draft is None else Draft(model=draft, ids=ids, mask=mask),
        token_scores=True,
    )
    return [each for row in found for each in row]


def same(found: list[Hypothesis], expected: list[Hypothesis]) -> None:
    assert [h.ids for h in found] == [h.ids for h in expected]
    assert [h.score for h in found] == pytest.approx([h.score for h in expected], rel=1e-5, abs=1e-5)
    for one, other in zip(found, expected, strict=True):
        assert one.token_scores == pytest.approx(other.token_scores, rel=1e-4, abs=1e-5)


def widths(passes: list[tuple[Stack, int]], model: Any) -> list[int]:
    """How many tokens a row each pass of the model's decoder took in."""
    writer = model if isinstance(model, Stack) else model.decoder
    return [width for stack, width in passes if stack is writer]
