"""Tasks: what s2s can be used for, each with a recipe and, where the data is made here, its maker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def recipe_data(name: str) -> Callable[[Path], None] | None:
    """What writes the data folder of the shipped recipe ``name``; None for a recipe that brings no data.

    The maker leaves a folder alone that already holds the data.
    """
    return _boss2sql if name in ("boss2sql", "boss2sql-bert", "boss2sql-decoder") else None


def _boss2sql(folder: Path) -> None:
    from seq2seq_cli.tasks.boss2sql.files import FILES, write_data

    if not all((folder / file).is_file() for file in FILES):
        write_data(folder)
