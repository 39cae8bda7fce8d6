"""Outputs that follow a grammar: only tokens that can go on with it are allowed, eos where it is complete."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from seq2seq_cli.errors import UsageError
from seq2seq_cli.recipe.grammar import check_grammar
from seq2seq_cli.text.tokenizer import Tokenizer


class Language:
    """All texts that a grammar allows, in the tokens of one tokenizer.

    The work is done by llguidance (an Earley parser over a trie of the vocabulary); this only keeps its
    matchers at the places where the rows are.
    """

    def __init__(self, value: str, tokenizer: Tokenizer, eos: Sequence[int]) -> None:
        """UsageError when the grammar has mistakes, when llguidance is missing, or when nothing can end a
        text."""
        grammar = check_grammar(value)
        from llguidance import LLMatcher, LLTokenizer

        if not eos or max(eos) >= tokenizer.vocab_size:
            raise UsageError("grammar: the model has no eos token to end a text with", remedy="eos_token_id")
        self._eos = frozenset(eos)
        words = LLTokenizer(_Vocabulary(tokenizer, eos[0]), eos_token=list(eos))
        self._root = LLMatcher(words, grammar.compiled(_start(tokenizer)), log_level=0)
        self._where = grammar.where
        self._check(self._root)

    def start(self) -> Any:
        """A matcher at the start."""
        return self._root.deep_copy()

    def after(self, matcher: Any, token: int) -> Any:
        """A matcher behind one more token. None behind an eos, where everything is over, and behind a token
        that was forbidden: beam search fills up with those where too few others are left."""
        if matcher is None or token in self._eos:
            return None
        following = matcher.deep_copy()
        return following if following.consume_token(token) else None

    def allowed(self, matcher: Any) -> bytes:
        """A bit for each token, the lowest of each byte first. UsageError where the vocabulary cannot spell
        what has to come."""
        mask: bytes = matcher.compute_bitmask()
        self._check(matcher)
        return mask

    def accepts(self, ids: Sequence[int]) -> bool:
        """Whether ids, up to an eos, are a whole text of the language."""
        matcher = self.start()
        for token in ids:
            if token in self._eos:
                break
            if not matcher.consume_token(token):
                return False
        return bool(matcher.is_accepting())

    def _check(self, matcher: Any) -> None:
        if matcher.is_error():
            what = " ".join(matcher.get_error().split())
            raise UsageError(
                f"grammar: the target's vocabulary cannot go on with it: {what[:200]}",
                where=self._where,
                remedy="allow what its tokens can spell (spaces, letters), or use another grammar",
            )


class _Vocabulary:
    """A tokenizer as llguidance wants it."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, eos: int) -> None:
        self.eos_token_id = eos
        self.tokens = tokenizer.spellings
        self.special_token_ids = sorted(tokenizer.special_ids)
        self._tokenizer = tokenizer

    def __call__(self, text: str | bytes) -> list[int]:
        known = text if isinstance(text, str) else text.decode("utf-8", "ignore")
        return self._tokenizer.encode([known], special=False)[0]


def _start(tokenizer: Tokenizer) -> str:
    """What stands around a text where decoding drops a space: before its first word, or behind its last."""
    text = tokenizer.spellings
    before = next((n for n, each in enumerate(text) if each[:1] == b" " and each[1:].isalpha()), None)
    if before is not None and not tokenizer.decode([before]).startswith(" "):
        return 'start: " " @text'
    behind = next((n for n, each in enumerate(text) if each[-1:] == b" " and each[:-1].isalpha()), None)
    if behind is not None and not tokenizer.decode([behind]).endswith(" "):
        return 'start: @text " "?'
    return "start: @text"
