"""Stop strings: a row ends with the token that completes one of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Stop:
    """Finds texts in rows of tokens, also where they begin or end inside a token.

    As transformers' ``stop_strings``: the search starts in the prompt, a text counts when the last token
    completes it, and that token stays, with what it writes behind the text. Made of one automaton a text
    (Knuth, Morris and Pratt 1977) over whole tokens: no text is decoded while rows are written.
    """

    def __init__(self, texts: Sequence[str], spellings: Sequence[bytes]) -> None:
        """``spellings``: what each id adds to a text (``Tokenizer.spellings``)."""
        self._size = len(spellings)
        # longest first: further letters are then those of fewer tokens; the empty one is padding
        order = sorted(range(self._size + 1), key=lambda n: -len(spellings[n]) if n < self._size else 1)
        letters = [spellings[n] for n in order[:-1]]
        place = torch.empty(self._size + 1, dtype=torch.long)
        place[torch.tensor(order)] = torch.arange(self._size + 1)
        automata = [_over_tokens(text.encode(), letters) for text in texts]
        self._automata = [(state[:, place], ending[:, place]) for state, ending in automata]

    def hits(self, tokens: Tensor, visible: Tensor | None) -> Tensor:
        """bool [R]: the last token of tokens [R, L] completes a text; visible [R, L] as in ``Context``."""
        found = torch.zeros(tokens.shape[0], dtype=torch.bool)
        for following, ending in self._automata:
            window = tokens[:, -following.shape[0] :].clamp(max=self._size)
            if visible is not None:
                window = window.masked_fill(~visible[:, -following.shape[0] :], self._size)
            window = window.cpu()
            last = window[:, -1]
            if not bool(ending[:, last].any()):
                continue
            state = torch.zeros_like(last)
            for place in range(window.shape[1] - 1):
                state = following[state, window[:, place]]
            found |= ending[state, last]
        return found.to(tokens.device)


def _over_tokens(text: bytes, letters: Sequence[bytes]) -> tuple[Tensor, Tensor]:
    """For a text of m bytes and V tokens, the longest first: the state behind each state and token
    [m, V + 1], and whether the text is completed on the way [m, V + 1]. State s: the last s bytes are the
    first s of the text. The last column starts anew."""
    size, restart = len(text), _border(text, text)
    step = torch.tensor([_following(text, state) for state in range(size)])  # [m, 256]
    state = torch.arange(size)[:, None].repeat(1, len(letters) + 1)
    state[:, -1] = 0
    ending = torch.zeros_like(state, dtype=torch.bool)
    count = len(letters)
    for place in range(len(letters[0]) if letters else 0):
        while len(letters[count - 1]) <= place:
            count -= 1
        now = step[state[:, :count], torch.tensor([token[place] for token in letters[:count]])]
        complete = now == size
        ending[:, :count] |= complete
        state[:, :count] = now.masked_fill(complete, restart)
    return state, ending


def _following(text: bytes, state: int) -> list[int]:
    """The state behind each byte that follows the first ``state`` bytes of the text."""
    following = [0] * 256
    for byte in set(text):
        following[byte] = _border(text[:state] + bytes([byte]), text)
    following[text[state]] = state + 1
    return following


def _border(seen: bytes, text: bytes) -> int:
    """How many bytes at the end of ``seen``, fewer than the text has, are the start of the text."""
    longest = min(len(seen), len(text) - 1)
    return next((n for n in range(longest, 0, -1) if seen.endswith(text[:n])), 0)
