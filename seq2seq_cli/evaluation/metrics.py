"""Scores of predictions against references, by rouge-score and sacrebleu, with the settings behind them."""

from __future__ import annotations

import importlib.metadata
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

from seq2seq_cli.errors import DataError, UsageError, nearest

_ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")

#: The metrics that need texts only (loss and perplexity need the model).
METRICS = (*_ROUGE, "bleu", "chrf", "exact_match", "token_error_rate")

#: How the names of letters begin in scripts that are written without spaces: every letter is a token, in the
#: second group with the marks that follow it.
_UNSPACED = ("CJK ", "HIRAGANA", "KATAKANA")
_UNSPACED_WITH_MARKS = ("THAI", "LAO", "KHMER", "MYANMAR")


def score(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    names: Sequence[str],
    english: bool = False,
) -> dict[str, Any]:
    """name -> score for each of ``names``, and under ``signatures`` name -> the settings behind it.

    predictions: N texts. references: for each its one or more right texts; counts may differ. english: stem
    words for ROUGE, which is made for English only. Scores are percentages (0-100, as sacrebleu's):

    - rouge1, rouge2, rougeL, rougeLsum: mean F-measure, of the best reference each; rougeLsum takes lines as
      sentences.
    - bleu, chrf: of the whole corpus.
    - exact_match: share of predictions equal to one of their references, white space around them aside.
    - token_error_rate: edit distance in white-space separated tokens to the closest reference, summed, over
      the summed lengths of those references. Can exceed 100.

    Raises UsageError for an unknown name and DataError for lists that do not fit or are empty.
    """
    for name in names:
        if name not in METRICS:
            raise UsageError(f"unknown metric {name!r}", remedy=nearest(name, METRICS))
    _check(predictions, references)
    values: dict[str, Any] = {}
    signatures: dict[str, str] = {}
    rouge = [name for name in _ROUGE if name in names]
    if rouge:
        values.update(_rouge(predictions, references, rouge, english=english))
        signatures.update(dict.fromkeys(rouge, _rouge_signature(english)))
    computed: dict[str, Callable[[Sequence[str], Sequence[Sequence[str]]], tuple[float, str]]] = {
        "bleu": _bleu,
        "chrf": _chrf,
        "exact_match": _exact_match,
        "token_error_rate": _token_error_rate,
    }
    for name in computed.keys() & set(names):
        values[name], signatures[name] = computed[name](predictions, references)
    ordered = {name: values[name] for name in METRICS if name in names}
    return {**ordered, "signatures": {name: signatures[name] for name in ordered}}


def _check(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if len(predictions) != len(references):
        raise DataError(f"{len(predictions)} predictions for {len(references)} rows of references")
    if not predictions:
        raise DataError("nothing to score: no predictions")
    for number, row in enumerate(references, start=1):
        if isinstance(row, str):
            raise DataError("the references of a prediction are a list of texts", where=f"row {number}")
        if not row:
            raise DataError("a prediction without a reference", where=f"row {number}")


class _Words:
    """Splits text for rouge-score, whose own tokenizer drops every letter but a-z.

    The same tokens as that one's for ASCII. Elsewhere a token is a run of letters, marks and digits of any
    script, and each letter is one where words are not separated by spaces.
    """

    def __init__(self, *, stem: bool) -> None:
        self._stem: Callable[[str], str] = str
        if stem:
            from nltk.stem.porter import PorterStemmer  # type: ignore[import-untyped]

            self._stem = PorterStemmer().stem
        self._kinds: dict[str, str] = {}

    def tokenize(self, text: str) -> list[str]:
        pieces = []
        for letter in text.lower():
            if letter not in self._kinds:
                self._kinds[letter] = _kind(letter)
            pieces.append(self._kinds[letter])
        # As in rouge-score, words of up to three letters are not stemmed.
        return [self._stem(word) if len(word) > 3 else word for word in "".join(pieces).split()]


def _kind(letter: str) -> str:
    """What stands for the letter before the text is split at spaces."""
    category = unicodedata.category(letter)[0]
    if category not in "LMN":
        return " "
    name = unicodedata.name(letter, "") if category == "L" else ""
    if name.startswith(_UNSPACED):
        return f" {letter} "
    return f" {letter}" if name.startswith(_UNSPACED_WITH_MARKS) else letter


def _rouge(
    predictions: Sequence[str], references: Sequence[Sequence[str]], names: list[str], *, english: bool
) -> dict[str, float]:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(names, tokenizer=_Words(stem=english))
    totals = dict.fromkeys(names, 0.0)
    for prediction, row in zip(predictions, references, strict=True):
        for name, value in scorer.score_multi(row, prediction).items():
            totals[name] += value.fmeasure
    return {name: 100 * total / len(predictions) for name, total in totals.items()}


def _rouge_signature(english: bool) -> str:
    version = importlib.metadata.version("rouge-score")
    stem = "porter" if english else "no"
    return f"f-measure|refs:best|case:lower|tok:unicode-words|stem:{stem}|split:newline|version:{version}"


def _columns(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """References as sacrebleu wants them: the first of every row, the second, ...; None for a lacking one."""
    most = max(map(len, references))
    return [[row[column] if column < len(row) else None for row in references] for column in range(most)]


def _bleu(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, str]:
    from sacrebleu.metrics import BLEU

    metric = BLEU()
    value = metric.corpus_score(list(predictions), _columns(references)).score
    return float(value), str(metric.get_signature())


def _chrf(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, str]:
    from sacrebleu.metrics import CHRF

    metric = CHRF()
    value = metric.corpus_score(list(predictions), _columns(references)).score
    return float(value), str(metric.get_signature())


def _exact_match(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, str]:
    right = sum(
        prediction.strip() in [reference.strip() for reference in row]
        for prediction, row in zip(predictions, references, strict=True)
    )
    return 100 * right / len(predictions), "refs:any|case:mixed|space:stripped"


def _token_error_rate(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, str]:
    edits = length = 0
    for prediction, row in zip(predictions, references, strict=True):
        tokens = prediction.split()
        # Of two references at the same distance the longer one, at the lower rate, is the closer one.
        distance, negative_length = min(
            (edit_distance(tokens, reference.split()), -len(reference.split())) for reference in row
        )
        edits += distance
        length -= negative_length
    # Empty references only: every token is one too many.
    return 100 * edits / max(length, 1), "corpus|refs:closest|tok:whitespace|case:mixed"


def edit_distance(first: Sequence[str], second: Sequence[str]) -> int:
    """The least number of insertions, deletions and substitutions that make ``first`` into ``second``."""
    row = list(range(len(second) + 1))
    for i, left in enumerate(first, start=1):
        previous, row[0] = row[0], i
        for j, right in enumerate(second, start=1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (left != right))
    return row[-1]
