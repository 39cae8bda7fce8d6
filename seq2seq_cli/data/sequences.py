"""Many texts as ids in one flat array: tokenized in chunks, cut to a longest length, counted."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tokenizers
from numpy.typing import NDArray

from seq2seq_cli import __version__
from seq2seq_cli.errors import UsageError
from seq2seq_cli.text.tokenizer import Tokenizer

#: Texts tokenized in one go: enough to keep all cores busy, little enough to keep memory flat.
_CHUNK = 4096


class Sequences:
    """``flat`` int32 [all ids], ``lengths`` int64 [N]: sequence i ends at ``ends[i]``."""

    def __init__(self, flat: NDArray[np.int32], lengths: NDArray[np.int64]) -> None:
        self.flat, self.lengths = flat, lengths
        self.ends = np.cumsum(lengths)

    @classmethod
    def of(cls, sequences: Iterable[Sequence[int]]) -> Sequences:
        """All of ``sequences``, in memory."""
        flat, lengths = array("i"), array("q")
        for sequence in sequences:
            flat.extend(sequence)
            lengths.append(len(sequence))
        return cls(np.array(flat, np.int32), np.array(lengths, np.int64))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> NDArray[np.int32]:
        end = self.ends[index]
        return self.flat[end - self.lengths[index] : end]


class Cut:
    """Tokenizes texts and cuts what is too long, keeping the closing special tokens; counts the cuts.

    ``special`` adds the tokenizer's template, ``before`` puts ids before each text, which ``limit`` does
    not count. With ``whole_words`` a piece that goes on with the word before it is ``~id``, below zero.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        limit: int | None,
        *,
        special: bool,
        before: Sequence[int] = (),
        whole_words: bool = False,
    ) -> None:
        self._tokenizer, self._limit, self._special = tokenizer, limit, special
        self._before, self._whole_words = list(before), whole_words
        self._end = list(tokenizer.template[1]) if special else []
        smallest = sum(map(len, tokenizer.template)) + 1 if special else 0
        if limit is not None and limit < smallest:
            raise UsageError(f"a length of {limit} leaves no room for text", remedy=f"at least {smallest}")
        self.count = 0

    @property
    def description(self) -> str:
        """Everything that decides what a text becomes."""
        settings = (self._special, self._limit, self._before, self._whole_words)
        return f"{__version__} {tokenizers.__version__} {self._tokenizer.fingerprint} {settings}"

    def __call__(self, texts: Iterable[str]) -> Iterator[list[int]]:
        chunk: list[str] = []
        for text in texts:
            chunk.append(text)
            if len(chunk) == _CHUNK:
                yield from self._encode(chunk)
                chunk = []
        yield from self._encode(chunk)

    def _encode(self, chunk: list[str]) -> Iterator[list[int]]:
        encode = self._tokenizer.encode_words if self._whole_words else self._tokenizer.encode
        for ids in encode(chunk, special=self._special):
            if self._limit is not None and len(ids) > self._limit:
                self.count += 1
                ids = ids[: self._limit - len(self._end)] + self._end
            yield self._before + ids if self._before else ids


def room(length: int | None, name: str, *, beside: int) -> int | None:
    """Room for the text beside the eos id, and whatever else has to stand there."""
    if length is not None and length <= beside:
        raise UsageError(f"{name} of {length} leaves no room for text", remedy=f"at least {beside + 1}")
    return None if length is None else length - beside


def content_hash(start_id: int | None, eos_id: int | None, *parts: Sequences) -> str:
    """SHA-256 of all ids in their order."""
    digest = hashlib.sha256(f"{start_id} {eos_id}".encode())
    for part in parts:
        digest.update(np.ascontiguousarray(part.lengths, "<i8").data)
        digest.update(np.ascontiguousarray(part.flat, "<i4").data)
    return digest.hexdigest()
