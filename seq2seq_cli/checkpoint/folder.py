"""Writing a folder so that at every moment either the old content or the new one is there, whole.

write into a hidden sibling -> fsync its files -> manifest -> one rename -> fsync the parent -> delete the
old. A process that dies in between leaves a hidden sibling, which the next save there sweeps away.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from seq2seq_cli import console
from seq2seq_cli.checkpoint.failpoints import failpoint
from seq2seq_cli.checkpoint.strict_json import parse_json
from seq2seq_cli.errors import CheckpointError, Finding, ResourceError, UsageError

MANIFEST = "manifest.json"

#: Errors of the disk rather than of the program.
_DISK = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EIO,
    errno.EACCES,
    errno.EPERM,
    errno.EBUSY,
    errno.ENAMETOOLONG,
}


@contextmanager
def stage_folder(
    target: Path, *, overwrite: bool = False, manifest: bool = False, needed: int = 0
) -> Iterator[Path]:
    """Yield an empty folder beside ``target``; when the block ends without an error it becomes ``target``.

    overwrite: replace what ``target`` holds, as a whole. manifest: add ``manifest.json`` (file name -> size
    and sha256). needed: bytes that will be written, checked against the free space first.

    Raises UsageError for a target that is not empty (without ``overwrite``) or cannot be replaced, and
    ResourceError when the disk is full, read-only or failing: then the old content is intact, and what was
    written of the new one is removed.
    """
    target = Path(os.path.realpath(target))  # through a link: the folder it names is replaced, not the link
    try:
        _check_target(target, overwrite=overwrite)
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        _check_space(target, needed)
        stage, lock = _make_stage(target)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError("a folder above it is a file", where=str(target)) from error
    except OSError as error:
        raise _explained(error, target) from error
    try:
        yield stage
        _flush(stage, manifest=manifest)
        failpoint("save:before-rename")
        _replace(stage, target, overwrite=overwrite)
    except Exception as error:
        if _error_number(error) in _DISK:
            raise _explained(error, target) from error
        raise
    finally:
        # After an exchange this is the old content; after an error what was written of the new one.
        shutil.rmtree(stage, ignore_errors=True)
        os.close(lock)


def write_folder(
    target: Path,
    write: Callable[[Path], None],
    *,
    overwrite: bool = False,
    manifest: bool = False,
    needed: int = 0,
) -> None:
    """``write(stage)`` inside stage_folder, once more from the start when the disk reports an I/O error."""
    try:
        with stage_folder(target, overwrite=overwrite, manifest=manifest, needed=needed) as stage:
            write(stage)
    except ResourceError as error:
        if error.__cause__ is None or _error_number(error.__cause__) != errno.EIO:
            raise
        console.warn(f"input/output error while writing {target}; trying once more")
        with stage_folder(target, overwrite=overwrite, manifest=manifest, needed=needed) as stage:
            write(stage)


def verify_manifest(folder: Path) -> list[Finding]:
    """What in ``folder`` differs from its ``manifest.json``: empty when every file is as it was written."""
    path = folder / MANIFEST
    try:
        listed = parse_json(path.read_text(encoding="utf-8"), where=str(path))
    except (OSError, UnicodeDecodeError) as error:
        return [Finding(f"no readable {MANIFEST}: {error}", str(folder))]
    except CheckpointError as error:
        return list(error.findings)
    if not isinstance(listed, dict):
        return [Finding("not a JSON object", str(path))]
    findings = [_compare(folder, name, expected) for name, expected in listed.items()]
    return [finding for finding in findings if finding is not None]


def _compare(folder: Path, name: str, expected: object) -> Finding | None:
    path = folder / name
    parts = PurePosixPath(name).parts
    if not isinstance(expected, dict) or not parts or name.startswith("/") or ".." in parts:
        return Finding(f"{MANIFEST} has no usable entry {name!r}", str(folder / MANIFEST))
    if not path.is_file():
        return Finding("file is missing", str(path))
    size = path.stat().st_size
    if size != expected.get("size"):
        return Finding(f"file has {size} bytes instead of {expected.get('size')}", str(path))
    if _sha256(path) != expected.get("sha256"):
        return Finding("file was changed or damaged (its sha256 differs)", str(path))
    return None


def _check_target(target: Path, *, overwrite: bool) -> None:
    if target.exists() and not target.is_dir():
        raise UsageError("there is a file of this name", where=str(target), remedy="name a folder")
    home = Path(os.path.realpath(os.environ.get("HOME", "/")))
    if target in (Path.cwd(), *Path.cwd().parents, home):
        raise UsageError(
            "the current folder, its parents and the home folder are never replaced",
            where=str(target),
            remedy="name a folder of its own",
        )
    if target.is_dir() and not overwrite and any(target.iterdir()):
        raise _not_empty(target)


def _not_empty(target: Path) -> UsageError:
    return UsageError(
        "the folder is not empty", where=str(target), remedy="name another, or replace it with --overwrite"
    )


def _stage_prefix(target: Path) -> str:
    return f".{target.name}.stage-"


def _aside(target: Path) -> Path:
    """Where the old content waits while two renames replace it (file systems without an exchange)."""
    return target.with_name(f".{target.name}.replaced")


def _sweep(target: Path) -> None:
    """Remove what dead runs left behind, and put back an old content that a dead run had moved aside."""
    aside = _aside(target)
    lock = _lock(aside)
    if lock is not None:
        if target.exists():
            shutil.rmtree(aside)
        else:
            console.warn(f"restoring {target}: an earlier run died while replacing it")
            aside.rename(target)
        os.close(lock)
    for leftover in sorted(target.parent.iterdir()):
        if not leftover.name.startswith(_stage_prefix(target)):
            continue
        lock = _lock(leftover)
        if lock is not None:
            console.warn(f"removing {leftover}: left behind by a run that died while saving")
            shutil.rmtree(leftover, ignore_errors=True)
            os.close(lock)


def _lock(folder: Path) -> int | None:
    """A lock on the folder itself, which ends with its process however that dies; None: another has it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _make_stage(target: Path) -> tuple[Path, int]:
    while True:
        stage = target.with_name(_stage_prefix(target) + secrets.token_hex(4))
        stage.mkdir()
        lock = _lock(stage)
        # Another run's sweep may have taken the folder between the two calls: then start again.
        if lock is not None:
            if stage.exists():
                return stage, lock
            os.close(lock)


def _check_space(target: Path, needed: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise ResourceError(
            f"not enough space: {needed:,} bytes needed, {free:,} free",
            where=str(target),
            remedy="free some, or write to another disk",
        )


def _flush(stage: Path, *, manifest: bool) -> None:
    """Bring every file to the disk, then the manifest, then the folders that name them."""
    files = sorted(path for path in stage.rglob("*") if path.is_file())
    for path in files:
        _fsync(path)
        failpoint(f"save:after:{path.relative_to(stage).as_posix()}")
    if manifest:
        entries = {
            path.relative_to(stage).as_posix(): {"size": path.stat().st_size, "sha256": _sha256(path)}
            for path in files
        }
        (stage / MANIFEST).write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
        _fsync(stage / MANIFEST)
        failpoint(f"save:after:{MANIFEST}")
    for folder in [path for path in stage.rglob("*") if path.is_dir()] + [stage]:
        _fsync(folder)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _replace(stage: Path, target: Path, *, overwrite: bool) -> None:
    """Make ``stage`` the target, or change nothing. Afterwards the old content, if any, is at ``stage``."""
    if not (overwrite and target.exists()):
        try:
            stage.rename(target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):  # filled by somebody else meanwhile
                raise _not_empty(target) from error
            raise
        undo: Callable[[Path, Path], bool] = _rename_back
    else:
        undo = _exchange if _exchange(stage, target) else _rename_twice
        if undo is _rename_twice:
            _rename_twice(stage, target)
    try:
        failpoint("save:after-rename")
        _fsync(target.parent)
    except OSError:
        undo(stage, target)
        raise


def _rename_back(stage: Path, target: Path) -> bool:
    target.rename(stage)
    return True


def _rename_twice(stage: Path, target: Path) -> bool:
    """Swap two folders in steps; a run that dies in between is made good by the next one's sweep."""
    aside = _aside(target)
    lock = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(BlockingIOError):  # taken already: when this swap undoes an earlier one
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # another run's sweep sees that this one lives
        target.rename(aside)
        try:
            stage.rename(target)
        except OSError:
            aside.rename(target)
            raise
        aside.rename(stage)
    finally:
        os.close(lock)
    return True


def _exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one step (Linux); False where the system or file system cannot."""
    at_cwd, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of <linux/fs.h>
    try:
        swap = ctypes.CDLL(None).renameat2
    except AttributeError:
        return False
    return bool(swap(at_cwd, os.fsencode(first), at_cwd, os.fsencode(second), exchange) == 0)


def _error_number(error: BaseException) -> int | None:
    """The errno of an OSError, or of what Rust libraries (safetensors, tokenizers) raise for one."""
    if isinstance(error, OSError):
        return error.errno
    match = re.search(r"\(os error (\d+)\)", str(error))
    return int(match[1]) if match else None


def _explained(error: Exception, target: Path) -> ResourceError:
    number = _error_number(error)
    what = os.strerror(number) if number else str(error)
    try:
        free = f"{shutil.disk_usage(target.parent).free:,} bytes free"
    except OSError:
        free = ""
    return ResourceError(
        f"cannot write: {what}" + (f" ({free})" if free else ""),
        where=str(target),
        remedy="what was there before is intact; free space or choose another folder",
    )
