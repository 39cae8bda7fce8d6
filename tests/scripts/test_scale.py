"""scripts/bench scale: its curves, its arithmetic, and its picture."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from benchmarks import shown  # noqa: E402
from benchmarks.scale import (  # noqa: E402
    Point,
    Reading,
    curves,
    exponent,
    growth,
    limit_of,
    positions,
    watched,
    work_of,
    write_lines,
)
from benchmarks.workload import FULL, QUICK  # noqa: E402

from seq2seq_cli.charts import label, ticks  # noqa: E402


def test_exponents_of_powers() -> None:
    values = [1, 2, 4, 8, 16]
    assert exponent(values, [3 * value**1.5 for value in values]) == pytest.approx(1.5)
    assert exponent(values, [7.0] * 5) == pytest.approx(0)
    assert exponent([10, 100], [1, 10]) == pytest.approx(1)


def test_what_is_small_beside_the_start_does_not_make_growth_look_flat() -> None:
    values = [10, 100, 1000, 10_000, 100_000]
    assert exponent(values, [2 + value * 1e-2 for value in values]) > 0.9


def test_the_curves_of_the_full_size() -> None:
    ends = {curve.name: (curve.values[0], curve.values[-1]) for curve in curves(FULL, quick=False)}
    assert ends == {
        "batch": (1, 256),
        "source length": (16, 2048),
        "target length": (16, 1024),
        "beams": (1, 16),
    }
    assert positions(FULL, quick=False).source_positions == 2048


@pytest.mark.parametrize("quick", [True, False])
def test_each_curve_varies_one_thing(quick: bool) -> None:
    for curve in curves(FULL, quick=quick):
        first, last = curve.at(curve.values[0]), curve.at(curve.values[-1])
        assert (first[1] == last[1]) == (curve.name != "beams")
        changed = [name for name in vars(first[0]) if vars(first[0])[name] != vars(last[0])[name]]
        wanted = {
            "batch": ["sources"],
            "source length": ["shortest", "longest"],
            "target length": ["new_tokens"],
        }
        assert changed == wanted.get(curve.name, [])


def test_work_counts_every_product() -> None:
    """A source of one token and one new token of a model of one layer, added up by hand."""
    from dataclasses import replace

    size = replace(QUICK, num_layers=1, sources=1, shortest=1, longest=1, new_tokens=1)
    width, words = size.hidden_size, size.target_vocabulary
    encoder = 12 * width**2 + 2 * width  # matrices, then scores and their sum
    source = 2 * width**2  # its keys and values for the decoder
    decoder = 14 * width**2 + 2 * width + 2 * width + width * words
    assert work_of(size, "greedy") == 2 * (encoder + source + decoder)
    assert work_of(size, "beam3") == 2 * (encoder + source + 3 * decoder)


def test_the_limit_is_the_narrower_of_arithmetic_and_memory() -> None:
    from dataclasses import replace

    fast = {"matmul_gflops": 1e9, "matvec_gbytes": 20.0}
    assert limit_of(FULL, "greedy", fast) == pytest.approx(32 * 4 * FULL.token_weights / 20e9)
    slow = {"matmul_gflops": 100.0, "matvec_gbytes": 1e9}
    one = limit_of(replace(FULL, sources=1), "greedy", slow)
    assert limit_of(FULL, "greedy", slow) == pytest.approx(64 * one)


def points() -> list[Point]:
    """Two curves: time that grows with the square of the batch beside a peer, and flat memory over lines."""
    batch = [
        Point(
            curve="batch",
            value=value,
            work=1e9 * value,
            limit=0.01 * value,
            s2s=Reading(seconds=0.02 * value**2, cpu_seconds=0.02 * value**2, peak_mb=100.0),
            peer=Reading(seconds=0.04 * value, cpu_seconds=0.04 * value, peak_mb=100.0 * value),
        )
        for value in (1, 2, 4, 8)
    ]
    lines = [
        Point(
            curve="lines",
            value=value,
            work=None,
            limit=None,
            s2s=Reading(seconds=1e-3 * value, cpu_seconds=1e-3 * value, peak_mb=50.0),
        )
        for value in (100, 1000, 10_000)
    ]
    return [*batch, *lines]


def test_growth_of_both_programs_and_of_the_arithmetic() -> None:
    assert growth(points()[:4]) == pytest.approx(
        {"s2s time": 2, "s2s memory": 0, "peer time": 1, "peer memory": 1, "arithmetic": 1}
    )
    assert growth(points()[4:]) == pytest.approx({"s2s time": 1, "s2s memory": 0})


def test_the_table_says_figures_limit_and_growth() -> None:
    text = shown.curves(points(), "transformers")
    batch, lines = text.split("W6 lines")
    cells = next(row for row in batch.splitlines() if row.lstrip("│ ").startswith("8 "))
    assert [cell.strip() for cell in cells.strip("│").split("│")] == [
        *("8", "1.28", "1.28", "100", "0.32", "0.32", "800", "0.08", "6%")
    ]
    grown = next(row for row in batch.splitlines() if "grows" in row)
    assert [cell.strip() for cell in grown.strip("│").split("│")][2:7] == ["2.00", "0.00", "", "1.00", "1.00"]
    assert "transformers" not in lines
    assert "limit" not in lines


def test_the_picture_holds_every_point() -> None:
    svg = ElementTree.fromstring(shown.plot(points(), "transformers", "a < b"))
    name = "{http://www.w3.org/2000/svg}"
    # time and memory: two programs of four points, one of three
    assert len(svg.findall(f".//{name}circle")) == 2 * (2 * 4 + 3)
    dashed = [line for line in svg.iter(f"{name}polyline") if "stroke-dasharray" in line.attrib]
    assert len(dashed) == 1
    texts = [text.text for text in svg.iter(f"{name}text")]
    assert {"s2s", "transformers", "limit", "batch", "lines", "a < b"} <= set(texts)
    for line in svg.iter(f"{name}polyline"):
        places = [tuple(map(float, place.split(","))) for place in line.attrib["points"].split()]
        assert all(-0.1 <= x <= 190.1 and -0.1 <= y <= 150.1 for x, y in places)
        assert [x for x, _ in places] == sorted(x for x, _ in places)


def test_ticks_are_few_and_round() -> None:
    assert ticks(100, 1_000_000) == pytest.approx([1e2, 1e3, 1e4, 1e5, 1e6])
    assert ticks(1, 16) == pytest.approx([1, 2, 4, 8, 16])
    assert len(ticks(1, 1024)) <= 6
    assert len(ticks(1e-9, 1e9)) <= 6
    assert [label(value) for value in (0.25, 16, 1024, 10_000, 1e6)] == ["0.25", "16", "1024", "10k", "1M"]


def test_lines_are_the_same_each_time(tmp_path: Path) -> None:
    write_lines(tmp_path / "one", 20)
    write_lines(tmp_path / "two", 20)
    text = (tmp_path / "one").read_text()
    assert text == (tmp_path / "two").read_text()
    assert all(3 <= len(line.split()) <= 8 for line in text.splitlines())
    assert text.count("\n") == 20


def test_a_command_is_watched() -> None:
    code = "held = b'x' * 60_000_000; sum(range(2_000_000))"
    reading = watched([sys.executable, "-c", code], 1)
    assert 50 < reading.peak_mb < 200
    assert reading.cpu_seconds > 0
    assert reading.seconds > 0


def test_a_command_that_fails_is_quoted() -> None:
    with pytest.raises(RuntimeError, match=r"failed \(3\):\nno luck"):
        watched([sys.executable, "-c", "import sys; print('no luck', file=sys.stderr); sys.exit(3)"], 1)
