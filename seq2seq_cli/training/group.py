"""The processes of a run among themselves: sums, waiting, and what is said when one of them is lost."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch

from seq2seq_cli.errors import S2SError

if TYPE_CHECKING:
    from accelerate import Accelerator

_T = TypeVar("_T")
#: how many times longer than for a step the processes wait for one that prepares, evaluates or saves
PATIENCE = 12
#: how the backends word that somebody no longer answers
_LOST = ("timed out", "timeout", "closed by peer", "connection reset", "broken pipe", "connection refused")
#: seconds between two looks at who else has noticed
_LOOK = 0.05


def join_again(*, limit: float) -> None:
    """Form the group of processes where torchrun started them, before Accelerate does.

    torchrun (2.13) keeps one store over its restarts, in which those who start again would find the
    addresses of the dead: every start gets a corner of its own.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or torch.distributed.is_initialized():
        return
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    timeout = timedelta(seconds=PATIENCE * limit)
    store, rank, size = next(rendezvous("env://", timeout=timeout))
    corner = PrefixStore(f"start/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    kind = "cuda:nccl,cpu:gloo" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(kind, store=corner, rank=rank, world_size=size, timeout=timeout)


class LostProcessError(S2SError):
    """Another process of the run no longer answers, or has failed. One of those left ``speaks`` for all."""

    def __init__(self, what: str, *, remedy: str = "", speaks: bool, exit_code: int = 1) -> None:
        super().__init__(what, remedy=remedy)
        self.speaks, self.exit_code = speaks, exit_code


def together(accelerator: Accelerator, work: Callable[[], _T]) -> _T:
    """What ``work`` gives, which may not wait for other processes. Where it fails in one of them it fails in
    all: with its own error there, with a LostProcessError elsewhere; the first process speaks."""
    if accelerator.num_processes == 1:
        return work()
    from accelerate.utils import gather_object

    own: S2SError | None = None
    result: _T | None = None
    try:
        result = work()
    except S2SError as error:
        own = error
    rank = accelerator.process_index
    failed: list[tuple[int, int, str]] = gather_object(
        [] if own is None else [(rank, own.exit_code, str(own))]
    )
    if own is not None:
        raise own
    if failed:
        who, code, what = failed[0]
        raise LostProcessError(f"process {who}: {what}", speaks=rank == 0, exit_code=code)
    return cast("_T", result)


class Group:
    """The processes of a run; of one alone everything is trivial.

    A step has to be over within ``limit`` seconds everywhere, else the run ends with an error that names the
    process; inside ``patiently`` the limit is ``PATIENCE`` times longer.
    """

    def __init__(self, accelerator: Accelerator, *, limit: float) -> None:
        self.size: int = accelerator.num_processes
        self.rank: int = accelerator.process_index
        self._accelerator = accelerator
        self._limit = limit
        self._step = 0
        self._hurry(1)

    def _hurry(self, patience: float) -> None:
        if self.size > 1:
            from torch.distributed.distributed_c10d import _set_pg_timeout

            _set_pg_timeout(timedelta(seconds=self._limit * patience))

    @contextmanager
    def patiently(self) -> Iterator[None]:
        """A block in which one process may keep the others waiting; they wait for each other at its end."""
        self._hurry(PATIENCE)
        try:
            yield
            self.wait()
        finally:
            self._hurry(1)

    def wait(self) -> None:
        """Until every process is here."""
        self._accelerator.wait_for_everyone()

    def sum(self, value: float) -> float:
        """The sum of a number over all processes."""
        if self.size == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64, device=self._accelerator.device)
        return float(self._accelerator.reduce(tensor, "sum").item())

    def any(self, flag: bool) -> bool:
        """True when ``flag`` is true in any process."""
        return bool(self.sum(float(flag)))

    def together(self, work: Callable[[], _T]) -> _T:
        """See ``together``."""
        return together(self._accelerator, work)

    def gather(self, items: list[_T]) -> list[_T]:
        """The items of all processes, in their order."""
        if self.size == 1:
            return items
        from accelerate.utils import gather_object

        found: list[_T] = gather_object(items)
        return found

    def note(self, step: int) -> None:
        """Say that this process begins ``step``, for those who may have to explain what became of it."""
        self._step = step
        if self.size > 1:
            _board().set(f"step/{self.rank}", str(step))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Turn a backend's error about a lost process into one that names it and the step."""
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not any(word in str(error).lower() for word in _LOST):
                raise
            raise self._lost() from error

    def _lost(self) -> LostProcessError:
        """Who of the others has not noticed the loss: a process that lives notices it within the limit."""
        missing = set(range(self.size)) - {self.rank}
        seen: dict[int, str] = {}
        deadline = time.monotonic() + self._limit
        with suppress(Exception):  # the board is lost with the process that holds it
            board = _board()
            board.set(f"noticed/{self.rank}", "1")
            while True:
                missing = {rank for rank in missing if not board.check([f"noticed/{rank}"])}
                if len(missing) <= 1 or time.monotonic() > deadline:
                    break
                time.sleep(_LOOK)
            for rank in missing:
                if board.check([f"step/{rank}"]):
                    seen[rank] = f" (last heard of in step {board.get(f'step/{rank}').decode()})"
        who = ", ".join(f"process {rank}{seen.get(rank, '')}" for rank in sorted(missing)) or "a process"
        left = [rank for rank in range(self.size) if rank not in missing]
        return LostProcessError(
            f"lost touch with {who} of {self.size} in step {self._step} of process {self.rank}",
            remedy="run the same command again to go on from the last checkpoint; "
            f"a step may take longer than {self._limit:g} s with a larger training.ddp_timeout",
            speaks=self.rank == min(left, default=self.rank),
        )


def _board() -> Any:
    """Where every process can write a line that all can read, without waiting for each other."""
    from torch.distributed.distributed_c10d import PrefixStore, _get_default_store

    return PrefixStore("s2s", _get_default_store())
