"""stderr: what s2s says while it works. Results never pass through here; they go to stdout."""

from __future__ import annotations

import os
import sys
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
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and verbosity >= 0


def stderr_console() -> Console:
    """A Rich console on stderr: no colour under NO_COLOR or TERM=dumb, no control codes off a terminal."""
    from rich.console import Console

    return Console(stderr=True, quiet=verbosity < 0, highlight=False, soft_wrap=not is_live())
