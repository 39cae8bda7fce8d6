"""Each logits processor against transformers' own, on random scores and histories."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers.generation import logits_process as theirs

from seq2seq_cli.decoding import resolve_options
from seq2seq_cli.decoding.processors import Context, bans, build_processors, lengths, penalties
from seq2seq_cli.decoding.sampling import candidates
from seq2seq_cli.errors import UsageError
from seq2seq_cli.model import SpecialIds
from tests import tiny

ROWS, VOCABULARY = 50, 10
WORDS = [[3], [4, 5], [1, 2, 8], [0], [6, 6], [2, 3, 4, 5, 6, 7, 8, 9]]
BIASES = [([3], 1.5), ([4, 5], -2.0), ([1, 5], 4.0), ([1, 2, 8], -7.5), ([0], -1.0), ([3], 0.5)]
SOURCE = torch.randint(0, VOCABULARY, (ROWS, 7), generator=torch.Generator().manual_seed(9))
GRAMS = {n: bans.grams(SOURCE, None, size=n, vocab_size=VOCABULARY) for n in (1, 2, 3)}
CASES: list[tuple[Any, dict[str, Any], Any]] = [
    (penalties.repetition_penalty, {"penalty": 1.7}, theirs.RepetitionPenaltyLogitsProcessor(1.7)),
    (penalties.repetition_penalty, {"penalty": 0.5}, theirs.RepetitionPenaltyLogitsProcessor(0.5)),
    (
        penalties.sequence_bias,
        {"groups": penalties.phrases(BIASES, torch.device("cpu"))},
        theirs.SequenceBiasLogitsProcessor([list(each) for each in BIASES]),
    ),
    (bans.no_repeat_ngram, {"size": 1}, theirs.NoRepeatNGramLogitsProcessor(1)),
    (bans.no_repeat_ngram, {"size": 2}, theirs.NoRepeatNGramLogitsProcessor(2)),
    (bans.no_repeat_ngram, {"size": 3}, theirs.NoRepeatNGramLogitsProcessor(3)),
    (
        penalties.sequence_bias,
        {"groups": penalties.phrases([(word, float("-inf")) for word in WORDS], torch.device("cpu"))},
        theirs.NoBadWordsLogitsProcessor(WORDS, eos_token_id=[9]),
    ),
    (
        lengths.min_length,
        {"least": 5, "eos": (7, 9)},
        theirs.MinLengthLogitsProcessor(5, torch.tensor([7, 9]), device="cpu"),
    ),
    (lengths.forced_bos, {"token": 4}, theirs.ForcedBOSTokenLogitsProcessor(4)),
    (
        bans.suppress_tokens,
        {"ids": torch.tensor([2, 7])},
        theirs.SuppressTokensLogitsProcessor([2, 7], device="cpu"),
    ),
]
#: those that look at the source, which has a row for each row of tokens here
OF_SOURCE: list[tuple[Any, dict[str, Any], Any]] = [
    *(
        (
            penalties.encoder_repetition_penalty,
            {"penalty": x, "source": SOURCE},
            theirs.EncoderRepetitionPenaltyLogitsProcessor(x, SOURCE),
        )
        for x in (1.6, 0.4)
    ),
    *(
        (
            bans.encoder_no_repeat_ngram,
            {"source": grams},
            theirs.EncoderNoRepeatNGramLogitsProcessor(n, SOURCE),
        )
        for n, grams in GRAMS.items()
    ),
]


def context(**changes: Any) -> Context:
    values = {"tokens": torch.zeros(3, 4, dtype=torch.long), "visible": None, "new_tokens": 3}
    values = {**values, "limits": torch.tensor([4, 5, 99]), **changes}
    return Context(**{"rows": torch.arange(len(values["tokens"])), **values})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("own", "settings", "reference"), CASES + OF_SOURCE, ids=lambda v: getattr(v, "__name__", None)
)
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 6, 20])
def test_equal(own: Any, settings: dict[str, Any], reference: Any, length: int) -> None:
    generator = torch.Generator().manual_seed(length)
    tokens = torch.randint(0, VOCABULARY, (ROWS, length), generator=generator)
    scores = torch.randn(ROWS, VOCABULARY, generator=generator)
    expected = reference(tokens, scores.clone())
    own(scores, context(tokens=tokens, new_tokens=0, limits=torch.full((ROWS,), 99)), **settings)
    torch.testing.assert_close(scores, expected, rtol=1e-6, atol=1e-6)


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
        context(tokens=tokens, visible=visible, new_tokens=0, limits=torch.full((900,), 99)),
        **settings,
    )
    torch.testing.assert_close(scores, expected)


def test_min_new_tokens_counts_new_ones() -> None:
    for new, forbidden in ((2, True), (3, False)):
        scores = torch.zeros(3, 6)
        lengths.min_new_tokens(scores, context(new_tokens=new), least=3, eos=(1, 5))
        assert bool((scores[:, [1, 5]] == float("-inf")).all()) is forbidden
        assert not bool(scores[:, [0, 2, 3, 4]].any())
    reference = theirs.MinNewTokensLengthLogitsProcessor(2, 3, torch.tensor([1, 5]), device="cpu")
    for new in range(6):
        tokens, scores = torch.zeros(3, 2 + new, dtype=torch.long), torch.zeros(3, 6)
        expected = reference(tokens, scores.clone())
        lengths.min_new_tokens(scores, context(tokens=tokens, new_tokens=new), least=3, eos=(1, 5))
        assert torch.equal(scores, expected)


def test_forced_eos_comes_last_in_each_row() -> None:
    scores = torch.arange(18.0).view(3, 6)
    before = scores.clone()
    lengths.forced_eos(scores, context(), token=2)
    assert scores[0].tolist() == [float("-inf")] * 2 + [0.0] + [float("-inf")] * 3
    assert torch.equal(scores[1:], before[1:])
    reference = theirs.ForcedEOSTokenLogitsProcessor(5, 2, device="cpu")
    assert torch.equal(scores[:1], reference(torch.zeros(1, 4, dtype=torch.long), before[:1]))


def test_padding_and_foreign_ids_are_no_source() -> None:
    """Sources padded with real ids, and ids beyond the target's vocabulary: as if they were not there."""
    rows = [[3, 14], [1, 2, 3, 99, 1], [12, 13], [4, 4, 4, 4, 4, 4]]
    clean = [[3], [1, 2, 3], [], [4] * 6]
    scores = torch.randn(4, VOCABULARY, generator=torch.Generator().manual_seed(1))
    tokens = torch.tensor([[3, 1], [1, 2], [2, 2], [4, 4]])
    for left in (False, True):
        source, mask = tiny.padded(rows, pad=2, left=left)
        ours = scores.clone()
        words = penalties.words_of(source, mask, vocab_size=VOCABULARY)
        penalties.encoder_repetition_penalty(ours, context(tokens=tokens), penalty=3.0, source=words)
        grams = bans.grams(source, mask, size=3, vocab_size=VOCABULARY)
        assert grams is not None
        bans.encoder_no_repeat_ngram(ours, context(tokens=tokens), source=grams)
        for row, own in enumerate(clean):
            expected = scores[row : row + 1].clone()
            if own:
                ids = torch.tensor([own])
                expected = theirs.EncoderRepetitionPenaltyLogitsProcessor(3.0, ids)(ids, expected)
                gram = theirs.EncoderNoRepeatNGramLogitsProcessor(3, ids)
                expected = gram(tokens[row : row + 1], expected)
            torch.testing.assert_close(ours[row : row + 1], expected)


def test_rows_find_their_own_source() -> None:
    source = torch.tensor([[1, 1], [2, 2]])
    scores, rows = torch.ones(3, 4), torch.tensor([1, 0, 1])
    tokens = torch.zeros(3, 1, dtype=torch.long)
    penalties.encoder_repetition_penalty(
        scores, context(tokens=tokens, rows=rows), penalty=2.0, source=source
    )
    assert scores.tolist() == [[1, 1, 2, 1], [1, 2, 1, 1], [1, 1, 2, 1]]


@pytest.mark.parametrize("new", range(6))
def test_exponential_decay(new: int) -> None:
    reference = theirs.ExponentialDecayLengthPenalty((2, 1.3), [1, 5], 4)
    scores = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    scores[1, 5] = float("-inf")
    tokens = torch.zeros(3, 4 + new, dtype=torch.long)
    expected = reference(tokens, scores.clone())
    penalties.exponential_decay(
        scores, context(tokens=tokens, new_tokens=new), start=2, factor=1.3, eos=(1, 5)
    )
    torch.testing.assert_close(scores, expected)


def test_remove_invalid_values() -> None:
    scores = torch.tensor([[float("nan"), float("inf"), float("-inf"), 1.0]])
    expected = theirs.InfNanRemoveLogitsProcessor()(torch.zeros(1, 1), scores.clone())
    penalties.remove_invalid_values(scores, context())
    assert torch.equal(scores, expected)


@pytest.mark.parametrize("behind_bos", [False, True])
def test_begin_suppress_tokens(behind_bos: bool) -> None:
    """At the first new token; behind a forced bos at the second, which only a bare start id has."""
    visible = torch.tensor([[False, True], [True, True]])
    for new in range(4):
        begin = [0 if not behind_bos else 1, 0]  # row 0 has a prompt of one token, row 1 of two
        scores = torch.zeros(2, 4)
        shown = torch.cat([visible, visible.new_ones(2, new)], 1)
        now = context(
            tokens=torch.zeros(2, 2 + new, dtype=torch.long),
            visible=shown,
            new_tokens=new,
            limits=torch.tensor([9, 9]),
        )
        bans.begin_suppress_tokens(scores, now, ids=torch.tensor([1, 3]), behind_bos=behind_bos)
        assert [bool(row[1].isinf() and row[3].isinf()) for row in scores] == [new == each for each in begin]
        assert not bool(scores[:, [0, 2]].any())


EVERYTHING: dict[str, Any] = {
    "sequence_bias": [[[3], 1.5], [[4, 5], -2.0]],
    "encoder_repetition_penalty": 1.4,
    "repetition_penalty": 1.7,
    "no_repeat_ngram_size": 3,
    "encoder_no_repeat_ngram_size": 4,
    "bad_words_ids": [[7], [8, 9]],
    "min_length": 5,
    "min_new_tokens": 3,
    "forced_bos_token_id": 6,
    "forced_eos_token_id": 2,
    "remove_invalid_values": True,
    "exponential_decay_length_penalty": (2, 1.4),
    "suppress_tokens": [11],
    "begin_suppress_tokens": [12],
    "temperature": 0.7,
    "top_k": 30,
    "top_p": 0.97,
    "min_p": 0.002,
    "typical_p": 0.9,
    "epsilon_cutoff": 0.003,
    "eta_cutoff": 0.004,
    "renormalize_logits": True,
}
SUBSETS = [
    dict(EVERYTHING),
    *({name: EVERYTHING[name] for name in EVERYTHING if name != left} for left in EVERYTHING),
    *({name: value} for name, value in EVERYTHING.items()),
]


@pytest.mark.parametrize("options", SUBSETS, ids=lambda options: " ".join(options)[:60])
def test_the_order_is_transformers(options: dict[str, Any]) -> None:
    """Whole chains, every option alone, all together and all but one, at each step of a beam search that
    samples (there the filters see the whole vocabulary): those that transformers builds, in its order."""
    rows, vocabulary, limit = 40, 60, 8
    generator = torch.Generator().manual_seed(3)
    source = torch.randint(3, vocabulary, (rows, 9), generator=generator)
    model = tiny.pair("bert", "bert")
    wanted = {"max_length": limit + 1, "num_beams": 2, "do_sample": True, "top_k": 0, **options}
    config, _ = model._prepare_generation_config(None, **wanted)
    model._prepare_special_tokens(config, True, device="cpu")
    reference = model._get_logits_processor(config, input_ids_seq_length=1, encoder_input_ids=source)
    decoding = resolve_options({**wanted, "num_beams": 1}, {}, SpecialIds(start=1, eos=(2,)))
    ours = build_processors(decoding, source=(source, None), vocab_size=vocabulary)
    for new in range(limit):
        written = torch.randint(3, vocabulary, (rows, new), generator=generator)
        written[::2, -1:] = source[::2, 3:4]  # what the n-grams of the source forbid
        tokens = torch.cat([torch.ones(rows, 1, dtype=torch.long), written], 1)
        scores = (torch.randn(rows, vocabulary, generator=generator) * 2).log_softmax(-1)
        expected = reference(tokens, scores.clone())
        now = context(tokens=tokens, new_tokens=new, limits=torch.full((rows,), limit))
        for process in ours:
            process(scores, now)
        values, ids = candidates(scores, decoding, keep=2)
        if ids is not None:
            scores = torch.full_like(scores, float("-inf")).scatter_(1, ids, values)
        else:
            scores = values
        for each in (scores, expected):  # which of equal lowest ones stays is chance
            each[each < -1e30] = float("-inf")
        torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)


def chain(ids: SpecialIds = SpecialIds(start=3, eos=(5,)), **options: Any) -> list[Any]:  # noqa: B008
    source = torch.tensor([[1, 2]]), None
    return build_processors(resolve_options(options, {}, ids), source=source, vocab_size=6)


def test_eos_cannot_be_a_bad_word() -> None:
    scores = torch.zeros(1, 6)
    for process in chain(bad_words_ids=[[5], [1]]):
        process(scores, context(tokens=torch.tensor([[3]])))
    assert scores.isinf().nonzero().tolist() == [[0, 1]]


def test_nothing_asked_nothing_built() -> None:
    assert chain() == []


@pytest.mark.parametrize(
    "ban", [{"suppress_tokens": list(range(6))}, {"bad_words_ids": [[i] for i in range(6)]}]
)
def test_a_row_without_any_token_ends(ban: dict[str, Any]) -> None:
    """Every token forbidden: the row ends with eos, certainly; a model without eos says what is wrong."""
    scores = torch.zeros(2, 6)
    now = context(tokens=torch.tensor([[3], [3]]), new_tokens=0, limits=torch.tensor([9, 9]))
    for process in chain(**ban, min_new_tokens=9):
        process(scores, now)
    assert scores.softmax(-1).argmax(-1).tolist() == [5, 5]
    assert int(scores.isfinite().sum()) == 2
    scores.fill_(0.0)
    *bans_all, way_out = chain(SpecialIds(start=3), **ban)
    for process in bans_all:
        process(scores, now)
    with pytest.raises(UsageError, match="leave no token to write behind 0 tokens"):
        way_out(scores, now)


@pytest.mark.parametrize("forced", [False, True])
def test_prefixes_of_unequal_length(forced: bool) -> None:
    """Row by row, behind a forced bos where there is one; the model's own score of the token stays."""
    options = {"forced_bos_token_id": 4} if forced else {}
    decoding = resolve_options({**options, "bad_words_ids": [[2]]}, {}, SpecialIds(start=3, eos=(5,)))
    source = torch.zeros(3, 1, dtype=torch.long), None
    processors = build_processors(
        decoding, source=source, vocab_size=6, prefixes=[(1, 2), (), (0,)], copies=2
    )
    wanted = [[1, 2, None], [None] * 3, [0, None, None]]
    if forced:
        wanted = [[4, *row] for row in wanted]
    rows = torch.arange(6)
    for step in range(3):
        scores = torch.full((6, 6), -1.0)
        tokens = torch.full((6, 1 + step), 3)
        now = context(tokens=tokens, new_tokens=step, rows=rows, limits=torch.full((6,), 9))
        for process in processors:
            process(scores, now)
        for row in range(6):
            token = wanted[row // 2][step]
            allowed = scores[row].isfinite().nonzero()[:, 0].tolist()
            assert allowed == ([0, 1, 3, 4, 5] if token is None else [token])
            if token in (0, 1):
                assert float(scores[row, token]) == -1.0
