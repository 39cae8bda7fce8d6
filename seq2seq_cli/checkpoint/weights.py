"""Tensors that lie in files: their shapes before anything is read, and their numbers, read or mapped."""

from __future__ import annotations

import math
import mmap
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seq2seq_cli.checkpoint.strict_json import shown
from seq2seq_cli.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor


class WeightFile:
    """A file with tensors in it, opened again for every use: a thousand shards need no descriptors."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, begin: int, buffer: memoryview) -> None:
        """Fill ``buffer`` with the bytes from ``begin`` on. Raises OSError."""
        with self.path.open("rb", buffering=0) as file:
            file.seek(begin)
            while buffer:
                count = file.readinto(buffer)
                if not count:
                    raise OSError("the file ends too early")
                buffer = buffer[count:]

    @cached_property
    def mapped(self) -> mmap.mmap:
        """The whole file as private memory: writing to it changes no file. Raises OSError and ValueError.

        A new file under the same name does not disturb the mapping; one that is cut while it is mapped ends
        the process (SIGBUS), as with every program that maps its weights. We replace by renaming only.
        """
        with self.path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """Where a tensor's numbers are. ``dtype`` is torch's name; ``strides`` in numbers, None = row by row."""

    file: WeightFile
    dtype: str
    shape: tuple[int, ...]
    begin: int  #: byte of the file
    strides: tuple[int, ...] | None = None

    def outline(self) -> Tensor:
        """The tensor without its numbers, on the meta device."""
        import torch

        return torch.empty(self.shape, dtype=getattr(torch, self.dtype), device="meta")

    def read(self) -> Tensor:
        """The tensor in memory of its own. Raises OSError."""
        import torch

        strides = self.strides
        sizes = self.shape if strides is None else (self._extent(strides),)
        tensor = torch.empty(sizes, dtype=getattr(torch, self.dtype))
        if tensor.numel():
            octets: Any = tensor.flatten().view(torch.uint8).numpy()
            self.file.read(self.begin, memoryview(octets))
        return tensor if strides is None else tensor.as_strided(self.shape, strides).contiguous()

    def _extent(self, strides: tuple[int, ...]) -> int:
        if 0 in self.shape:
            return 0
        return 1 + sum((size - 1) * stride for size, stride in zip(self.shape, strides, strict=True))

    def borrow(self) -> Tensor:
        """The tensor as part of the mapped file where it can be used as it stands, else read.

        Only float32 is mapped: other types are converted, and then the file's pages would stay beside that.
        Raises OSError.
        """
        tensor = self._mapped() if self.dtype == "float32" else None
        return self.read() if tensor is None else tensor

    def glimpse(self) -> Tensor:
        """The tensor for making others of: part of the mapped file, whose pages leave this process's memory
        when the tensor goes. Raises OSError."""
        tensor = self._mapped()
        if tensor is None:
            return self.read()
        first, last = (-self.begin // -mmap.PAGESIZE, (self.begin + tensor.nbytes) // mmap.PAGESIZE)
        if last > first and hasattr(mmap, "MADV_DONTNEED"):
            start, length = first * mmap.PAGESIZE, (last - first) * mmap.PAGESIZE
            weakref.finalize(tensor, self.file.mapped.madvise, mmap.MADV_DONTNEED, start, length)
        return tensor

    def _mapped(self) -> Tensor | None:
        """A view of the mapped file; None where it cannot be one."""
        import torch

        dtype = getattr(torch, self.dtype)
        count = math.prod(self.shape)
        if self.strides is not None or self.begin % dtype.itemsize or not count:
            return None
        try:
            whole = self.file.mapped
            flat = torch.frombuffer(whole, dtype=dtype, count=count, offset=self.begin)
        except (OSError, ValueError):  # a file system without mappings, or a file that has just been changed
            return None
        return flat.view(self.shape)


class Weights(Mapping[str, "Tensor"]):
    """Tensor name -> tensor, each read when it is asked for, into memory of its own, with the file's dtype.

    ``outline`` tells shape and dtype without reading; ``borrow`` gives a tensor without a copy of it where
    the file has it as float32. Tensors that are given instead of their places are in memory already.
    """

    def __init__(self, stored: Mapping[str, StoredTensor | Tensor], *, fleeting: bool = False) -> None:
        self._stored = stored
        self._fleeting = fleeting
        self._lent: set[object] = set()

    def outline(self, name: str) -> Tensor:
        """The tensor on the meta device."""
        stored = self._stored[name]
        return stored.outline() if isinstance(stored, StoredTensor) else stored.to("meta")

    def borrow(self, name: str) -> Tensor:
        """The tensor, perhaps as part of the mapped file, to keep and to change as one likes. Whoever asks
        for the same numbers again gets a copy, so that no two parameters share memory by accident.

        Raises CheckpointError.
        """
        stored = self._stored[name]
        if not isinstance(stored, StoredTensor):
            place: object = stored.untyped_storage().data_ptr()
            tensor = self[name] if place in self._lent else stored
        else:
            place = (stored.file.path, stored.begin)
            tensor = self[name] if place in self._lent else _read(name, stored.file.path, stored.borrow)
        self._lent.add(place)
        return tensor

    def __getitem__(self, name: str) -> Tensor:
        stored = self._stored[name]
        if isinstance(stored, StoredTensor):
            return _read(name, stored.file.path, stored.glimpse if self._fleeting else stored.read)
        return stored if self._fleeting else stored.clone()

    def glimpses(self, *, but: Collection[str], keep: Collection[str]) -> Weights:
        """The same for making other tensors of these: those in ``but`` on the meta device, those in ``keep``
        borrowed, as float32, to become views.

        What is got of the others lets its pages go as soon as it goes itself.
        """
        chosen: dict[str, StoredTensor | Tensor] = dict(self._stored)
        chosen |= {name: self.outline(name) for name in but}
        chosen |= {name: self.borrow(name).float() for name in keep}
        return Weights(chosen, fleeting=True)

    def renamed(self, names: Mapping[str, str]) -> Weights:
        """Some of the tensors under other names (new -> old)."""
        chosen = Weights({new: self._stored[old] for new, old in names.items()})
        chosen._lent = self._lent
        return chosen

    def under(self, prefix: str) -> Weights:
        """The tensors whose names begin with ``prefix``, without it."""
        return self.renamed({name.removeprefix(prefix): name for name in self if name.startswith(prefix)})

    def __contains__(self, name: object) -> bool:
        return name in self._stored  # Mapping's own would read the tensor to find out

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


def _read(name: str, path: Path, read: Callable[[], Tensor]) -> Tensor:
    try:
        return read()
    except OSError as error:
        raise CheckpointError(f"tensor {shown(name)} cannot be read: {error}", where=str(path)) from error
