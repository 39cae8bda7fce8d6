"""The errors that s2s reports, and the exit code of each.

    S2SError              1   a bug in s2s (anything unexpected ends as 1 too)
    ├── UsageError        2   wrong command line, option or recipe
    ├── DataError         3   wrong data file or row
    ├── CheckpointError   4   a model folder is refused or damaged
    ├── HubError          5   hub, login, network
    ├── ResourceError     6   disk or memory
    ├── DivergedError     7   training produced NaN or infinity
    └── StoppedError  130/143 stopped by SIGINT or SIGTERM after saving

A reader of stdout that went away ends the program silently with 141.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from dataclasses import dataclass

#: this many findings that say the same are still listed one by one
_ALIKE = 3


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: what it is, where (``file:line:column``) and what to do about it."""

    what: str
    where: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        return " · ".join(part for part in (self.what, self.where, self.remedy) if part)


class S2SError(Exception):
    """Base of all errors that are reported as one line a finding, without a traceback."""

    exit_code = 1

    def __init__(
        self, what: str = "", *, where: str = "", remedy: str = "", findings: Iterable[Finding] = ()
    ) -> None:
        self.findings: tuple[Finding, ...] = tuple(findings) or (Finding(what, where, remedy),)
        super().__init__(str(self))

    def __str__(self) -> str:
        return "\n".join(str(finding) for finding in self.findings)


class UsageError(S2SError):
    """A wrong command line, option value or recipe."""

    exit_code = 2


class DataError(S2SError):
    """A data file or a row in it cannot be used."""

    exit_code = 3


class CheckpointError(S2SError):
    """A model folder is incomplete, damaged, not understood or not safe to read."""

    exit_code = 4


class HubError(S2SError):
    """The hub could not be reached, refused access or does not know the name."""

    exit_code = 5


class ResourceError(S2SError):
    """Not enough disk or memory, or a stream that cannot be written."""

    exit_code = 6


class DivergedError(S2SError):
    """Training produced a loss or gradient that is not a number."""

    exit_code = 7


class StoppedError(S2SError):
    """Stopped by a signal after the state was saved; ``signal_number`` gives the exit code."""

    def __init__(self, what: str, *, signal_number: int, remedy: str = "") -> None:
        super().__init__(what, remedy=remedy)
        self.exit_code = 128 + signal_number


#: how libraries word it, where they have no type for it
_NO_MEMORY = ("can't allocate memory", "cannot allocate memory", "out of memory", "bad_alloc")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: the system's, or a device's."""
    text = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"  # torch's, without importing torch
        or (isinstance(error, RuntimeError) and any(words in text for words in _NO_MEMORY))
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """The remedy for an unknown name: the closest known one, or all of them when none is close."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return "known: " + ", ".join(names) if names else ""


def counted(findings: Iterable[Finding], *, or_more: bool = False) -> list[Finding]:
    """Findings of which more than three say the same of different places, as one each: the first, with their
    number. ``or_more``: not everything was looked at."""
    places: dict[str, list[Finding]] = {}
    for finding in findings:
        places.setdefault(finding.what, []).append(finding)
    told: list[Finding] = []
    for what, same in places.items():
        if len(same) <= _ALIKE:
            told += same
            continue
        number = f"{len(same)} or more" if or_more else str(len(same))
        told.append(Finding(f"{what} ({number} times; here the first)", same[0].where, same[0].remedy))
    return told
