"""Scores against values computed by hand."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from seq2seq_cli.errors import DataError, UsageError
from seq2seq_cli.evaluation.metrics import METRICS, _Words, edit_distance, score


def one(name: str, prediction: str, *references: str, english: bool = False) -> float:
    value = score([prediction], [references], names=[name], english=english)[name]
    assert isinstance(value, float)
    return value


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rouge1", 100 * 2 / 3),  # the, cat of three words each
        ("rouge2", 50.0),  # one of two pairs
        ("rougeL", 100 * 2 / 3),
        ("rougeLsum", 100 * 2 / 3),
        ("exact_match", 0.0),
        ("token_error_rate", 100 / 3),
    ],
)
def test_by_hand(name: str, expected: float) -> None:
    assert one(name, "the cat sat", "The cat ran" if "rouge" in name else "the cat ran") == pytest.approx(
        expected
    )


def test_rouge_is_the_f_measure_and_keeps_order_apart() -> None:
    # precision 2/2, recall 2/4 -> F = 2/3; the longest common subsequence of the reversed text is one word
    assert one("rouge1", "a b", "b a c d") == pytest.approx(100 * 2 / 3)
    assert one("rougeL", "a b", "b a c d") == pytest.approx(100 * 2 * (1 / 2) * (1 / 4) / (1 / 2 + 1 / 4))
    assert one("rougeLsum", "a b\nc d", "c d\na b") == pytest.approx(100)
    assert one("rougeL", "a b\nc d", "c d\na b") == pytest.approx(50)


def test_bleu_by_hand() -> None:
    # precisions 4/5, 3/4, 2/3, 1/2, same length: the fourth root of 1/5
    assert one("bleu", "a b c d e", "a b c d f") == pytest.approx(100 * 0.2**0.25)
    # the same precisions of 1, five words for ten: brevity penalty exp(1 - 10/5)
    assert one("bleu", "a b c d e", "a b c d e f g h i j") == pytest.approx(36.787944)


def test_chrf_by_hand() -> None:
    # letters 2/3, pairs 1/2, triples 0/1, and no longer ones: the mean, precision = recall
    assert one("chrf", "abc", "abd") == pytest.approx(100 * (2 / 3 + 1 / 2 + 0) / 3)


def test_token_error_rate_is_over_the_corpus() -> None:
    # 2 edits for 4 tokens and 0 for 6: 2/10, not the mean of the two rates
    values = score(["a b c", "a b c d e f"], [["a x c d"], ["a b c d e f"]], names=["token_error_rate"])
    assert values["token_error_rate"] == pytest.approx(20)
    assert one("token_error_rate", "a b c d", "x") == pytest.approx(400)
    assert one("token_error_rate", "", "x y") == pytest.approx(100)
    assert one("token_error_rate", "", "") == 0


@pytest.mark.parametrize(
    ("first", "second", "distance"),
    [
        ("", "", 0),
        ("", "abc", 3),
        ("abc", "", 3),
        ("kitten", "sitting", 3),
        ("flaw", "lawn", 2),
        ("ab", "ba", 2),
    ],
)
def test_edit_distance(first: str, second: str, distance: int) -> None:
    assert edit_distance(list(first), list(second)) == distance


def test_the_best_of_several_references_counts() -> None:
    assert one("rouge1", "a b", "x y", "a b") == 100
    assert one("exact_match", " a b\n", "x", "a b") == 100
    assert one("exact_match", "A b", "x", "a b") == 0
    assert one("token_error_rate", "a b c", "x y z", "a b d") == pytest.approx(100 / 3)
    # at one edit both: the longer reference is the closer one
    assert one("token_error_rate", "a b", "a", "a b c") == pytest.approx(100 / 3)
    assert one("bleu", "a b c d", "w x y z", "a b c d") == pytest.approx(100)


def test_rows_may_have_different_numbers_of_references() -> None:
    values = score(
        ["a b c d", "e f g h"], [["x", "a b c d", "y"], ["e f g h"]], names=["bleu", "chrf", "rouge1"]
    )
    assert values["bleu"] == pytest.approx(100)
    assert values["chrf"] == pytest.approx(100)
    assert values["rouge1"] == pytest.approx(100)
    assert values["signatures"]["bleu"].startswith("nrefs:var|")


def test_means_are_over_the_rows() -> None:
    values = score(["a", "b", "c", "d"], [["a"], ["x"], ["x"], ["x"]], names=["exact_match", "rouge1"])
    assert values["exact_match"] == 25
    assert values["rouge1"] == 25


@pytest.mark.parametrize(
    "text", ["Größe über Straße", "Привет мир", "你好世界", "मुझे हिन्दी", "こんにちは", "ภาษาไทย", "안녕 세계"]
)
def test_words_that_are_not_english_are_not_emptied(text: str) -> None:
    for name in ("rouge1", "rougeL"):
        assert one(name, text, text) == pytest.approx(100)
        assert one(name, text, "ganz anderes") == 0
        assert one(name, text, text, english=True) == pytest.approx(100)


def test_words_are_whole_and_chinese_letters_single() -> None:
    words = _Words(stem=False)
    assert words.tokenize("Größe, über_all! naïve") == ["größe", "über", "all", "naïve"]
    assert words.tokenize("हिन्दी है।") == ["हिन्दी", "है"]
    assert words.tokenize("我有2只cats。") == ["我", "有", "2", "只", "cats"]
    assert words.tokenize("ที่นี่") == ["ที่", "นี่"]
    assert words.tokenize("...") == []


@pytest.mark.parametrize("stem", [False, True])
def test_english_words_are_those_of_rouge_score(stem: bool) -> None:
    from rouge_score.tokenizers import DefaultTokenizer

    ours, theirs = _Words(stem=stem), DefaultTokenizer(use_stemmer=stem)
    generator = random.Random(1)
    letters = [chr(code) for code in range(128)]
    texts = ["The running dogs' happily-named U.S.A. co-operations, 3.14!"]
    texts += ["".join(generator.choices(letters + list("abcdeings") * 9, k=40)) for _ in range(300)]
    for text in texts:
        assert ours.tokenize(text) == theirs.tokenize(text)


def test_stemming_is_asked_for() -> None:
    assert one("rouge1", "running dogs", "run dog") == 0
    assert one("rouge1", "running dogs", "run dog", english=True) > 0


def test_empty_predictions_score_nothing_and_do_not_fail() -> None:
    values = score(["", "  "], [["a b"], ["c"]], names=METRICS)
    assert [values[name] for name in METRICS[:-1]] == pytest.approx([0.0] * 7)
    assert values["token_error_rate"] == 100
    assert score(["a"], [[""]], names=METRICS)["rouge1"] == 0


def test_names_come_in_one_order_with_their_signatures() -> None:
    values = score(["a b"], [["a c"]], names=["chrf", "bleu", "bleu", "rougeL"])
    assert list(values) == ["rougeL", "bleu", "chrf", "signatures"]
    assert list(values["signatures"]) == ["rougeL", "bleu", "chrf"]
    assert "stem:no" in values["signatures"]["rougeL"]
    assert "version:" in values["signatures"]["rougeL"]
    assert "tok:13a" in values["signatures"]["bleu"]
    assert "nc:6" in values["signatures"]["chrf"]
    english = score(["a b"], [["a c"]], names=["rougeL"], english=True)
    assert "stem:porter" in english["signatures"]["rougeL"]


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        (["a", "b"], [["a"]], "2 predictions for 1 rows"),
        ([], [], "nothing to score"),
        (["a", "b"], [["a"], []], "without a reference · row 2"),
        (["a"], ["a"], "a list of texts · row 1"),
    ],
)
def test_lists_that_do_not_fit(
    predictions: Sequence[str], references: Sequence[Sequence[str]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        score(predictions, references, names=["bleu"])


def test_an_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'rougeL'"):
        score(["a"], [["a"]], names=["rougel"])
