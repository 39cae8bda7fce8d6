"""generated_predictions.jsonl: what is read, what is refused and where."""

from __future__ import annotations

from pathlib import Path

import pytest

from seq2seq_cli.errors import DataError
from seq2seq_cli.evaluation.predictions import Prediction, read_predictions, write_predictions
from seq2seq_cli.text.destination import Destination


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    rows = [
        Prediction(source="a \u2028 line\nand\r more \0", prediction="größe 🙂", references=("x", "y")),
        Prediction(source="", prediction="", references=("",)),
    ]
    path = tmp_path / "generated_predictions.jsonl"
    with Destination(path) as destination:
        write_predictions(destination, rows)
    assert path.read_bytes().count(b"\n") == 2
    assert "größe 🙂".encode() in path.read_bytes()
    assert read_predictions(path) == rows
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_other_forms(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(
        '{"prediction": "a", "target": "b", "extra": [1]}\n'
        '{"source": "s", "predictions": [{"text": "best", "score": -1}, {"text": "no"}],'
        ' "references": ["b"]}'
    )
    assert read_predictions(path) == [
        Prediction(source="", prediction="a", references=("b",)),
        Prediction(source="s", prediction="best", references=("b",)),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "a JSON object is expected"),
        ('{"target": "x"}', "no field 'prediction'"),
        ('{"predictions": [], "target": "x"}', "no field 'prediction'"),
        ('{"prediction": "x"}', "no field 'references' or 'target'"),
        ('{"prediction": 3, "target": "x"}', "field 'prediction' holds int"),
        ('{"prediction": null, "target": "x"}', "field 'prediction' holds NoneType"),
        ('{"prediction": "x", "references": "x"}', "field 'references' is not a list"),
        ('{"prediction": "x", "references": []}', "field 'references' is not a list"),
        ('{"prediction": "x", "references": [1]}', "field 'references' holds int"),
        ('{"prediction": "x", "target": "y", "prediction": "z"}', "stands twice"),
        ('{"prediction": "\\ud800", "target": "y"}', "surrogate"),
        ('{"prediction": ' + "[" * 200_000, "nested too deeply"),
        ('{"prediction": ' + "9" * 10_000 + "}", "integer string conversion"),
    ],
)
def test_d1_wrong_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"prediction": "a", "target": "b"}\n' + line + "\n")
    with pytest.raises(DataError) as caught:
        read_predictions(path)
    (finding,) = caught.value.findings
    assert message in finding.what
    assert finding.where == f"{path}:2"
    assert finding.remedy.startswith("one object a line")


def test_blank_lines_are_passed_over_as_in_training_data(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('\n{"prediction": "a", "target": "b"}\n  \n\n')
    assert len(read_predictions(path)) == 1


def test_d1_all_wrong_lines_are_reported_at_once(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    wrong = [f'{{"prediction": "a", "target": {"[" * n}1{"]" * n}, "x": {"x" * n}}}\n' for n in range(1, 24)]
    path.write_text("".join(wrong[:3]) + '{"prediction": "a", "target": "b"}\n' + "".join(wrong[3:]))
    with pytest.raises(DataError) as caught:
        read_predictions(path)
    places = [finding.where.rpartition(":")[2] for finding in caught.value.findings[:-1]]
    assert places == ["1", "2", "3", "5", "6", "7", "8", "9", "10", "11"]
    assert "and 13 more" in caught.value.findings[-1].what


def test_missing_empty_and_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_predictions(path)
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_predictions(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="the file is empty"):
        read_predictions(path)
    path.write_bytes(b'{"prediction": "a", "target": "b"}\n{"prediction": "\xff"}\n')
    with pytest.raises(DataError, match=r"p\.jsonl:2"):
        read_predictions(path)


def test_the_same_fault_in_many_lines_is_one_finding(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"prediction": "a"}\n' * 50 + "{}\n")
    with pytest.raises(DataError) as caught:
        read_predictions(path)
    (finding,) = caught.value.findings
    assert finding.what == "no field 'references' or 'target' (51 times; here the first)"
    assert finding.where == f"{path}:1"
