"""Every row of the list of faults has a test that carries its name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
#: what the training engine and the reading of data and recipes have to survive
ROWS = [
    *(f"R{number}" for number in range(1, 12)),
    "R14",
    "R15",
    "R17",
    *(f"D{n}" for n in range(1, 6)),
    "C1",
    "C2",
]


def names() -> set[str]:
    """The rows that names of test functions begin with, several joined by underscores."""
    found = set()
    for path in TESTS.rglob("test_*.py"):
        for rows in re.findall(r"def test_((?:[a-z]\d+_)+)", path.read_text(encoding="utf-8")):
            found |= {row.upper() for row in rows.split("_") if row}
    return found


@pytest.mark.parametrize("row", ROWS)
def test_the_row_has_a_test(row: str) -> None:
    assert row in names()
