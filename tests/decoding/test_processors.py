"""Each logits processor against transformers' own, on random scores and histories."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers.generation import logits_process as theirs

from seq2seq_cli.decoding import processors as ours
from seq2seq_cli.decoding.processors import Context

CPU = torch.device("cpu")
WORDS = [[3], [4, 5], [1, 2, 8], [0], [6, 6], [2, 3, 4, 5, 6, 7, 8, 9]]
CASES: list[tuple[Any, dict[str, Any], Any]] = [
    (ours.repetition_penalty, {"penalty": 1.7}, theirs.RepetitionPenaltyLogitsProcessor(1.7)),
    (ours.repetition_penalty, {"penalty": 0.5}, theirs.RepetitionPenaltyLogitsProcessor(0.5)),
    (ours.no_repeat_ngram, {"size": 1}, theirs.NoRepeatNGramLogitsProcessor(1)),
    (ours.no_repeat_ngram, {"size": 2}, theirs.NoRepeatNGramLogitsProcessor(2)),
    (ours.no_repeat_ngram, {"size": 3}, theirs.NoRepeatNGramLogitsProcessor(3)),
    (ours.bad_words, {"words": WORDS}, theirs.NoBadWordsLogitsProcessor(WORDS, eos_token_id=[9])),
    (
        ours.min_length,
        {"least": 5, "eos": (7, 9)},
        theirs.MinLengthLogitsProcessor(5, torch.tensor([7, 9]), device="cpu"),
    ),
    (ours.forced_bos, {"token": 4}, theirs.ForcedBOSTokenLogitsProcessor(4)),
]


@pytest.mark.parametrize(("own", "settings", "reference"), CASES, ids=lambda v: getattr(v, "__name__", None))
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 6, 20])
def test_equal(own: Any, settings: dict[str, Any], reference: Any, length: int) -> None:
    generator = torch.Generator().manual_seed(length)
    tokens = torch.randint(0, 10, (50, length), generator=generator)
    scores = torch.randn(50, 10, generator=generator)
    expected = reference(tokens, scores.clone())
    own(scores, Context(tokens=tokens, visible=None, new_tokens=0, limits=torch.full((50,), 99)), **settings)
    torch.testing.assert_close(scores, expected)


@pytest.mark.parametrize(("own", "settings", "reference"), CASES, ids=lambda v: getattr(v, "__name__", None))
def test_padding_is_not_text(own: Any, settings: dict[str, Any], reference: Any) -> None:
    """Prompts padded on the left with real ids: each row is changed as if it stood alone."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 5, (900, 12), generator=generator)
    padding = torch.randint(0, 12, (900,), generator=generator)
    scores = torch.randn(900, 10, generator=generator)
    expected = torch.cat(
        [reference(tokens[r : r + 1, padding[r] :], scores[r : r + 1].clone()) for r in range(900)]
    )
    visible = torch.arange(12) >= padding[:, None]
    own(
        scores,
        Context(tokens=tokens, visible=visible, new_tokens=0, limits=torch.full((900,), 99)),
        **settings,
    )
    torch.testing.assert_close(scores, expected)


def context(**changes: Any) -> Context:
    values = {"tokens": torch.zeros(3, 4, dtype=torch.long), "visible": None, "new_tokens": 3}
    return Context(**{**values, "limits": torch.tensor([4, 5, 99]), **changes})  # type: ignore[arg-type]


def test_min_new_tokens_counts_new_ones() -> None:
    for new, forbidden in ((2, True), (3, False)):
        scores = torch.zeros(3, 6)
        ours.min_new_tokens(scores, context(new_tokens=new), least=3, eos=(1, 5))
        assert bool((scores[:, [1, 5]] == float("-inf")).all()) is forbidden
        assert not bool(scores[:, [0, 2, 3, 4]].any())
    reference = theirs.MinNewTokensLengthLogitsProcessor(2, 3, torch.tensor([1, 5]), device="cpu")
    for new in range(6):
        tokens, scores = torch.zeros(3, 2 + new, dtype=torch.long), torch.zeros(3, 6)
        expected = reference(tokens, scores.clone())
        ours.min_new_tokens(scores, context(tokens=tokens, new_tokens=new), least=3, eos=(1, 5))
        assert torch.equal(scores, expected)


def test_forced_eos_comes_last_in_each_row() -> None:
    scores = torch.arange(18.0).view(3, 6)
    before = scores.clone()
    ours.forced_eos(scores, context(), token=2)
    assert scores[0].tolist() == [float("-inf")] * 2 + [0.0] + [float("-inf")] * 3
    assert torch.equal(scores[1:], before[1:])
    reference = theirs.ForcedEOSTokenLogitsProcessor(5, 2, device="cpu")
    assert torch.equal(scores[:1], reference(torch.zeros(1, 4, dtype=torch.long), before[:1]))


def test_the_order_is_transformers() -> None:
    """A forced token wins over a bad word and over what may not repeat."""
    from seq2seq_cli.decoding import resolve_options
    from seq2seq_cli.model import SpecialIds

    options = {
        "forced_bos_token_id": 3,
        "bad_words_ids": [[3]],
        "no_repeat_ngram_size": 1,
        "repetition_penalty": 2.0,
        "min_new_tokens": 2,
    }
    scores = torch.zeros(1, 6)
    chosen = ours.build_processors(resolve_options(options, {}, SpecialIds(start=3, eos=(5,))))
    assert len(chosen) == 5
    for process in chosen:
        process(scores, context(tokens=torch.tensor([[3]]), new_tokens=0, limits=torch.tensor([9])))
    assert int(scores.argmax()) == 3
    assert int(scores.isfinite().sum()) == 1


def test_eos_cannot_be_a_bad_word() -> None:
    from seq2seq_cli.decoding import resolve_options
    from seq2seq_cli.model import SpecialIds

    decoding = resolve_options({"bad_words_ids": [[5], [1]]}, {}, SpecialIds(start=3, eos=(5,)))
    scores = torch.zeros(1, 6)
    for process in ours.build_processors(decoding):
        process(scores, context(tokens=torch.tensor([[3]])))
    assert scores.isinf().nonzero().tolist() == [[0, 1]]


def test_nothing_asked_nothing_built() -> None:
    from seq2seq_cli.decoding import resolve_options
    from seq2seq_cli.model import SpecialIds

    assert ours.build_processors(resolve_options({}, {}, SpecialIds(start=3, eos=(5,)))) == []
