"""Turns of writers that only add a letter each."""

from __future__ import annotations

from collections.abc import Sequence

from seq2seq_cli.tasks.corpse import Corpse
from seq2seq_cli.text.lines import Counts, Output


class Stub:
    """Adds its letter, and a line end, to every text; remembers the numbers that draws depend on."""

    def __init__(self, letter: str) -> None:
        self.letter, self.numbers, self.prefixes = letter, list[int](), list[object]()
        self.counts = Counts(truncated=1, unreadable=2)

    def texts(
        self,
        texts: Sequence[str],
        *,
        numbers: Sequence[int],
        places: Sequence[str] | None,
        prefixes: Sequence[str | None] | None,
    ) -> list[Output]:
        self.prefixes.append(prefixes)
        self.numbers += numbers
        assert all("\n" not in text for text in texts)
        return [Output(texts=(text + self.letter + "\n",), scores=(0.0,)) for text in texts]


def test_turns_go_round_and_never_draw_the_same_numbers() -> None:
    writers = [Stub("a"), Stub("b")]
    corpse = Corpse(writers, rounds=2, echo=False)  # type: ignore[list-item]
    outputs = corpse.texts(["x", "longer"], numbers=[5, 9])
    assert [output.texts for output in outputs] == [("a b a b ",)] * 2
    drawn = [number for writer in writers for number in writer.numbers]
    assert len(set(drawn)) == len(drawn) == 8
    again = [Stub("a"), Stub("b")]
    Corpse(again, rounds=2, echo=True).texts(["longer"], numbers=[9])  # type: ignore[list-item]
    assert again[0].numbers == writers[0].numbers[1::2], "whatever stands beside it"
    assert corpse.counts == Counts(truncated=2, unreadable=4)


def test_with_echo_the_beginning_stays() -> None:
    (output,) = Corpse([Stub("a")], rounds=3, echo=True).texts(["x"])  # type: ignore[list-item]
    assert output.texts == ("xa a a ",)


def test_the_first_turn_begins_with_the_prefix() -> None:
    writers = [Stub("a"), Stub("b")]
    Corpse(writers, rounds=2, echo=False).texts(["x"], prefixes=["tea"])  # type: ignore[arg-type]
    assert [writer.prefixes for writer in writers] == [[["tea"], None], [None, None]]
