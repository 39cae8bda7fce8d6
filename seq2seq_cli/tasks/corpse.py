"""The exquisite corpse: models take turns, each going on with the text that the one before it left."""

from __future__ import annotations

from collections.abc import Sequence

from seq2seq_cli.decoding.engine import TextGenerator
from seq2seq_cli.text.lines import Counts, Output, one_line


class Corpse:
    """Answers texts as a text generator does; the answer is what all turns of all rounds added.

    writers: one a turn, made with ``echo``; the same one may come more than once. With ``echo`` the text that
    came in stands before the answer.
    """

    def __init__(self, writers: Sequence[TextGenerator], *, rounds: int, echo: bool) -> None:
        self._turns = [writer for _ in range(rounds) for writer in writers]
        self._echo = echo

    @property
    def counts(self) -> Counts:
        """Those of all turns."""
        return sum((writer.counts for writer in set(self._turns)), Counts())

    def texts(
        self,
        texts: Sequence[str],
        *,
        numbers: Sequence[int] | None = None,
        places: Sequence[str] | None = None,
        prefixes: Sequence[str | None] | None = None,
    ) -> list[Output]:
        """The outputs of ``texts``, one each, in order; a text of white space alone gives an empty one.
        ``prefixes`` is what the first turn begins with.

        The draws of a turn depend on the seed, the text's number and the turn's.
        """
        keys = numbers if numbers is not None else range(len(texts))
        # as in a pipe, where each program writes one line
        written = [one_line(text) for text in texts]
        for turn, writer in enumerate(self._turns):
            draws = [key * len(self._turns) + turn for key in keys]
            begun = prefixes if turn == 0 else None
            outputs = writer.texts(written, numbers=draws, places=places, prefixes=begun)
            written = [one_line(output.texts[0]) for output in outputs]
        starts = [0 if self._echo else len(text) for text in texts]
        return [Output(texts=(w[start:],), scores=(0.0,)) for w, start in zip(written, starts, strict=True)]
