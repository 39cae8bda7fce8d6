"""``pytorch_model.bin``: the one pickle that is read: by torch's restricted reader, after checks here."""

from __future__ import annotations

import os
import re
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from seq2seq_cli.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

_REMEDY = "use a checkpoint with safetensors files"


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensor name -> tensor of one file written by ``torch.save(model.state_dict())``.

    The current zip format is mapped, not read; the format before torch 1.6 is read as a whole. Raises
    CheckpointError for anything but plain tensors under text names: for a pickle that names other objects
    (they are not made), compressed or oversized archives, and records shorter than their tensors.
    """
    mapped = _is_zip(path)
    if not mapped:
        _check_unmapped(path)
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # torch raises whatever its parser happens to trip over
        raise _refused(path, _reason(error)) from error
    if not isinstance(state, dict):
        raise _refused(path, f"it holds a {type(state).__name__}, not a mapping of names to tensors")
    return {_checked_name(path, name, value): value for name, value in state.items()}


def _refused(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"refused pickle: {what}", where=str(path), remedy=_REMEDY)


def _is_zip(path: Path) -> bool:
    """True for the zip format, whose records must be stored as they are and fit into the file."""
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return False
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _refused(path, f"a damaged zip archive ({error})") from error
    # torch.save never compresses, so a small file that unfolds into a large one is no checkpoint.
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise _refused(path, "a compressed archive, which torch.save never writes")
    if sum(record.file_size for record in records) > path.stat().st_size:
        raise _refused(path, "an archive whose records are larger than the file")
    return True


def _check_unmapped(path: Path) -> None:
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
        raise _refused(path, f"the entry {name!r} is a {type(value).__name__}, not a named tensor")
    if value.device.type != "cpu" or value.layout != torch.strided or value.is_quantized:
        raise _refused(path, f"tensor {name!r} is not a plain tensor of numbers")
    # A stride of 0 lets a few bytes stand for any number of values, all of which a copy would write out.
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise _refused(path, f"tensor {name!r} has more values than stored bytes")
    return name
