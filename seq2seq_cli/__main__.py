"""The program ``s2s``: runs a command line, and turns what happens into lines on stderr and an exit code."""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import re
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from seq2seq_cli.errors import Finding, ResourceError, S2SError, is_out_of_memory

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EBADF}
_FORBIDDEN = {errno.EACCES, errno.EPERM}
_WRONG_PATH = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EEXIST}
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def program() -> NoReturn:
    """What ``s2s`` and ``python -m seq2seq_cli`` run: ``main``, then the end of the process.

    One of several processes does not take its interpreter down. A thread of torch's gloo backend (2.13) may
    still want the lock to let go of a tensor; that ends it inside C++, and the process with it, by SIGABRT.
    """
    code = 1

    def leave() -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)

    if "RANK" in os.environ:
        atexit.register(leave)  # the first that is registered is the last that is called
    code = main()
    sys.exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (default: the program's own arguments) and return the exit code."""
    _mend_streams()
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        signal.signal(signal.SIGTERM, _terminate)
        from seq2seq_cli import cli

        cli.run(given)
        _flush()
        return 0
    except BaseException as error:  # a Rust panic of a dependency is no Exception
        return _report(error, given)


def _report(error: BaseException, arguments: Sequence[str]) -> int:
    """Say on stderr what went wrong; returns the exit code."""
    try:
        if not isinstance(error, BrokenPipeError):
            _flush()
    except OSError as unwritten:
        error = BrokenPipeError() if isinstance(unwritten, BrokenPipeError) else error
        _silence(sys.stdout)
    except ResourceError as unwritten:
        _silence(sys.stdout)
        error = error if isinstance(error, (S2SError, OSError)) else unwritten
    code, findings = _outcome(error, arguments)
    if isinstance(error, BrokenPipeError):
        _silence(sys.stdout)
    try:
        if findings and _debugging():
            import traceback

            traceback.print_exception(type(error), error, error.__traceback__)
        for finding in findings:
            print(_UNPRINTABLE.sub(_escape, str(finding)), file=sys.stderr)
        sys.stderr.flush()
    except OSError:  # stderr cannot be written either: the exit code is all that is left
        _silence(sys.stderr)
    return code


def _outcome(error: BaseException, arguments: Sequence[str]) -> tuple[int, Sequence[Finding]]:
    """The exit code of an exception and the lines to say."""
    import typer

    if isinstance(error, S2SError):
        return error.exit_code, error.findings
    if isinstance(error, typer.Exit):
        return int(error.exit_code), ()
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        return 130, [Finding("interrupted")]
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return error.code or 0, ()
        return 1, [Finding(str(error.code))]
    if isinstance(error, BrokenPipeError):
        return 141, ()
    if hasattr(error, "format_message"):  # typer's own, which have no common public base over its versions
        from seq2seq_cli import cli

        return 2, [cli.usage_finding(error, arguments)]
    if is_out_of_memory(error):
        remedy = "use smaller batches (a recipe's tokens_per_batch, else --batch-tokens), or a smaller model"
        return 6, [Finding(f"not enough memory: {_brief(error)}", "", remedy)]
    if isinstance(error, OSError) and error.errno in _FULL | _FORBIDDEN | _WRONG_PATH:
        return _file_error(error)
    remedy = "rerun with --debug for the traceback"
    return 1, [Finding(f"bug in s2s: {type(error).__name__}: {_brief(error)}; {remedy}")]


def _file_error(error: OSError) -> tuple[int, Sequence[Finding]]:
    name = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
    if error.errno in _FULL:
        remedy = "free some space, or write elsewhere"
        return 6, [Finding(f"cannot write: {error.strerror}", name, remedy)]
    code = 6 if error.errno in _FORBIDDEN else 2
    return code, [Finding(f"cannot use the file: {error.strerror}", name, "check the path and its rights")]


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:297] + "..."


def _escape(found: re.Match[str]) -> str:
    return ascii(found.group())[1:-1]


def _debugging() -> bool:
    cli = sys.modules.get("seq2seq_cli.cli")
    return bool(getattr(cli, "debug", False))


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _flush() -> None:
    """Write out stdout now, where a failure can still be reported."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        remedy = "free some space, or write elsewhere"
        raise ResourceError(f"cannot write to stdout: {error.strerror}", remedy=remedy) from error


def _silence(stream: object) -> None:
    """Point a stream that cannot be written at nothing, so that Python's own flush at exit says nothing."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())  # type: ignore[attr-defined]
        os.close(nothing)


def _mend_streams() -> None:
    """Fill closed standard streams, so that no file opened later takes their place; results are UTF-8."""
    if sys.stdin is None:
        _fill(0, os.O_RDONLY)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        _fill(1, os.O_RDONLY)  # writing to it fails: results are not lost in silence
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        _fill(2, os.O_WRONLY)
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")


def _fill(number: int, mode: int) -> None:
    opened = os.open(os.devnull, mode)
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)


if __name__ == "__main__":
    program()
