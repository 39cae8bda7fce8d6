"""s2s: join any pre-trained encoder to any pre-trained decoder, fine-tune the pair and generate with it.

The names below are loaded when they are first used, so that importing the package stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from seq2seq_cli.api import Pair as Pair
    from seq2seq_cli.api import combine as combine
    from seq2seq_cli.api import generate_ids as generate_ids
    from seq2seq_cli.api import load as load
    from seq2seq_cli.decoding import Hypothesis as Hypothesis

__all__ = ["Hypothesis", "Pair", "__version__", "combine", "generate_ids", "load"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from seq2seq_cli import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return __all__
