"""Curves and bars: where points come to lie."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from seq2seq_cli.charts import Line, Panel, chart, even_ticks, label, thinned


def drawn(*lines: Line, log_up: bool = False) -> ElementTree.Element:
    panel = Panel(title="a < b", below='"x" & y', lines=lines, log_across=False, log_up=log_up)
    return ElementTree.fromstring(chart(panel, width=100, height=100))


def test_points_lie_where_their_values_are() -> None:
    svg = drawn(Line(name="<i>", points=[(0, 0), (5, 1), (10, 4)]))
    (line,) = svg.iter("polyline")
    assert line.get("points") == "0.0,100.0 50.0,75.0 100.0,0.0"
    assert line.get("class") == "pen-0"
    assert [t.text for t in svg.iter("title")][1] == "<i>: 1 at 5"


def test_a_logarithmic_axis_beside_an_even_one() -> None:
    (line,) = drawn(Line(name="n", points=[(0, 1), (1, 10), (2, 100)]), log_up=True).iter("polyline")
    assert line.get("points") == "0.0,100.0 50.0,50.0 100.0,0.0"


def test_bars_stand_on_the_ground() -> None:
    svg = drawn(Line(name="n", points=[(1, 5), (2, 10)], bars=True))
    first, second = (r for r in svg.iter("rect") if r.get("class"))
    assert (first.get("y"), first.get("height")) == ("50.0", "50.0")
    assert (second.get("y"), second.get("height")) == ("0.0", "100.0")
    places = [(float(r.get("x", 0)), float(r.get("width", 0))) for r in (first, second)]
    (left, wide), (right, _) = places
    assert right - left == pytest.approx(wide / 0.8, abs=0.11)
    assert right + wide <= 100, "the last bar is whole"


@pytest.mark.parametrize("points", [[(1, 3)], [(0, 0), (1, 0)], [(5, -2), (5, -2)], [(0, 1e-12), (1, 1e-12)]])
def test_what_is_flat_or_alone_can_be_drawn(points: list[tuple[float, float]]) -> None:
    drawn(Line(name="n", points=points))
    drawn(Line(name="n", points=points, bars=True))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (0, 0.7, [0, 0.2, 0.4, 0.6]),
        (-3, 4, [-2, 0, 2, 4]),
        (98, 101, [98, 99, 100, 101]),
    ],
)
def test_even_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert even_ticks(low, high) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.25, "0.25"), (999, "999"), (1000, "1k"), (1500, "1.5k"), (1550, "1550"), (1.2e6, "1.2M")],
)
def test_ticks_are_written_short(value: float, expected: str) -> None:
    assert label(value) == expected


def test_the_last_tick_is_within_the_picture() -> None:
    svg = drawn(Line(name="n", points=[(12000, 0), (12500, 1)]))
    (field,) = svg.iter("g")
    left = float(field.get("transform", "").removeprefix("translate(").split()[0])
    (last,) = (text for text in svg.iter("text") if text.text == "12.5k")
    half = 6.5 * len("12.5k") / 2  # of a writing 11 high
    assert left + float(last.get("x", 0)) + half <= float(svg.get("viewBox", "").split()[2])


def test_many_points_are_put_together() -> None:
    many = [(float(i), float(i % 2)) for i in range(1000)]
    few = thinned(many, 300)
    assert len(few) == 250
    assert few[0] == (1.5, 0.5)
    assert thinned(many[:5], 300) == many[:5]
