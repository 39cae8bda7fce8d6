"""The header of a safetensors file, checked before anything maps or reads the data.

Format: 8 bytes little-endian header length, a JSON object, then the tensors' bytes without gaps.
(https://github.com/huggingface/safetensors#format)
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeGuard

from seq2seq_cli.checkpoint.strict_json import parse_json, shown
from seq2seq_cli.errors import CheckpointError

#: Bytes of JSON that are read at most: a file with fifty thousand tensors stays below. Nested brackets take
#: thirty times their size in memory, so the limit is one on that, too.
MAX_HEADER = 8 * 2**20
#: dimensions of a tensor; published ones have four at most
MOST_DIMENSIONS = 8

_ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}


@dataclass(frozen=True, kw_only=True)
class TensorEntry:
    """One tensor as its file announces it; ``begin`` and ``end`` are byte offsets into the file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(path: Path) -> dict[str, TensorEntry]:
    """Name -> entry of every tensor in ``path``, in the order of the file.

    Raises CheckpointError when the file is shorter or longer than its header says, when tensors overlap or
    leave holes, or when a dtype or shape makes no sense. Reads the header only.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            raise _damaged(path, f"a safetensors file has at least 8 bytes, this one has {size:,}")
        (length,) = struct.unpack("<Q", start)
        if length > min(size - 8, MAX_HEADER):
            raise _damaged(
                path,
                f"the header is said to have {length:,} bytes; the file has {size:,} and "
                f"the most that is accepted is {MAX_HEADER:,}",
            )
        raw = file.read(length)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _damaged(path, f"the header is not UTF-8 (byte {8 + error.start})") from error
    header = parse_json(text, where=f"{path} (header)")
    if not isinstance(header, dict):
        raise _damaged(path, "the header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _damaged(path, "__metadata__ in the header is not a mapping of text to text")
    entries = {name: _entry(path, name, value) for name, value in header.items()}
    _check_layout(path, entries, size - 8 - length)
    data = 8 + length
    return {name: replace(e, begin=data + e.begin, end=data + e.end) for name, e in entries.items()}


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"damaged weights: {what}", where=str(path), remedy="copy or download the file again"
    )


def _entry(path: Path, name: str, value: object) -> TensorEntry:
    fields = value if isinstance(value, dict) else {}
    dtype, shape, offsets = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise _damaged(path, f"tensor {shown(name)} has the unknown dtype {shown(dtype)}")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2 or len(shape) > MOST_DIMENSIONS:
        raise _damaged(path, f"tensor {shown(name)} has no usable shape and data_offsets")
    begin, end = offsets
    expected = math.prod(shape) * _ITEM_BYTES[dtype]
    if end - begin != expected:
        raise _damaged(
            path, f"tensor {shown(name)} needs {expected:,} bytes ({dtype} {shape}) and has {end - begin:,}"
        )
    return TensorEntry(dtype=dtype, shape=tuple(shape), begin=begin, end=end)


def _are_sizes(value: object) -> TypeGuard[list[int]]:
    # bool is an int to Python; true and false are no sizes.
    return isinstance(value, list) and all(type(size) is int and 0 <= size < 2**63 for size in value)


def _check_layout(path: Path, entries: dict[str, TensorEntry], data_size: int) -> None:
    """Every byte of the data belongs to exactly one tensor."""
    position = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != position:
            kind = "overlaps the tensor before it" if entry.begin < position else "leaves a hole before it"
            raise _damaged(path, f"tensor {shown(name)} {kind} (byte {entry.begin:,}, expected {position:,})")
        position = entry.end
    if position != data_size:
        raise _damaged(path, f"the tensors need {position:,} bytes of data and the file has {data_size:,}")
