"""How far a text is with the phrases that it has to contain."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

#: token ids of a phrase
Phrase = tuple[int, ...]
#: phrases of which one is enough
Alternatives = tuple[Phrase, ...]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Which phrases a text still lacks. Each is a choice of alternatives, none of which begins another.

    Phrases are taken one after the other: a token that breaks the one in progress belongs to no other, and
    sends that one to the end of the line. So a text may contain a phrase that was not counted (5 5 6 for
    the phrase 5 6), but never lacks one that was. As in transformers.
    """

    waiting: tuple[Alternatives, ...]
    current: Alternatives = ()  #: the alternatives of the one in progress, () when there is none
    path: Phrase = ()  #: what stands of it
    done: int = 0

    @property
    def is_complete(self) -> bool:
        """Nothing is lacking."""
        return not self.waiting and not self.current

    def add(self, token: int) -> Progress:
        """The progress behind one more token."""
        if self.current:
            path = (*self.path, token)
            return self._on(self.current, path) if _next(self.current, path[:-1], token) else self._broken()
        for number, alternatives in enumerate(self.waiting):
            if _next(alternatives, (), token):
                waiting = (*self.waiting[:number], *self.waiting[number + 1 :])
                return replace(self, waiting=waiting)._on(alternatives, (token,))
        return self

    def add_all(self, tokens: Iterable[int]) -> Progress:
        """The progress behind more tokens."""
        progress = self
        for token in tokens:
            progress = progress.add(token)
        return progress

    def steps(self) -> list[tuple[int, Progress]]:
        """The tokens that lead on, each with the progress behind it.

        Where alternatives part midway, transformers counts the first way on as progress and the others as
        breaks (its copies of a phrase in progress share one list). So it is here, for this step's choice.
        """
        if not self.current:
            firsts = [token for alternatives in self.waiting for token in _next(alternatives, ())]
            return [(token, self.add(token)) for token in firsts]
        first, *others = _next(self.current, self.path)
        return [(first, self.add(first)), *((token, self._broken()) for token in others)]

    def bank(self, longest: int) -> int:
        """Tokens of phrases that stand, where each whole one counts as ``longest``, the length of the longest
        of all, and one in progress as much less as it lacks."""
        whole = self.done * longest
        if not self.current:
            return whole
        return whole + longest - (max(map(len, self.current)) - len(self.path))

    def _on(self, alternatives: Alternatives, path: Phrase) -> Progress:
        if path in alternatives:
            return replace(self, current=(), path=(), done=self.done + 1)
        return replace(self, current=alternatives, path=path)

    def _broken(self) -> Progress:
        return replace(self, waiting=(*self.waiting, self.current), current=(), path=())


def _next(alternatives: Alternatives, path: Phrase, token: int | None = None) -> list[int]:
    """The tokens that go on behind ``path``, in the order of the alternatives; of them ``token`` alone where
    it is given."""
    size = len(path)
    found = [phrase[size] for phrase in alternatives if phrase[:size] == path and len(phrase) > size]
    return [each for each in dict.fromkeys(found) if token is None or each == token]


def start(phrases: Iterable[Alternatives]) -> Progress:
    """Nothing is there yet. An alternative that begins with another one is left out: the other is enough."""
    return Progress(waiting=tuple(_shortest(alternatives) for alternatives in phrases))


def _shortest(alternatives: Alternatives) -> Alternatives:
    unique = tuple(dict.fromkeys(alternatives))
    return tuple(
        phrase
        for phrase in unique
        if not any(other != phrase and phrase[: len(other)] == other for other in unique)
    )
