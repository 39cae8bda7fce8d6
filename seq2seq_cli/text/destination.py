"""Where results go: stdout, a file that appears whole, or straight into a pipe or a device."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from seq2seq_cli.errors import ResourceError, UsageError


class Destination:
    """Text to stdout (no path, or ``-``), to a file, or straight into what is no regular file.

    A context manager. A file is written as ``FILE.part``, which gets its name when the block ends without an
    error; a link is followed, so that the file it leads to is the one that is replaced. After an error the
    part is taken away; a ``resumable`` one stays when something is in it, and ``resume`` goes on behind its
    whole lines: ``done`` counts them. ``is_complete`` says that the file itself is there, and nothing is to
    be written. UsageError for a folder and, without ``overwrite``, a file that is there; ResourceError for
    what cannot be written.
    """

    def __init__(
        self, path: Path | None, *, overwrite: bool = False, resumable: bool = False, resume: bool = False
    ) -> None:
        self.done = 0
        self.is_complete = False
        self._path = None if path is None or str(path) == "-" else path
        self._file: BinaryIO | None = None
        self._part: Path | None = None
        self._resumable = resumable
        if self._path is None:
            _refuse_resume(resume, "stdout")
            return
        with writing(self._path):
            self._open(self._path, overwrite=overwrite, resume=resume)

    def _open(self, path: Path, *, overwrite: bool, resume: bool) -> None:
        found = path.stat() if path.exists() else None  # through links
        if found is not None and stat.S_ISDIR(found.st_mode):
            raise UsageError("this is a folder", where=str(path), remedy="name a file")
        if found is not None and not stat.S_ISREG(found.st_mode):
            _refuse_resume(resume, str(path))
            self._file = path.open("wb")
            return
        if found is not None and os.path.samestat(found, os.fstat(1)):
            self._path = None  # /dev/stdout, where a shell has sent that to a file
            return
        if found is not None and resume:
            self.is_complete = True
            return
        if found is not None and not overwrite:
            remedy = "add --overwrite to replace it, or name another"
            raise UsageError("the file exists", where=str(path), remedy=remedy)
        self._target = Path(os.path.realpath(path))
        if self._target.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        part = self._target.with_name(self._target.name + ".part")
        if resume and part.exists():
            self.done = _keep_whole_lines(part)
        self._file = part.open("ab" if self.done else "wb")
        self._part = part

    @property
    def is_stdout(self) -> bool:
        """True when the text goes to stdout."""
        return self._path is None

    @property
    def is_resumable(self) -> bool:
        """True when what is written stays after an error, to go on behind it."""
        return self._resumable and self._part is not None

    def write(self, text: str) -> None:
        """Hand text to the system now, so that a reader has it."""
        self.write_bytes(text.encode("utf-8", "replace"))

    def write_bytes(self, data: bytes) -> None:
        """As ``write``, for what is no text."""
        if self._path is None:
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        assert self._file is not None
        with writing(self._path):
            self._file.write(data)
            self._file.flush()

    def __enter__(self) -> Destination:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        assert self._path is not None
        if error is not None:
            self._leave()
            return
        try:
            with writing(self._path):
                if self._part is not None:
                    os.fsync(self._file.fileno())
                self._file.close()
                if self._part is not None:
                    self._part.replace(self._target)
        except ResourceError:
            self._leave()
            raise

    def _leave(self) -> None:
        """Close after an error, and take away a part that nobody will go on with."""
        assert self._file is not None
        with suppress(OSError):  # the first error is the one to report
            self._file.close()
        with suppress(OSError):
            if self._part is not None and not (self._resumable and self._part.stat().st_size):
                self._part.unlink()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the disk refuses while ``path`` is written into a ResourceError that names it. A reader that
    went away from a pipe is no such error."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        above = path.parent
        if isinstance(error, FileNotFoundError) and not above.exists():
            what, remedy = f"the folder {above} does not exist", "make it first"
        else:
            what, remedy = error.strerror or str(error), "write elsewhere, or see to its space and rights"
        raise ResourceError(f"cannot write: {what}", where=str(path), remedy=remedy) from error


def _refuse_resume(resume: bool, name: str) -> None:
    if resume:
        raise UsageError(f"{name} cannot be resumed", where="--resume", remedy="add -o FILE")


def _keep_whole_lines(part: Path) -> int:
    """Cut a half-written last line off; the number of whole ones."""
    with part.open("rb+") as file:
        lines, end = 0, 0
        for line in file:
            if line.endswith(b"\n"):
                lines, end = lines + 1, end + len(line)
        file.truncate(end)
    return lines
