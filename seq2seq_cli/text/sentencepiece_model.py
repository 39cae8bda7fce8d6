"""SentencePiece's ``.model`` files, read without its library and with a bound on everything.

The format is a protocol buffer (sentencepiece_model.proto of github.com/google/sentencepiece): fields of a
number, a wire type and a value, nested in each other. Only what decides ids is read.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.text.files import check_size

#: Four times the largest published vocabulary.
_MOST_PIECES = 2**20
_LONGEST_VARINT = 10  # bytes of a 64-bit number, seven bits each


class Kind(IntEnum):
    """What a piece is for."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, kw_only=True)
class SentencePieceModel:
    """A unigram model: ``pieces`` are (text, score, kind), in the order of their ids."""

    pieces: list[tuple[str, float, int]]
    unk_id: int
    charsmap: bytes | None  # compiled normalisation rules


class _DamagedError(Exception):
    pass


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """The unigram model in a ``.model`` file.

    Raises :class:`CheckpointError` for a file that is damaged, that holds another kind of model (BPE, word,
    character), or that asks for a treatment of spaces that these families' tokenizers do not have.
    """
    check_size(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read: {error.strerror}", where=str(path)) from None
    try:
        pieces, trainer, normalizer = _parse(memoryview(content))
    except _DamagedError as error:
        raise CheckpointError(
            f"not a SentencePiece model: {error}", where=str(path), remedy="fetch it again"
        ) from None
    _refuse_others(trainer, normalizer, path)
    unk_id = trainer.get(_UNK_ID, 0)
    if not 0 <= unk_id < len(pieces):
        raise CheckpointError(f"unk_id {unk_id} is not one of {len(pieces)} pieces", where=str(path))
    charsmap = normalizer.get(_CHARSMAP, b"")
    assert isinstance(charsmap, bytes)
    return SentencePieceModel(pieces=pieces, unk_id=unk_id, charsmap=charsmap or None)


# -- fields of the messages, by number ---------------------------------------------------------------------

_PIECES, _TRAINER, _NORMALIZER, _DENORMALIZER = 1, 2, 3, 5
_PIECE, _SCORE, _KIND = 1, 2, 3
_MODEL_TYPE, _SPACE_AS_SUFFIX, _UNK_ID = 3, 24, 40
_CHARSMAP, _DUMMY_PREFIX, _ESCAPE_SPACES = 2, 3, 5
_MODEL_TYPES = {1: "unigram", 2: "BPE", 3: "word", 4: "character"}


def _refuse_others(trainer: dict[int, int], normalizer: dict[int, int | bytes], path: Path) -> None:
    model_type = trainer.get(_MODEL_TYPE, 1)
    if model_type != 1:
        name = _MODEL_TYPES.get(model_type, str(model_type))
        raise CheckpointError(
            f"a SentencePiece model of type {name} is not understood, only unigram",
            where=str(path),
            remedy="load it with transformers' AutoTokenizer and save it: that writes a tokenizer.json",
        )
    for told, what in (
        (trainer.get(_SPACE_AS_SUFFIX, 0) != 0, "treat_whitespace_as_suffix"),
        (normalizer.get(_DUMMY_PREFIX, 1) == 0, "add_dummy_prefix: false"),
        (normalizer.get(_ESCAPE_SPACES, 1) == 0, "escape_whitespaces: false"),
        (normalizer.get(_DENORMALIZER, 0) != 0, "a denormalizer"),
    ):
        if told:
            raise CheckpointError(f"SentencePiece's {what} is not supported", where=str(path))


def _parse(
    content: memoryview,
) -> tuple[list[tuple[str, float, int]], dict[int, int], dict[int, int | bytes]]:
    pieces: list[tuple[str, float, int]] = []
    trainer: dict[int, int] = {}
    normalizer: dict[int, int | bytes] = {}
    for field, value in _fields(content):
        if field in (_PIECES, _TRAINER, _NORMALIZER, _DENORMALIZER) and isinstance(value, int):
            raise _DamagedError(f"field {field} is a number")
        if isinstance(value, int):
            continue
        if field == _PIECES:
            if len(pieces) == _MOST_PIECES:
                raise _DamagedError(f"more than {_MOST_PIECES} pieces")
            pieces.append(_piece(value))
        elif field == _TRAINER:
            trainer.update((key, v) for key, v in _fields(value) if isinstance(v, int))
        elif field == _NORMALIZER:
            normalizer.update((key, v if isinstance(v, int) else bytes(v)) for key, v in _fields(value))
        elif field == _DENORMALIZER and any(key == _CHARSMAP and len_of(v) for key, v in _fields(value)):
            normalizer[_DENORMALIZER] = 1
    if not pieces:
        raise _DamagedError("it has no pieces")
    if not isinstance(normalizer.get(_CHARSMAP, b""), bytes):
        raise _DamagedError("the rules of normalisation are a number")
    return pieces, trainer, normalizer


def len_of(value: int | memoryview) -> int:
    """Bytes in a field; a number has none."""
    return 0 if isinstance(value, int) else len(value)


def _piece(content: memoryview) -> tuple[str, float, int]:
    text, score, kind = "", 0.0, int(Kind.NORMAL)
    for field, value in _fields(content):
        if field == _PIECE and not isinstance(value, int):
            try:
                text = bytes(value).decode("utf-8")
            except UnicodeDecodeError:
                raise _DamagedError("a piece is not UTF-8") from None
        elif field == _SCORE and not isinstance(value, int) and len(value) == 4:
            (score,) = struct.unpack("<f", value)
        elif field == _KIND and isinstance(value, int):
            kind = value
    if not text:
        raise _DamagedError("a piece is empty")
    if not math.isfinite(score):
        raise _DamagedError(f"the score of {text!r} is {score}")
    return text, score, kind


def _fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) in turn: an int for a varint, the bytes for everything else."""
    place = 0
    while place < len(content):
        key, place = _varint(content, place)
        wire = key & 7
        if wire == 0:
            number, place = _varint(content, place)
            yield key >> 3, _signed(number)
            continue
        if wire == 2:
            size, place = _varint(content, place)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise _DamagedError(f"unknown wire type {wire}")
        if size > len(content) - place:
            raise _DamagedError(f"{size} bytes are announced, {len(content) - place} are left")
        yield key >> 3, content[place : place + size]
        place += size


def _varint(content: memoryview, place: int) -> tuple[int, int]:
    number = 0
    for count in range(_LONGEST_VARINT):
        if place + count >= len(content):
            raise _DamagedError("it ends inside a number")
        byte = content[place + count]
        number |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return number & (2**64 - 1), place + count + 1
    raise _DamagedError("a number is too long")


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number
