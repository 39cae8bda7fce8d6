"""What memory this process has, may have, and has had: of the GPU where there is one, else of the system."""

from __future__ import annotations

import math
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

_MB = 2**20
_GROUP = Path("/sys/fs/cgroup")


def held() -> float:
    """Bytes that this process, or its part of the GPU, has now."""
    if torch.cuda.is_available():
        return float(torch.cuda.memory_allocated())
    resident = _pages(1)
    return peak_memory() if resident is None else float(resident)


def address_space() -> int | None:
    """Bytes of addresses that this process has taken; None on another system than Linux."""
    return _pages(0)


def _pages(place: int) -> int | None:
    """A number of /proc/self/statm, in bytes."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[place]) * resource.getpagesize()
    return None


def room(processes: int = 1) -> float:
    """Bytes that this process may come to hold: on a GPU all of its memory that others do not have, else what
    the system, its control group and ``ulimit -v`` leave, shared with the other processes of the run."""
    if torch.cuda.is_available():
        free, _ = torch.cuda.mem_get_info()
        total: float = free + torch.cuda.memory_reserved()
        return total
    now, free_memory = held(), available()
    there = math.inf if free_memory is None else now + free_memory
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return there / processes
    # it limits addresses: those that hold nothing are lost
    return min(there / processes, soft + now - (address_space() or 0))


def free_addresses() -> int | None:
    """Bytes that may still be taken before the system, its control group or ``ulimit -v`` has no more."""
    free, taken = available(), address_space()
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY or taken is None:
        return free
    return soft - taken if free is None else min(free, soft - taken)


def available() -> int | None:
    """Bytes that the system, or the control group, still has."""
    known = []
    with suppress(OSError):  # another system than Linux
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                known.append(int(line.split()[1]) * 1024)
    limit, used = _of_group("max"), _of_group("current")
    if limit is not None and used is not None:
        known.append(max(0, limit - max(0, used - _reclaimable())))
    return min(known, default=None)


def _of_group(what: str) -> int | None:
    """A number of the control group's memory."""
    try:
        return int((_GROUP / f"memory.{what}").read_text())
    except (OSError, ValueError):  # not there, or "max"
        return None


def _reclaimable() -> int:
    """Bytes of files that the control group has in memory, and drops as soon as it needs the room."""
    with suppress(OSError):
        for line in (_GROUP / "memory.stat").read_text().splitlines():
            name, _, number = line.partition(" ")
            if name == "inactive_file":
                return int(number)
    return 0


def limits() -> str:
    """The limits of memory that this process lives under, in words."""
    found = []
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        found.append(f"GPU: {free // _MB:,} of {total // _MB:,} MB free")
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        found.append(f"address space limited to {soft // _MB:,} MB by ulimit -v or prlimit --as")
    group = _of_group("max")
    if group is not None:
        found.append(f"memory limited to {group // _MB:,} MB by its control group")
    free_memory = available()
    if free_memory is not None:
        found.append(f"{free_memory // _MB:,} MB free")
    return ", ".join(found) or "no limit is known"


def peak_memory() -> float:
    """Most memory in use so far, in bytes: the GPU's, else the process's."""
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated())
    with suppress(OSError, StopIteration):  # what getrusage tells may be a large parent's
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024.0 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
    scale = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale)
