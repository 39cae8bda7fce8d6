"""Pictures of matrices: what they show is what they were given."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from seq2seq_cli.pictures import blocks, heat_maps, shown, width

SVG = "{http://www.w3.org/2000/svg}"
TOKENS = ['<b>&"', " tea", "\n", "\x00", "\u2028", "x" * 40, "中文"]


def cells(svg: str) -> list[dict[tuple[int, int], str]]:
    """For each panel the colour of each (row, column) that has one, read from its paths."""
    panels = []
    for group in ElementTree.fromstring(svg).iter(f"{SVG}g"):
        found = {}
        for path in group.iter(f"{SVG}path"):
            if path.get("fill") is None:
                continue
            for x, y, run in re.findall(r"M(\d+) (\d+)h(\d+)v16h-\d+z", str(path.get("d"))):
                for step in range(int(run) // 16):
                    found[int(y) // 16, int(x) // 16 + step] = str(path.get("fill"))
        panels.append(found)
    return panels


def test_a_heat_map_has_each_value_in_its_place() -> None:
    first, second = [[0.0, 0.5, 0.5], [1.0, 0.0, 0.0]], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.25]]
    svg = heat_maps([("one", first), ("two", second)], ["a", "b"], ["x", "y", "z"])
    one, two = cells(svg)
    assert one == {(0, 1): "#8498b5", (0, 2): "#8498b5", (1, 0): "#08306b"}
    assert two == {(1, 2): "#08306b"}
    assert "one · darkest 1.00" in svg
    assert "two · darkest 0.25" in svg


def test_tokens_of_rows_and_columns_stand_on_their_axes() -> None:
    svg = ElementTree.fromstring(heat_maps([("one", [[0.0, 1.0]])], ["down"], ["left", "right"]))
    texts = {element.text: element for element in svg.iter(f"{SVG}text")}
    assert texts["down"].get("text-anchor") == "end"
    places = [
        re.findall(r"translate\(([\d.]+) -6\) rotate", str(texts[t].get("transform")))
        for t in ("left", "right")
    ]
    assert [float(place) - 4 for (place,) in places] == [8, 24]


def test_any_token_makes_a_well_formed_file() -> None:
    """Panels go into a new row before a picture gets too wide, and nothing stands outside it."""
    matrix = [[0.1] * len(TOKENS)] * len(TOKENS)
    root = ElementTree.fromstring(heat_maps([("a", matrix)] * 9, TOKENS, TOKENS))
    texts = [element.text for element in root.iter(f"{SVG}text")]
    for token in ('<b>&"', "␣tea", "⏎", "\\x00", "\\u2028", "x" * 23 + "…", "中文"):
        assert texts.count(token) == 18
    most = {"width": 0, "height": 0}
    for group in root.iter(f"{SVG}g"):
        corner = [float(n) for n in re.findall(r"[\d.]+", str(group.get("transform")))]
        most["width"] = max(most["width"], int(corner[0]) + 16 * len(TOKENS))
        most["height"] = max(most["height"], int(corner[1]) + 16 * len(TOKENS))
    assert 300 < most["width"] < int(str(root.get("width"))) <= 1600
    assert most["height"] < int(str(root.get("height")))


def test_shown_tokens() -> None:
    assert shown(" a\tb ") == "␣a⇥b␣"
    assert shown("\u200b\u00a0") == "\\u200b\\xa0"
    assert len(shown("x" * 24)) == len(shown("x" * 25)) == 24
    assert width("中文a") == 5
    assert width("e\u0301") == 1


def test_blocks_stand_below_their_tokens() -> None:
    assert blocks([[1, 0], [0, 1]], ["a", "中文"], ["tea", "中"]) == [
        "     tea 中",
        "a    ███ ··",
        "中文 ··· ██",
    ]
