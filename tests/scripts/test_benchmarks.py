"""scripts/bench: its arithmetic, and one whole run on tiny sizes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from benchmarks.measure import Row, in_turn, speedup  # noqa: E402
from benchmarks.workload import FULL  # noqa: E402


def test_pairs_are_measured_in_turn() -> None:
    order = []

    def side(name: str) -> float:
        order.append(name)
        return float(len(order))

    assert in_turn(lambda: side("a"), lambda: side("b"), 3) == ([1, 3, 5], [2, 4, 6])
    assert order == ["a", "b"] * 3


def test_the_ratio_is_taken_within_pairs() -> None:
    """A machine that is ten times slower in one pair slows both sides."""
    assert speedup([1.0, 10.0, 1.0], [2.0, 20.0, 2.0]) == 2.0


def test_work_of_the_full_size() -> None:
    """The figures that bench.md states: 63 MFLOP and 133 MB of weights a new token."""
    assert 2 * FULL.token_weights / 1e6 == pytest.approx(63, abs=1)
    training = FULL.encoder_weights + FULL.num_layers * FULL.decoder_layer_weights + FULL.head_weights
    assert 6 * training * FULL.batch * FULL.length / 1e9 == pytest.approx(133, abs=4)


def test_row_without_memory() -> None:
    row = Row(name="W3", unit="s", s2s=1.0, peer=2.0, peer_name="import torch", speedup=2.0)
    assert row.as_json()["memory"] is None
    assert len(row.cells()) == 12


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["decode", "train", "load"])
def test_both_programs_make_the_same(kind: str) -> None:
    """The comparison is worth something only when both sides do the same work."""
    only = ["--only", "greedy", "--only", "beam4"] if kind == "decode" else []
    done = subprocess.run(
        [str(SCRIPTS / "bench"), kind, "--quick", "--json", *only],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["machine"]["torch"].startswith("2.")
    for row in found["rows"]:
        assert row["s2s"] > 0
        assert row["peer_mb"] > 0
    if kind == "decode":
        assert [row["same"] for row in found["rows"]] == ["8 of 8", "8 of 8"]
    elif kind == "load":
        assert [row["name"] for row in found["rows"]] == [
            f"W4 load {mode}" for mode in ("stack", "stack used", "pair", "pair used")
        ]
    else:
        assert float(found["rows"][0]["same"].rpartition(" ")[2]) < 1e-5
