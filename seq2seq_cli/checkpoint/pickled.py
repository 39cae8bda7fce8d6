"""``pytorch_model.bin``: the one pickle that is read: by torch's restricted reader, after checks here."""

from __future__ import annotations

import os
import re
import struct
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from seq2seq_cli.checkpoint.strict_json import shown
from seq2seq_cli.checkpoint.weights import StoredTensor, WeightFile
from seq2seq_cli.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

_REMEDY = "use a checkpoint with safetensors files"
#: more than any model has; torch's reader, which is written in Python, would take minutes
_MOST_RECORDS = 100_000
_MOST_PICKLE = 32 * 2**20


def read_state(path: Path) -> Mapping[str, StoredTensor | Tensor]:
    """Tensor name -> where its numbers are, of one file written by ``torch.save(model.state_dict())``.

    Of the current zip format only the names and shapes are read here; the format before torch 1.6 is read as
    a whole, and its tensors are given. Raises CheckpointError for anything but plain tensors under text
    names: for a pickle that names other objects (they are not made), for compressed or oversized archives,
    and for records that are not as long as their tensors.
    """
    try:
        records = _records(path)
        if records is None:
            _check_old_format(path)
    except (OSError, struct.error) as error:
        raise _refused(path, f"cannot be read: {error}") from error
    import torch

    try:
        # mapped, torch makes every tensor a view of the file without reading it
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=records is not None)
    except Exception as error:  # torch raises whatever its parser happens to trip over
        raise _refused(path, _reason(error)) from error
    if not isinstance(state, dict):
        raise _refused(path, f"it holds a {type(state).__name__}, not a mapping of names to tensors")
    checked = {_checked_name(path, name, value): value for name, value in state.items()}
    return checked if records is None else _placed(path, checked, records)


def _refused(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"refused pickle: {what}", where=str(path), remedy=_REMEDY)


def _records(path: Path) -> list[tuple[int, int]] | None:
    """First byte and size of every storage in a zip archive, in the order of the file; None for the old
    format. The archive's records must be stored as they are, and fit into the file."""
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return None
        try:
            with zipfile.ZipFile(file) as archive:
                records = archive.infolist()
                order = [record for record in records if record.filename.endswith("/byteorder")]
                # torch.save never compresses, so a small file that unfolds into a large one is no checkpoint
                if any(record.compress_type != zipfile.ZIP_STORED for record in records):
                    raise _refused(path, "a compressed archive, which torch.save never writes")
                if sum(record.file_size for record in records) > path.stat().st_size:
                    raise _refused(path, "an archive whose records are larger than the file")
                orders = [archive.read(record) for record in order if record.file_size < 16]
        except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, EOFError) as error:
            raise _refused(path, f"a damaged zip archive ({error})") from error
        pickles = [record.file_size for record in records if record.filename.endswith("data.pkl")]
        if len(records) > _MOST_RECORDS or sum(pickles) > _MOST_PICKLE:
            raise _refused(path, "an archive with more in it than any model has")
        if any(order != sys.byteorder.encode() for order in orders):
            raise _refused(path, "numbers in the byte order of another kind of machine")
        found = []
        for record in records:
            if record.file_size and re.fullmatch(r"[^/]*/data/[^/]+", record.filename):
                file.seek(record.header_offset + 26)
                name, extra = struct.unpack("<HH", file.read(4))
                found.append((record.header_offset + 30 + name + extra, record.file_size))
        return sorted(found)


def _placed(
    path: Path, state: Mapping[str, Tensor], records: list[tuple[int, int]]
) -> dict[str, StoredTensor]:
    """Where each mapped tensor is in the file.

    torch takes a storage's length from the pickle and its place from the archive, and lets one reach into
    the next. As all storages are parts of one mapping, the distances between them are those in the file:
    they must be the archive's records, no more and no less.
    """
    spans = {(s.data_ptr(), s.nbytes()) for s in (t.untyped_storage() for t in state.values()) if s.nbytes()}
    storages = sorted(spans)
    base = storages[0][0] - records[0][0] if storages and records else 0
    if [(pointer - base, size) for pointer, size in storages] != records:
        raise _refused(path, "its records are not as long as the tensors that they belong to")
    file = WeightFile(path)
    return {
        name: StoredTensor(
            file=file,
            dtype=str(tensor.dtype).removeprefix("torch."),
            shape=tuple(tensor.shape),
            strides=None if tensor.is_contiguous() else tuple(tensor.stride()),
            begin=tensor.data_ptr() - base if tensor.numel() else 0,
        )
        for name, tensor in state.items()
    }


def _check_old_format(path: Path) -> None:
    """Before a file is read as a whole: is it a pickle at all, and does it fit into the machine's memory?"""
    size = path.stat().st_size
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
        raise _refused(path, f"{size:,} bytes to be read as a whole, and the machine has {memory:,}")
    with path.open("rb") as file:
        start = file.read(1)
    if start != b"\x80":
        kind = "an old tar archive" if tarfile.is_tarfile(path) else "not a file that torch.save wrote"
        raise _refused(path, kind)


def _reason(error: Exception) -> str:
    """torch's explanation, without its advice to switch the protection off."""
    text = str(error)
    name = re.search(r"(?:GLOBAL|type|class|function) ([\w.]+)", text)
    if "Weights only load failed" in text:
        named = f" ({name[1]})" if name else ""
        return f"it asks for more than tensors{named} or is damaged; nothing in it was run"
    return " ".join(text.split())[:300] or f"damaged ({type(error).__name__})"


def _checked_name(path: Path, name: object, value: object) -> str:
    import torch

    if not isinstance(name, str) or not isinstance(value, torch.Tensor):
        kind = type(value).__name__
        raise _refused(path, f"the entry {shown(name)} is a {kind}, not a named tensor")
    plain = value.device.type == "cpu" and value.layout == torch.strided and not value.is_quantized
    if not plain or value.is_neg() or value.is_conj():
        raise _refused(path, f"tensor {shown(name)} is not a plain tensor of numbers")
    # A stride of 0 lets a few bytes stand for any number of values, all of which a copy would write out.
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise _refused(path, f"tensor {shown(name)} has more values than stored bytes")
    return name
