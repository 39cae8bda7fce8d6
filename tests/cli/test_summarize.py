"""``s2s summarize``: documents of any length, and what its hidden preset gives way to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run

ASKED = ("--max-new-tokens", "6", "--min-new-tokens", "2")


def test_summarize_splits_what_is_too_long(s2s: Run, pair_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Who sells tea? Tea and cake!\nHow many people work here. " * 12)
    (tmp_path / "b.txt").write_text("tea and cake")
    asked = ("summarize", "-m", pair_folder, "--max-new-tokens", "6", "--min-new-tokens", "2")
    done = s2s(*asked, "a.txt", "b.txt")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"\n") == 2
    refused = s2s(*asked, "a.txt", "--long", "error")
    assert refused.returncode == 3
    assert b"a.txt" in refused.stderr
    cut = s2s(*asked, "a.txt", "--long", "truncate")
    assert b"truncated" in cut.stderr
    lines = s2s(*asked, "--lines", stdin=b"tea and cake\n\ntea\n")
    assert lines.stdout.split(b"\n")[0] + b"\n" == s2s(*asked, "b.txt").stdout
    assert lines.stdout.split(b"\n")[1] == b""


def test_a_document_that_is_too_long_is_named(s2s: Run, pair_folder: Path) -> None:
    """Also where it is not the first of those that came together."""
    stdin = b"tea\n" + b"who sells tea " * 20 + b"\ntea\n" + b"tea " * 60 + b"\n"
    done = s2s("summarize", "-m", pair_folder, *ASKED, "--lines", "--long", "error", stdin=stdin)
    assert done.returncode == 3
    first, second = done.stderr.decode().splitlines()[-2:]
    assert "stdin:2" in first
    assert "stdin:4" in second
    assert "--long split" in second


def test_a_wrong_line_of_a_file_is_named_by_the_file(s2s: Run, pair_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "good.jsonl").write_text('{"source": "tea"}\n')
    (tmp_path / "bad.jsonl").write_text('{"source": "tea"}\n{"text": "tea"}\n')
    done = s2s("summarize", "-m", pair_folder, *ASKED, "--jsonl", "good.jsonl", "bad.jsonl")
    assert done.returncode == 3
    assert b"bad.jsonl:2" in done.stderr
    assert b"stdin" not in done.stderr


@pytest.mark.parametrize(
    "flags",
    [
        ("--top-p", "0.9", "--max-new-tokens", "12"),
        ("--do-sample", "--max-new-tokens", "12"),
        ("--max-new-tokens", "5"),
        ("--min-new-tokens", "20", "--max-new-tokens", "20"),
        ("--num-beams", "1", "--max-new-tokens", "12"),
    ],
    ids=" ".join,
)
def test_flags_win_over_the_hidden_preset(s2s: Run, pair_folder: Path, flags: tuple[str, ...]) -> None:
    done = s2s("summarize", "-m", pair_folder, *flags, stdin=b"who sells tea")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"\n") == 1


def test_flags_win_over_a_recipe_but_not_over_each_other(s2s: Run, pair_folder: Path, tmp_path: Path) -> None:
    options = "{num_beams: 3, min_new_tokens: 8, max_new_tokens: 9}"
    (tmp_path / "r.yaml").write_text(f"model: {{encoder: {pair_folder}}}\ngeneration: {options}\n")
    same = ("--num-beams", "3", "--min-new-tokens", "8", "--max-new-tokens", "9")
    expected = s2s("summarize", "-m", pair_folder, *same, stdin=b"tea").stdout
    assert s2s("summarize", "--recipe", "r.yaml", stdin=b"tea").stdout == expected
    assert s2s("summarize", "-m", pair_folder, stdin=b"tea").stdout != expected, "the preset's"
    for flags in (("--top-k", "5"), ("--max-new-tokens", "4")):
        done = s2s("summarize", "--recipe", "r.yaml", *flags, stdin=b"tea")
        assert done.returncode == 0, done.stderr
    both = s2s("summarize", "-m", pair_folder, "--num-beams", "3", "--top-k", "5", stdin=b"tea")
    assert both.returncode == 0, "beam sampling"
    more = s2s(
        "summarize", "-m", pair_folder, "--num-beams", "3", "--num-return-sequences", "4", stdin=b"tea"
    )
    assert more.returncode == 2
    assert b"num_return_sequences 4 is more than num_beams 3" in more.stderr


def test_a_recipe_wins_over_the_hidden_preset(s2s: Run, pair_folder: Path, tmp_path: Path) -> None:
    """Sampling in the recipe turns the preset's beams off."""
    options = "{top_p: 0.9, max_new_tokens: 5}"
    (tmp_path / "r.yaml").write_text(f"model: {{encoder: {pair_folder}}}\ngeneration: {options}\n")
    done = s2s("summarize", "--recipe", "r.yaml", stdin=b"tea")
    assert done.returncode == 0, done.stderr


def test_replaced_bytes_are_said(s2s: Run, pair_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"tea\nand \xff cake")
    strict = s2s("summarize", "-m", pair_folder, *ASKED, "a.txt")
    assert strict.returncode == 3
    assert b"a.txt:2:5" in strict.stderr
    replaced = s2s("summarize", "-m", pair_folder, *ASKED, "--errors", "replace", "a.txt")
    assert replaced.returncode == 0, replaced.stderr
    assert b"warning: invalid UTF-8" in replaced.stderr
    assert b"a.txt:2:5" in replaced.stderr


def test_jsonl_keeps_the_fields_of_a_document(s2s: Run, pair_folder: Path) -> None:
    stdin = b'{"id": 3, "body": "tea and cake"}\n'
    done = s2s("summarize", "-m", pair_folder, *ASKED, "--jsonl", "--field", "body", stdin=stdin)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["id"] == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--field", "body"), "--field · add --jsonl"),
        (("--overwrite",), "add -o FILE"),
        (("gone.txt",), "gone.txt · check the path"),
    ],
)
def test_wrong_calls_say_what_to_do(
    s2s: Run, pair_folder: Path, arguments: tuple[str, ...], says: str
) -> None:
    done = s2s("summarize", "-m", pair_folder, *ASKED, *arguments, stdin=b"tea")
    assert done.returncode in (2, 3)
    assert says in done.stderr.decode()
