"""``s2s evaluate``: what it scores, where its predictions go, and what it never replaces."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Run

ROWS = [{"source": "who sells tea", "target": "tea"}, {"source": "tea and cake", "target": "cake here"}]
PREDICTED = [{"prediction": "tea", "target": "tea"}, {"prediction": "x", "target": "cake"}]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two rows, and predictions for them."""
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, PREDICTED)))
    return tmp_path


@pytest.fixture
def asked(pair_folder: Path, data: Path) -> tuple[object, ...]:
    """An evaluation of these rows that takes little time."""
    few = ("--max-new-tokens", "3", "--metrics", "exact_match")
    return ("evaluate", "-m", pair_folder, "--data", "d.jsonl", *few)


def test_evaluate_scores_and_writes_predictions(s2s: Run, pair_folder: Path, tmp_path: Path) -> None:
    rows = [{"source": "who sells tea", "target": "tea"}, {"source": "tea and cake", "target": "cake here"}]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = s2s("evaluate", "-m", pair_folder, "--data", "d.jsonl", "--max-new-tokens", "5", "-o", "p.jsonl")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["rows"] == 2
    assert result["perplexity"] == pytest.approx(2.718281828 ** result["loss"], rel=1e-6)
    (tmp_path / "t.tsv").write_text("tea\twho sells tea | who\n")
    (tmp_path / "r.yaml").write_text(
        f"model: {{encoder: {pair_folder}}}\ndata: {{source: '2', target: '1', reference_separator: ' | '}}\n"
    )
    fields = s2s("evaluate", "r.yaml", "--data", "t.tsv", "--max-new-tokens", "3", "-o", "q.jsonl")
    assert fields.returncode == 0, fields.stderr
    assert json.loads((tmp_path / "q.jsonl").read_text())["references"] == ["tea"]
    again = s2s("evaluate", "--predictions", "p.jsonl", "--metrics", "exact_match,token_error_rate")
    assert json.loads(again.stdout)["token_error_rate"] == result["token_error_rate"]
    assert s2s("evaluate", "-m", pair_folder, "--data", "d.jsonl", "--metrics", "rouge3").returncode == 2
    assert s2s("evaluate", "-m", pair_folder).returncode == 2
    assert s2s("evaluate", "-m", pair_folder, "--data", "none.jsonl").returncode == 3


def test_a_file_is_replaced_only_when_asked(s2s: Run, asked: tuple[object, ...], tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("years of work")
    done = s2s(*asked, "-o", "mine.txt")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"the file exists" in done.stderr
    assert b"mine.txt" in done.stderr
    assert b"rows" not in done.stderr, "said before anything is generated"
    assert mine.read_text() == "years of work"
    assert s2s(*asked, "-o", "mine.txt", "--overwrite").returncode == 0
    assert mine.read_bytes().count(b"\n") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.jsonl", "mine.txt", "p.jsonl"]


def test_a_limit_keeps_the_predictions_of_all_rows(
    s2s: Run, pair_folder: Path, data: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(pair_folder, model, ignore=shutil.ignore_patterns("generated_predictions.jsonl"))
    few = ("--max-new-tokens", "3", "--metrics", "exact_match")
    asked = ("evaluate", "-m", "model", "--data", "d.jsonl", *few)
    beside = model / "generated_predictions.jsonl"
    assert s2s(*asked, "--limit", "1").returncode == 0
    assert beside.read_bytes().count(b"\n") == 1, "nothing was there to keep"
    assert s2s(*asked).returncode == 0
    whole = beside.read_bytes()
    assert whole.count(b"\n") == 2
    limited = s2s(*asked, "--limit", "1")
    assert json.loads(limited.stdout)["rows"] == 1
    assert b"is kept" in limited.stderr
    assert beside.read_bytes() == whole
    assert s2s(*asked, "--limit", "1", "--overwrite").returncode == 0
    assert beside.read_bytes().count(b"\n") == 1


def test_a_dash_is_stdout(s2s: Run, asked: tuple[object, ...], tmp_path: Path) -> None:
    done = s2s(*asked, "-o", "-")
    assert done.returncode == 0, done.stderr
    first, second, scores = map(json.loads, done.stdout.splitlines())
    assert first["source"] == "who sells tea"
    assert second["references"] == ["cake here"]
    assert scores["rows"] == 2
    assert not (tmp_path / "-").exists()


def test_predictions_go_straight_into_a_pipe(s2s: Run, asked: tuple[object, ...], tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        done = s2s(*asked, "-o", "pipe")
        assert done.returncode == 0, done.stderr
        assert os.read(reading, 1 << 16).count(b"\n") == 2
    finally:
        os.close(reading)
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--metrics", ""), "no metric is named · --metrics · known: rouge1"),
        (("--metrics", " , "), "no metric is named"),
        (("--metrics", "blue,rouge3"), "unknown metric 'blue' · --metrics · did you mean 'bleu'?"),
        (("--predictions", "p.jsonl", "--metrics", "loss"), "loss needs the model"),
        (("--predictions", "p.jsonl", "-o", "x"), "--predictions does not go with --output"),
        (("--predictions", "p.jsonl", "--num-beams", "2"), "--predictions does not go with --num-beams"),
        (("--limit", "0"), "--limit must be at least 1, not '0' · s2s evaluate · see"),
        (("--dtype", "int4"), "--dtype must be one of 'float32', 'bfloat16', 'float16', not 'int4'"),
    ],
)
def test_wrong_calls_say_what_is_wrong(s2s: Run, data: Path, arguments: tuple[str, ...], says: str) -> None:
    done = s2s("evaluate", *arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().startswith(says)


def test_a_wrong_field_is_one_line(s2s: Run, pair_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "many.jsonl").write_text((json.dumps(ROWS[0]) + "\n") * 30)
    done = s2s("evaluate", "-m", pair_folder, "--data", "many.jsonl", "--source", "sourc")
    assert done.returncode == 3
    (line,) = done.stderr.decode().splitlines()
    assert "field 'sourc' is missing (20 or more times; here the first) · many.jsonl:1" in line
    assert "did you mean 'source'?" in line


def test_rows_that_a_recipe_does_not_name(s2s: Run, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("model: {encoder: bert}\n")
    done = s2s("evaluate", "r.yaml")
    assert done.returncode == 2
    assert b"no rows to evaluate on \xc2\xb7 r.yaml \xc2\xb7 add --data FILE" in done.stderr


def test_a_language_model_has_texts_to_score_but_no_loss(s2s: Run, stack_folder: Path, data: Path) -> None:
    few = ("-m", stack_folder, "--data", "d.jsonl", "--max-new-tokens", "3", "-o", "q.jsonl")
    done = s2s("evaluate", *few)
    assert done.returncode == 0, done.stderr
    assert "loss" not in json.loads(done.stdout)
    assert b"is no encoder-decoder: no loss" in done.stderr
    refused = s2s("evaluate", *few, "--overwrite", "--metrics", "bleu,loss")
    assert (refused.returncode, refused.stdout) == (2, b"")
    assert b"loss and perplexity are those of an encoder-decoder" in refused.stderr


@pytest.mark.parametrize("objective", ["causal_lm", "masked_lm", "denoise"])
def test_runs_without_sources_are_not_evaluated(s2s: Run, data: Path, objective: str) -> None:
    sides = {"causal_lm": "decoder: gpt2", "masked_lm": "encoder: bert"}.get(objective, "encoder: bart")
    (data / "r.yaml").write_text(
        f"model: {{{sides}}}\ndata: {{train: d.jsonl}}\ntraining: {{objective: {objective}}}\noutput: r\n"
    )
    done = s2s("evaluate", "r.yaml", "--data", "d.jsonl")
    assert (done.returncode, done.stdout) == (2, b"")
    assert f"{objective} has none · r.yaml:3:23".encode() in done.stderr
