"""--stream: the words of one output as they are found, the same text in the end."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from seq2seq_cli.checkpoint.bundle import load_bundle
from seq2seq_cli.cli.running import make_generator
from seq2seq_cli.errors import UsageError
from tests.cli.conftest import Run

LONG = ("--max-new-tokens", "24", "--min-new-tokens", "24")
ASKED = {"max_new_tokens": 24, "min_new_tokens": 24}


@pytest.mark.parametrize("options", [(), ("--top-p", "0.95", "--seed", "4"), ("--echo",)])
@pytest.mark.parametrize("model", ["pair_folder", "stack_folder"])
def test_the_pieces_are_the_whole_text(
    s2s: Run, request: pytest.FixtureRequest, model: str, options: tuple[str, ...]
) -> None:
    asked = ("generate", "-m", request.getfixturevalue(model), *LONG, *options)
    whole = s2s(*asked, "who sells")
    streamed = s2s(*asked, "--stream", stdin=b"who sells\n")
    assert streamed.returncode == 0, streamed.stderr
    assert streamed.stdout == whole.stdout
    assert streamed.stdout.count(b"\n") == 1


def test_words_come_whole_and_early(stack_folder: Path) -> None:
    """The tiny model writes bytes that are no UTF-8 more often than not."""
    bundle = load_bundle(str(stack_folder))
    counts = []
    for seed in range(8):
        options = {**ASKED, "do_sample": True, "temperature": 1.5, "seed": seed}
        generator = make_generator(bundle, recipe_options={}, given=options)
        (output,) = generator.texts(["tea and"])
        pieces: list[str] = []
        generator.stream("tea and", pieces.append)
        assert "".join(pieces) == output.texts[0]
        for piece, after in pairwise(pieces):
            assert after[:1].isspace() or not after, (piece, after)
            assert not piece[-1:].isspace()
        counts.append(len(pieces))
    assert max(counts) > 2


def test_blank_and_missing_lines(s2s: Run, pair_folder: Path) -> None:
    asked = ("generate", "-m", pair_folder, "--stream")
    assert s2s(*asked, stdin=b"  \n").stdout == b"\n"
    assert s2s(*asked, stdin=b"").stdout == b""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--num-beams", "2", "tea"), b"--num-beams"),
        (("--jsonl", "--num-return-sequences", "2", "tea"), b"--jsonl, --num-return-sequences"),
        (("--scores", "tea"), b"--scores"),
        (("-o", "x", "--resume", "tea"), b"--resume"),
        (("tea", "cake"), b"several inputs"),
    ],
)
def test_what_does_not_stream_is_refused_by_name(s2s: Run, arguments: tuple[str, ...], says: bytes) -> None:
    done = s2s("generate", "-m", "./missing", "--stream", *arguments)
    assert done.returncode == 2
    assert b"--stream does not go with " + says in done.stderr
    assert done.stdout == b""


def test_a_second_line_is_refused(s2s: Run, pair_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "two.txt").write_text("tea\ncake\n")
    for arguments, stdin in ((("-i", "two.txt"), b""), ((), b"tea\ncake\n")):
        done = s2s("generate", "-m", pair_folder, "--stream", *arguments, stdin=stdin)
        assert done.returncode == 2
        assert b":2 \xc2\xb7 give it one line" in done.stderr
        assert done.stdout == b""


def test_beams_of_the_checkpoint_are_refused_too(pair_folder: Path) -> None:
    generator = make_generator(load_bundle(str(pair_folder)), recipe_options={"num_beams": 2}, given={})
    with pytest.raises(UsageError, match=r"num_beams 2 .* --num-beams 1"):
        generator.stream("tea", print)


def test_what_weighs_whole_candidates_is_refused(pair_folder: Path) -> None:
    given = {"penalty_alpha": 0.6, "top_k": 4}
    generator = make_generator(load_bundle(str(pair_folder)), recipe_options={}, given=given)
    with pytest.raises(UsageError, match="--stream does not go with penalty_alpha"):
        generator.stream("tea", print)


def test_p1_a_reader_that_goes_away_ends_the_stream(pair_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "seq2seq_cli", "generate", "-q", "-m", str(pair_folder), "--stream"]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*command, "tea"], stdout=writing, stderr=subprocess.PIPE, cwd=tmp_path, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")
