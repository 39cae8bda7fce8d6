"""What every test stands on."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written into the user's cache, and nothing is taken from it."""
    monkeypatch.setenv("S2S_CACHE", "off")
