"""stderr: what s2s says while it works. Results never pass through here; they go to stdout."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

#: -1 quiet (errors only), 0 normal, 1 verbose.
verbosity = 0


def say(text: str, *, level: int = 0) -> None:
    """Write one line to stderr unless the verbosity is below ``level``."""
    if verbosity >= level:
        print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """Write one line to stderr, marked as a warning; silent under ``--quiet``."""
    say(f"warning: {text}")


def is_live() -> bool:
    """True when stderr is a terminal that understands cursor movement and nobody asked for plain text."""
    plain = os.environ.get("TERM") == "dumb" or bool(os.environ.get("NO_COLOR"))
    return sys.stderr.isatty() and not plain and verbosity >= 0


def stderr_console() -> Console:
    """A Rich console on stderr: no colour under NO_COLOR or TERM=dumb, no control codes off a terminal."""
    from rich.console import Console

    return Console(stderr=True, quiet=verbosity < 0, highlight=False, soft_wrap=not is_live())


@contextmanager
def progress(
    count: Callable[[], int | None], *, done: int = 0, shown: bool = True
) -> Iterator[Callable[[int], None]]:
    """A bar while the block runs: the lines that are done (call what is yielded with the number of new ones),
    lines a second, and the time left where ``count`` knows how many there are; ``done`` were there before.
    Nothing where ``is_live`` is false or nothing is to be ``shown``."""
    if not (shown and is_live()):
        yield lambda number: None
        return
    from rich import progress as parts

    total = count()
    bar = parts.Progress(
        parts.TextColumn("{task.completed:,}" + (f" of {total:,} lines" if total is not None else " lines")),
        parts.BarColumn(),
        parts.TextColumn("{task.fields[speed]}"),
        parts.TimeElapsedColumn() if total is None else parts.TimeRemainingColumn(),
        console=stderr_console(),
        redirect_stdout=False,  # results go there, as they are
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=total, completed=done, speed="")

        def advance(number: int) -> None:
            bar.advance(task, number)
            speed = bar.tasks[0].speed
            bar.update(task, speed=f"{speed:,.1f} lines/s" if speed else "")

        yield advance
