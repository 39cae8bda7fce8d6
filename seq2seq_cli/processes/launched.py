"""The ranks of a launch by Accelerate or torchrun find each other: rank 0 listens, the others call it."""

from __future__ import annotations

import hmac
import json
import os
import secrets
import socket
import time
from contextlib import suppress
from datetime import timedelta
from typing import Any

from seq2seq_cli.errors import S2SError
from seq2seq_cli.processes.link import SILENCE, Link

_ADDRESS = "s2s/dealer"


def world() -> int:
    """How many processes the launch has that this one belongs to; 1 without a launch."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def rank() -> int:
    """This process's number in its launch; 0 without one."""
    return int(os.environ["RANK"]) if world() > 1 else 0


def gather() -> list[tuple[int, Link]]:
    """Connections to all other ranks (this one is rank 0). S2SError that names those that do not come."""
    missing, found, token = set(range(1, world())), list[tuple[int, Link]](), secrets.token_hex(16)
    deadline = time.monotonic() + SILENCE
    host = os.environ["MASTER_ADDR"]  # by definition where rank 0 is
    with socket.create_server((host, 0)) as server:
        store = _store()
        store.set(_ADDRESS, json.dumps([host, server.getsockname()[1], token]))
        while missing:
            server.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                link = Link(server.accept()[0], limit=SILENCE)
            except TimeoutError:
                names = ", ".join(map(str, sorted(missing)))
                raise S2SError(f"rank {names} did not come within {SILENCE:.0f} s") from None
            with suppress(EOFError, OSError, ValueError):
                caller = _caller(link.receive(), token)
                if caller in missing:
                    missing.remove(caller)
                    found.append((caller, link))
                    link.send({})  # only now may the caller let go of the store
    return sorted(found, key=lambda pair: pair[0])


def dismiss() -> None:
    """Send all other ranks home: there is nothing to do."""
    for _, link in gather():
        link.close()


def connect() -> Link:
    """The connection to rank 0. S2SError when there is none."""
    try:
        store = _store()
        host, port, token = json.loads(store.get(_ADDRESS))
        link = Link(socket.create_connection((host, port), timeout=SILENCE))
        link.send({"rank": rank(), "token": token})
        link.receive()
    except (OSError, EOFError, RuntimeError) as error:
        raise S2SError(f"rank {rank()} cannot reach rank 0: {error}") from None
    return link


def _caller(hello: dict[str, Any] | None, token: str) -> int | None:
    """The rank that says hello; None for a stranger."""
    known = isinstance(hello, dict) and hmac.compare_digest(str(hello.get("token")), token)
    return int(hello["rank"]) if hello is not None and known else None


def _store() -> Any:
    """The key-value store of the launch (torch does not export its type)."""
    from torch.distributed.rendezvous import rendezvous

    return next(rendezvous("env://", timeout=timedelta(seconds=SILENCE)))[0]
