"""What every test stands on, and what tests of several rooms look at."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from seq2seq_cli.model import KVCache, Stack


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Stack, int]]:
    """The stacks that decoded, pass by pass, and how many tokens a row they took in."""
    seen: list[tuple[Stack, int]] = []
    states = Stack.states

    def count(self: Stack, ids: Tensor, *args: Any, cache: KVCache | None = None, **others: Any) -> Tensor:
        if cache is not None:
            seen.append((self, ids.shape[1]))
        return states(self, ids, *args, cache=cache, **others)

    monkeypatch.setattr(Stack, "states", count)
    return seen


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written into the user's cache, and nothing is taken from it."""
    monkeypatch.setenv("S2S_CACHE", "off")
