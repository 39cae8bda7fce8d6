from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from seq2seq_cli.tasks.boss2sql import write_data

Rows = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="session")
def boss_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of Boss2SQL as the demo has it."""
    folder = tmp_path_factory.mktemp("boss2sql")
    write_data(folder)
    return folder


@pytest.fixture(scope="session")
def boss_rows(boss_folder: Path) -> Rows:
    """Its rows by split."""
    return {
        split: [json.loads(line) for line in (boss_folder / f"{split}.jsonl").read_text("utf-8").splitlines()]
        for split in ("train", "dev", "test")
    }


@pytest.fixture(scope="session")
def company(boss_folder: Path) -> Path:
    return boss_folder / "company.sqlite"
