"""``python -m seq2seq_cli.tasks.boss2sql``: data, ask, score."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

MODULE = (sys.executable, "-W", "error", "-m", "seq2seq_cli.tasks.boss2sql")


def _run(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MODULE, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


def test_ask_shows_tables_and_goes_on_after_bad_sql(company: Path) -> None:
    lines = [
        "SELECT name, budget FROM departments WHERE name = 'Sales'",
        "SELEKT 1",
        "",
        "SELECT AVG(id) FROM departments",
        "SELECT name FROM departments WHERE id > 99",
        "SELECT id FROM employees",
        "DROP TABLE employees",
        "SELECT NULL, 'two\u2028lines\x1b[2J'",
    ]
    result = _run("ask", company, stdin="\n".join(lines))
    assert (result.returncode, result.stderr) == (0, "")
    blocks = result.stdout.removesuffix("\n\n").split("\n\n")
    assert len(blocks) == len(lines)
    sales = blocks[0].split("\n")
    assert sales[0] == lines[0]
    assert sales[1].split() == ["name", "budget"]
    assert set(sales[2]) == {"-", " "}
    assert sales[3].startswith("Sales  ")
    assert blocks[1].split("\n")[1:] == ['cannot be run: near "SELEKT": syntax error']
    assert blocks[2] == "\ncannot be run: no query"
    assert blocks[3].endswith("\nAVG(id)\n-------\n   4.50")
    assert blocks[4].endswith("(no rows)")
    assert blocks[5].endswith("... and 300 more rows")
    assert blocks[6].endswith("cannot be run: not authorized")
    assert blocks[7].endswith("-     two lines [2J")


def test_ask_answers_each_line_as_it_comes(company: Path) -> None:
    with subprocess.Popen(
        [*MODULE, "ask", str(company)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("SELECT 41 + 1 AS x\n")
        process.stdin.flush()
        assert [process.stdout.readline().rstrip() for _ in range(4)] == [
            "SELECT 41 + 1 AS x",
            " x",
            "--",
            "42",
        ]
        process.stdin.close()
        assert process.wait(timeout=30) == 0


def test_ask_ends_quietly_when_its_reader_goes(company: Path) -> None:
    with subprocess.Popen(
        [*MODULE, "ask", str(company)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stdin is not None
        process.stdin.write("SELECT 1\n")
        process.stdin.close()
        assert process.wait(timeout=30) == 141
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_score_prints_json(company: Path, tmp_path: Path) -> None:
    file = tmp_path / "predictions.jsonl"
    right, wrong = "SELECT COUNT(*) FROM orders", "SELECT COUNT(*) FROM customers"
    rows = [{"target": right, "prediction": right}, {"target": right, "prediction": wrong}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = _run("score", file, company)
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout) == {
        "execution_accuracy": 0.5,
        "exact_match": 0.5,
        "invalid": 0,
        "rows": 2,
    }
    swapped = _run("score", file, company, "--prediction-field", "target", "--reference-field", "prediction")
    assert json.loads(swapped.stdout)["execution_accuracy"] == 0.5


def test_data_writes_what_it_is_asked_for(tmp_path: Path) -> None:
    sizes = ("--train", "200", "--dev", "20", "--test", "30")
    assert _run("data", tmp_path / "new" / "folder", *sizes).returncode == 0
    assert len((tmp_path / "new" / "folder" / "test.jsonl").read_text("utf-8").splitlines()) == 30
    again = _run("data", tmp_path / "new" / "folder", *sizes)
    assert (again.returncode, again.stdout) == (2, "")
    assert "company.sqlite exists" in again.stderr
    assert _run("data", tmp_path / "new" / "folder", *sizes, "--overwrite").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("ask", "missing.sqlite"), 3, "no such database"),
        (("ask",), 2, "Missing argument"),
        (("nothing",), 2, "No such command"),
        (("data", "x", "--train", "0"), 2, "--train"),
        (("score", "missing.jsonl", "{company}"), 3, "cannot be read"),
        (("score", "{bad}", "{company}"), 3, "bad.jsonl:2"),
        (("score", "{empty}", "{company}"), 3, "at least one"),
    ],
)
def test_mistakes_are_one_line_with_their_exit_code(
    arguments: tuple[str, ...], code: int, message: str, company: Path, tmp_path: Path
) -> None:
    places = {"{company}": company, "{bad}": tmp_path / "bad.jsonl", "{empty}": tmp_path / "empty.jsonl"}
    places["{bad}"].write_text('{"target": "SELECT 1", "prediction": "SELECT 1"}\n{"target": "SELECT 1"}\n')
    places["{empty}"].write_text("")
    result = _run(*(places.get(argument, argument) for argument in arguments))
    assert (result.returncode, result.stdout) == (code, "")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_help_needs_no_torch() -> None:
    script = "import sys, seq2seq_cli.tasks.boss2sql.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
