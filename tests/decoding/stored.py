"""What old versions of transformers wrote, kept by scripts/make_decoding_references.py."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from seq2seq_cli.checkpoint.bundle import load_bundle
from seq2seq_cli.decoding import Hypothesis, generate_ids
from tests import tiny

FOLDER = Path(__file__).parent / "references"
MODELS = ("bert-gpt2", "t5", "gpt2")


@cache
def model(name: str) -> Any:
    """Our model with the stored weights."""
    return load_bundle(str(FOLDER / name)).model


@cache
def stored(name: str, strategy: str) -> Any:
    return json.loads((FOLDER / name / f"{strategy}.json").read_text(encoding="utf-8"))


def cases(strategy: str) -> list[Any]:
    """(model, options, what was written for each source), for parametrize."""
    return [
        pytest.param(name, case["options"], case["rows"], id=f"{name}-{case['options']}")
        for name in MODELS
        for case in stored(name, strategy)["cases"]
    ]


def check(name: str, strategy: str, options: dict[str, Any], rows: list[Any], *, left: bool = False) -> None:
    """All sources in one batch: what was written for each alone, with the same scores."""
    ids, mask = tiny.padded(stored(name, strategy)["sources"], pad=11, left=left)
    options = {"max_new_tokens": 12, **options}
    got = generate_ids(model(name), ids, mask, **options)
    check_parts(got, generate_ids(model(name), ids, mask, token_scores=True, **options), options)
    eos = options.get("eos_token_id", 2)
    ends = {options.get("pad_token_id", 0), *(eos if isinstance(eos, list) else [eos])}
    for hypotheses, row in zip(got, rows, strict=True):
        assert len(hypotheses) == len(row["ids"])
        for number, (hypothesis, expected) in enumerate(zip(hypotheses, row["ids"], strict=True)):
            score = row["scores"][number] if row["scores"] else hypothesis.score
            if score == -math.inf:  # impossible, as all others are: anything is as good
                assert hypothesis.score < -1e7, hypothesis
                continue
            same(hypothesis, expected, ends)
            assert abs(hypothesis.score - score) < 2e-5 * max(1.0, abs(score)), (hypothesis, score)


def check_parts(got: list[list[Hypothesis]], told: list[list[Hypothesis]], options: dict[str, Any]) -> None:
    """``told`` is ``got`` with the scores of tokens, which add up to those of the whole."""
    for row, same_row in zip(got, told, strict=True):
        assert [(one.ids, one.score) for one in row] == [(one.ids, one.score) for one in same_row]
        for plain, one in zip(row, same_row, strict=True):
            assert plain.token_scores is None
            assert one.token_scores is not None
            assert len(one.token_scores) == len(one.ids)
            if one.score > -1e7:
                length = len(one.ids) ** options.get("length_penalty", 1.0)
                assert sum(one.token_scores) / length == pytest.approx(one.score, rel=1e-5, abs=1e-5)


def same(hypothesis: Hypothesis, expected: list[int], ends: set[int]) -> None:
    """The ids are those that were written; those wrote the first eos, whichever one it was, and pads."""
    length = len(hypothesis.ids)
    assert hypothesis.ids[:-1] == expected[: length - 1], (hypothesis, expected)
    last, written = hypothesis.ids[-1], expected[length - 1]
    assert last == written or {last, written} <= ends, (hypothesis, expected)
    assert set(expected[length:]) <= ends, (hypothesis, expected)


def check_rows_alone(name: str, options: dict[str, Any]) -> None:
    """Twenty rows of unequal length that end at different times: each as if it were alone."""
    generator = torch.Generator().manual_seed(1)
    rows = [
        torch.randint(3, 40, (int(n),), generator=generator).tolist()
        for n in torch.randint(1, 14, (20,), generator=generator)
    ]
    options = {"max_new_tokens": 15, "eos_token_id": list(range(2, 40, 5)), **options}
    alone = [generate_ids(model(name), torch.tensor([row]), None, **options)[0] for row in rows]
    assert len({len(hypothesis.ids) for row in alone for hypothesis in row}) > 3
    for left in (False, True):
        ids, mask = tiny.padded(rows, pad=11, left=left)
        for got, expected in zip(generate_ids(model(name), ids, mask, **options), alone, strict=True):
            assert [h.ids for h in got] == [h.ids for h in expected]
            assert [h.score for h in got] == pytest.approx([h.score for h in expected], abs=1e-4)
