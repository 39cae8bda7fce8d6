"""Token ids on disk, so that no text is tokenized twice: one file for texts, tokenizer and limits.

A file is in safetensors' format: ``flat`` (all ids) and ``lengths``, both int32, with a checksum in its
header. It is written while the texts are tokenized and mapped into memory afterwards: memory stays flat
whatever the size of the data.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from seq2seq_cli import console
from seq2seq_cli.data.sequences import Cut, Sequences

#: the folder; ``off`` for none
VARIABLE = "S2S_CACHE"
#: Fewer characters than these are tokenized in less time than a file takes.
_SMALL = 2**18
#: The header has a fixed size, so that it can be written when all the rest is.
_HEADER = 1024
#: Above this many bytes the files that were not used for longest are deleted.
_LARGEST_FOLDER = 20 * 2**30
_WRITE_AT_ONCE = 4096  # sequences


def cache_folder() -> Path | None:
    """Where token ids are kept: ``$S2S_CACHE``, else ``s2s/tokens`` in the user's cache; None: nowhere."""
    named = os.environ.get(VARIABLE)
    if named is not None:
        return None if named.lower() in ("", "off", "0") else Path(named)
    caches = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (caches if caches.is_absolute() else Path.home() / ".cache") / "s2s" / "tokens"
    except RuntimeError:  # a user without a home
        return None


def tokenized(texts: Callable[[], Iterable[str]], cut: Cut) -> Sequences:
    """What ``cut`` makes of ``texts`` (called once or twice), from the cache where it was made before.

    Of several processes that want the same, one tokenizes and the others wait. A damaged file is made anew;
    where nothing can be written the ids are kept in memory.
    """
    folder = cache_folder()
    key, characters = _key(texts(), cut) if folder is not None else ("", 0)
    if folder is None or characters < _SMALL:
        return Sequences.of(cut(texts()))
    path = folder / f"{key}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(path.with_suffix(".lock")):
            found = _read(path, checked=True)
            if found is None:
                _write(path, cut(texts()), cut)
                _prune(folder, keep=path)
                found = _read(path, checked=False)
    except OSError as error:
        _warn_once(f"token ids are not kept in {folder}: {error.strerror or error}")
        found = None
    if found is None:
        cut.count = 0
        return Sequences.of(cut(texts()))
    sequences, cut.count = found
    return sequences


@cache
def _warn_once(what: str) -> None:
    console.warn(f"{what} · set {VARIABLE} to another folder, or to off")


def _key(texts: Iterable[str], cut: Cut) -> tuple[str, int]:
    """(SHA-256 of everything that decides the ids, number of characters)."""
    digest = hashlib.sha256(cut.description.encode())
    characters = 0
    for text in texts:
        content = text.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(content))
        digest.update(content)
        characters += len(text)
    return digest.hexdigest(), characters


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time; where the file system has no locks, several may do the same work."""
    with path.open("w") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _write(path: Path, sequences: Iterable[list[int]], cut: Cut) -> None:
    """Write all of ``sequences`` beside ``path`` and rename: the file appears whole or not at all."""
    handle, name = tempfile.mkstemp(prefix=path.stem[:16], suffix=".part", dir=path.parent)
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.seek(_HEADER)
            digest = hashlib.sha256()
            lengths: list[NDArray[np.int32]] = []
            for chunk in _chunks(sequences):
                lengths.append(np.fromiter(map(len, chunk), np.int32, len(chunk)))
                flat = array("i")
                for sequence in chunk:
                    flat.extend(sequence)
                _append(file, digest, np.array(flat, np.int32))
            ids = file.tell() - _HEADER
            all_lengths = np.concatenate(lengths) if lengths else np.zeros(0, np.int32)
            _append(file, digest, all_lengths)
            file.seek(0)
            file.write(_header(ids // 4, len(all_lengths), digest.hexdigest(), cut.count))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _chunks(sequences: Iterable[list[int]]) -> Iterator[list[list[int]]]:
    chunk: list[list[int]] = []
    for ids in sequences:
        chunk.append(ids)
        if len(chunk) == _WRITE_AT_ONCE:
            yield chunk
            chunk = []
    yield chunk


def _append(file: IO[bytes], digest: hashlib._Hash, values: NDArray[np.int32]) -> None:
    content = np.ascontiguousarray(values, "<i4").tobytes()
    file.write(content)
    digest.update(content)


def _header(ids: int, rows: int, checksum: str, cut: int) -> bytes:
    entries = {
        "__metadata__": {"sha256": checksum, "cut": str(cut)},
        "flat": {"dtype": "I32", "shape": [ids], "data_offsets": [0, 4 * ids]},
        "lengths": {"dtype": "I32", "shape": [rows], "data_offsets": [4 * ids, 4 * (ids + rows)]},
    }
    text = json.dumps(entries).encode().ljust(_HEADER - 8)
    return len(text).to_bytes(8, "little") + text


def _read(path: Path, *, checked: bool) -> tuple[Sequences, int] | None:
    """(the ids mapped into memory, how many were cut); None where there is no whole file."""
    if not path.exists():
        return None
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER)
        entries = json.loads(head[8:])
        (ids,), (rows,) = entries["flat"]["shape"], entries["lengths"]["shape"]
        checksum, cut = entries["__metadata__"]["sha256"], int(entries["__metadata__"]["cut"])
        if head != _header(ids, rows, checksum, cut) or path.stat().st_size != _HEADER + 4 * (ids + rows):
            raise ValueError
        mapped = np.memmap(path, "<i4", "r", _HEADER, (ids + rows,)) if ids + rows else ()
        values = np.asarray(mapped, np.int32)
        if checked and hashlib.sha256(values.data).hexdigest() != checksum:
            raise ValueError
        lengths = values[ids:].astype(np.int64)
        if (lengths < 0).any() or lengths.sum() != ids:
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        console.warn(f"{path} is damaged; its texts are tokenized anew")
        return None
    with suppress(OSError):
        os.utime(path)
    return Sequences(values[:ids], lengths), cut


def _prune(folder: Path, *, keep: Path) -> None:
    """Delete the files that were not used for longest while all together are too large."""
    files = [(path, path.stat()) for path in folder.glob("*.safetensors")]
    size = sum(stat.st_size for _, stat in files)
    for path, stat in sorted(files, key=lambda each: each[1].st_mtime):
        if size <= _LARGEST_FOLDER:
            return
        if path != keep:
            path.unlink(missing_ok=True)
            size -= stat.st_size
