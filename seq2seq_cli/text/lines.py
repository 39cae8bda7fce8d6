"""Lines of text from a byte stream, and generated text back to one line."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from seq2seq_cli import console
from seq2seq_cli.errors import DataError

#: A line above this many bytes is refused, so that a stream without a newline cannot fill the memory.
MAX_LINE_BYTES = 256 * 2**20


@dataclass(frozen=True, kw_only=True)
class Output:
    """What became of one line: the texts, the best first, their scores, and the tokens of each, to be read,
    with the log-probability of each token; no ``tokens`` where nobody asked."""

    texts: tuple[str, ...]
    scores: tuple[float, ...]
    tokens: tuple[Sequence[tuple[str, float]], ...] = ()


@dataclass(kw_only=True)
class Counts:
    """How many inputs and outputs are not what was asked for."""

    truncated: int = 0  #: inputs that were cut to what the model takes
    unreadable: int = 0  #: inputs that gave no token; their output is empty
    uncoded: int = 0  #: prompts without one of the codes that their model was trained to continue
    incomplete: int = 0  #: outputs that ended before their grammar was complete; they are empty

    def __add__(self, other: Counts) -> Counts:
        mine, theirs = vars(self), vars(other)
        return Counts(**{name: mine[name] + theirs[name] for name in mine})


class ByteLines(Protocol):
    """What lines are read from: a binary file, or a ``PipeReader``."""

    def readline(self, limit: int = -1, /) -> bytes:
        """The next line with its newline, at most ``limit`` bytes of it."""
        ...


_TERMINATORS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_ONE_SPACE = dict.fromkeys(map(ord, _TERMINATORS + "\0"), " ")


def one_line(text: str) -> str:
    """``text`` with every line terminator that any reader knows, and NUL, replaced by one space."""
    return text.translate(_ONE_SPACE)


def settled(text: str) -> str:
    """The beginning of a text in the making that further tokens leave as it is: all but its last word, which
    may go on, or be a character that lacks bytes. Wide characters are words of their own."""
    for place in range(len(text), 0, -1):
        if text[place - 1].isspace():
            return text[: place - 1]
        if unicodedata.east_asian_width(text[place - 1]) in "WF":
            return text[:place]
    return ""


def read_lines(
    stream: ByteLines, *, name: str, errors: str = "strict", max_bytes: int = MAX_LINE_BYTES
) -> Iterator[str]:
    r"""Yield the lines of a UTF-8 stream without their ``\n``, each as soon as it has arrived.

    Only ``\n`` ends a line; a byte order mark, ``\r``, NUL and the Unicode separators are ordinary
    characters. A last line without ``\n`` counts. ``name`` is what the stream is called in messages.

    ``errors="strict"`` raises :class:`DataError` at the first invalid byte (``name:line:byte``);
    ``errors="replace"`` puts U+FFFD there and reports the number of such lines once, at the end.
    """
    if errors not in ("strict", "replace"):
        raise ValueError(f"errors must be 'strict' or 'replace', not {errors!r}")
    number = 0
    replaced = 0
    while raw := _read_line(stream, name, max_bytes):
        number += 1
        if raw.endswith(b"\n"):
            raw = raw[:-1]
        if len(raw) > max_bytes:
            raise DataError(
                f"a line is longer than {max_bytes} bytes",
                where=f"{name}:{number}",
                remedy="split it into lines",
            )
        try:
            yield raw.decode("utf-8")
            continue
        except UnicodeDecodeError as error:
            if errors == "strict":
                raise DataError(
                    f"invalid UTF-8: byte 0x{raw[error.start]:02x} ({error.reason})",
                    where=f"{name}:{number}:{error.start + 1}",
                    remedy="convert it to UTF-8 (iconv) or use errors=replace",
                ) from None
        replaced += 1
        yield raw.decode("utf-8", "replace")
    if replaced:
        console.warn(f"{replaced} line(s) with invalid UTF-8, read with U+FFFD in place · {name}")


def _read_line(stream: ByteLines, name: str, max_bytes: int) -> bytes:
    """One line with its newline; at most ``max_bytes`` and one more, which tells a line that is too long."""
    try:
        return stream.readline(max_bytes + 1)
    except OSError as error:
        raise DataError(f"cannot read: {error.strerror or error}", where=name) from error
