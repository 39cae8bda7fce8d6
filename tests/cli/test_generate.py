"""The line contract of generate: one line in, one line out, in order, whatever the line holds."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import TEXTS, Run

SHORT = ("--max-new-tokens", "4", "--min-new-tokens", "2")


def test_lines_come_out_in_order_with_blank_ones_kept(s2s: Run, pair_folder: Path) -> None:
    lines = ["who sells tea", "", "how many people work here and there and everywhere", "   ", "tea"]
    together = s2s("generate", "-m", pair_folder, *SHORT, stdin="\n".join(lines).encode())
    assert together.returncode == 0, together.stderr
    out = together.stdout.decode().split("\n")
    assert len(out) == len(lines) + 1
    assert out[-1] == ""
    assert out[1] == out[3] == ""
    alone = s2s("generate", "-m", pair_folder, *SHORT, lines[2])
    assert alone.stdout.decode() == out[2] + "\n"
    assert b"never fine-tuned" in together.stderr


def test_p3_odd_characters_never_shift_lines(s2s: Run, pair_folder: Path) -> None:
    lines = [
        b"a\rb",
        b"a\0b",
        "a\u2028b\u2029c\u0085d".encode(),
        b"a\vb\fc",
        b"\xef\xbb\xbftea",
        b" ",
        b"tea",
    ]
    done = s2s("generate", "-m", pair_folder, *SHORT, stdin=b"\n".join(lines))
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    assert text.count("\n") == len(lines)
    assert len(text.splitlines()) == len(lines), "no other character may end a line for any reader"


def test_p4_invalid_utf8_is_named_or_replaced(s2s: Run, pair_folder: Path) -> None:
    stdin = b"tea\ncake \xff tea\ntea\n"
    strict = s2s("generate", "-m", pair_folder, *SHORT, stdin=stdin)
    assert strict.returncode == 3
    assert b"stdin:2:6" in strict.stderr
    replaced = s2s("generate", "-m", pair_folder, *SHORT, "--errors", "replace", stdin=stdin)
    assert replaced.returncode == 0
    assert replaced.stdout.count(b"\n") == 3
    assert b"1 line(s) with invalid UTF-8" in replaced.stderr


def test_p4_a_lone_surrogate_is_named(s2s: Run, pair_folder: Path) -> None:
    stdin = b'{"source": "tea"}\n{"source": "a \\ud800 b"}\n'
    done = s2s("generate", "-m", pair_folder, *SHORT, "--jsonl", stdin=stdin)
    assert done.returncode == 3
    assert b"lone surrogate \xc2\xb7 stdin:2" in done.stderr


def test_p5_a_long_line_is_cut_and_counted(s2s: Run, pair_folder: Path) -> None:
    done = s2s("generate", "-m", pair_folder, *SHORT, stdin=b"tea " * 250_000 + b"\ntea\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"\n") == 2
    assert b"1 input(s) were longer" in done.stderr
    refused = s2s("generate", "-m", pair_folder, "--truncation", "error", stdin=b"tea " * 100)
    assert refused.returncode == 3
    assert b"longer than the 24" in refused.stderr
    stdin = b"tea\n" + b"tea " * 100 + b"\n\n" + b"tea " * 200 + b"\n"
    several = s2s("generate", "-m", pair_folder, "--truncation", "error", stdin=stdin)
    first, second = several.stderr.decode().splitlines()[-2:]
    assert "stdin:2 · shorten it" in first
    assert "stdin:4 · shorten it" in second


def test_p5_each_line_is_answered_before_the_next_is_written(pair_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "seq2seq_cli", "generate", "-m", str(pair_folder), *SHORT, "-q"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in (b"tea\n", b"cake\n", b"\n"):
            process.stdin.write(line)
            process.stdin.flush()
            assert process.stdout.readline().endswith(b"\n")
        process.stdin.close()
        assert process.stdout.read() == b""
        assert process.wait(timeout=30) == 0


def test_p6_a_slow_writer_gives_the_same_bytes_as_a_file(s2s: Run, pair_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"who sells tea\n\ntea and cake\nlist all")
    from_file = s2s("generate", "-m", pair_folder, *SHORT, "-i", "in.txt")
    command = [sys.executable, "-m", "seq2seq_cli", "generate", "-m", str(pair_folder), *SHORT]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=tmp_path
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for piece in (b"who se", b"lls tea\n\nte", b"a and cake\n", b"list all"):
            process.stdin.write(piece)
            process.stdin.flush()
            time.sleep(0.05)
        process.stdin.close()
        assert process.stdout.read() == from_file.stdout
        assert process.wait(timeout=30) == 0


def test_p6_named_pipes_are_answered_as_lines_come(pair_folder: Path, tmp_path: Path) -> None:
    """Nothing waits for a full batch, also where the pipe has a name."""
    os.mkfifo(tmp_path / "pipe")
    command = [sys.executable, "-m", "seq2seq_cli", "generate", "-q", "-m", str(pair_folder), *SHORT]
    with subprocess.Popen([*command, "-i", "pipe"], stdout=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stdout is not None
        with (tmp_path / "pipe").open("wb", buffering=0) as pipe:
            for line in (b"tea\n", b"\n", b"tea and cake\n"):
                pipe.write(line)
                assert process.stdout.readline().endswith(b"\n")
        assert process.stdout.read() == b""
        assert process.wait(timeout=30) == 0


def test_p6_process_substitution_gives_the_same_bytes(s2s: Run, pair_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"who sells tea\n\ntea and cake\nlist all")
    from_file = s2s("generate", "-m", pair_folder, *SHORT, "-i", "in.txt")
    command = f"'{sys.executable}' -m seq2seq_cli generate -q -m '{pair_folder}' {' '.join(SHORT)}"
    script = f"{command} -i <(cat in.txt)"
    done = subprocess.run(["bash", "-c", script], capture_output=True, cwd=tmp_path, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == from_file.stdout


def test_p1_a_reader_that_goes_away_is_no_error(pair_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"tea\n" * 20_000)
    arguments = f"generate -m {pair_folder} -i in.txt --max-new-tokens 24 --min-new-tokens 24"
    script = f"'{sys.executable}' -m seq2seq_cli {arguments} | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=120,
        check=False,
    )
    assert done.stdout.split(b"\n")[-2] == b"141"
    assert b"Traceback" not in done.stderr
    assert b"Broken" not in done.stderr


def test_p2_a_full_device_is_an_error(pair_folder: Path, tmp_path: Path) -> None:
    script = f"echo tea | '{sys.executable}' -m seq2seq_cli generate -m {pair_folder} > /dev/full"
    done = subprocess.run(["bash", "-c", script], capture_output=True, cwd=tmp_path, timeout=60, check=False)
    assert done.returncode == 6
    assert b"cannot write" in done.stderr


def test_p7_output_files_appear_whole_and_resume(s2s: Run, pair_folder: Path, tmp_path: Path) -> None:
    lines = [b"who sells tea", b"", b"tea and cake", b"list all", b"here"]
    (tmp_path / "in.txt").write_bytes(b"\n".join(lines) + b"\n")
    asked = ("generate", "-m", pair_folder, *SHORT, "-i", "in.txt", "-o", "out.txt")
    assert s2s(*asked).returncode == 0
    whole = (tmp_path / "out.txt").read_bytes()
    assert whole.count(b"\n") == 5
    assert not (tmp_path / "out.txt.part").exists()
    assert s2s(*asked).returncode == 2, "a file that exists is not overwritten"
    (tmp_path / "out.txt").unlink()
    kept = b"".join(line + b"\n" for line in whole.split(b"\n")[:2])
    (tmp_path / "out.txt.part").write_bytes(kept + b"half a li")
    resumed = s2s(*asked, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert (tmp_path / "out.txt").read_bytes() == whole
    assert b"going on with line 3" in resumed.stderr


def test_what_is_no_file_is_written_straight(s2s: Run, pair_folder: Path, tmp_path: Path) -> None:
    """A pipe stays one, and a link still leads to its file, which is the one that is replaced."""
    pipe, link, target = tmp_path / "pipe", tmp_path / "link", tmp_path / "target"
    asked = ("generate", "-m", pair_folder, *SHORT, "--overwrite", "-o")
    expected = s2s("generate", "-m", pair_folder, *SHORT, "tea").stdout
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        done = s2s(*asked, "pipe", "tea")
        assert done.returncode == 0, done.stderr
        assert os.read(reading, 1 << 16) == expected
    finally:
        os.close(reading)
    assert pipe.is_fifo()
    target.write_text("old")
    link.symlink_to("target")
    assert s2s(*asked, "link", "tea").returncode == 0
    assert link.is_symlink()
    assert target.read_bytes() == expected


@pytest.mark.parametrize("flag", ["--resume", "--overwrite"])
def test_a_folder_is_no_output_file(s2s: Run, pair_folder: Path, tmp_path: Path, flag: str) -> None:
    (tmp_path / "full").mkdir()
    done = s2s("generate", "-m", pair_folder, *SHORT, "-o", "full", flag, "tea")
    assert done.returncode == 2
    assert b"this is a folder \xc2\xb7 full" in done.stderr
    assert b"fine-tuned" not in done.stderr, "said before the model is loaded"
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_p7_sigterm_leaves_the_part_file(pair_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"tea\n" * 50_000)
    arguments = [
        "generate",
        "-m",
        str(pair_folder),
        "-i",
        "in.txt",
        "-o",
        "out.txt",
        "--max-new-tokens",
        "24",
    ]
    with subprocess.Popen([sys.executable, "-m", "seq2seq_cli", *arguments], cwd=tmp_path) as process:
        part = tmp_path / "out.txt.part"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (part.exists() and part.stat().st_size):
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 143
    assert part.stat().st_size
    assert not (tmp_path / "out.txt").exists()


def test_p9_no_control_codes_off_a_terminal(s2s: Run, pair_folder: Path) -> None:
    done = s2s("generate", "-m", pair_folder, *SHORT, "tea")
    assert b"\x1b" not in done.stdout + done.stderr
    assert b"\r" not in done.stdout + done.stderr


def test_jsonl_keeps_fields_and_gives_several(s2s: Run, pair_folder: Path) -> None:
    rows = [{"id": 7, "source": "who sells tea", "x": [1, None]}, {"source": ""}]
    stdin = "\n".join(map(json.dumps, rows)).encode()
    one = s2s("generate", "-m", pair_folder, *SHORT, "--jsonl", stdin=stdin)
    first, second = map(json.loads, one.stdout.splitlines())
    assert first["id"] == 7
    assert first["x"] == [1, None]
    assert isinstance(first["prediction"], str)
    assert second["prediction"] == ""
    several = s2s(
        "generate",
        "-m",
        pair_folder,
        *SHORT,
        "--jsonl",
        "--num-beams",
        "3",
        "--num-return-sequences",
        "2",
        stdin=stdin,
    )
    found = json.loads(several.stdout.splitlines()[0])["predictions"]
    assert len(found) == 2
    assert found[0]["score"] >= found[1]["score"]
    assert s2s("generate", "-m", pair_folder, "--num-return-sequences", "2", "tea").returncode == 2


@pytest.mark.parametrize("search", [(), ("--num-beams", "3"), ("--top-p", "0.9")], ids=str)
def test_jsonl_tells_the_score_of_each_token(s2s: Run, pair_folder: Path, search: tuple[str, ...]) -> None:
    stdin = b'{"source": "who sells tea"}\n{"source": " "}\n{"source": "tea and cake"}\n'
    asked = ("generate", "-m", pair_folder, *SHORT, *search, "--length-penalty", "0", "--jsonl")
    done = s2s(*asked, "--token-scores", "--scores", stdin=stdin)
    assert done.returncode == 0, done.stderr
    first, blank, last = map(json.loads, done.stdout.splitlines())
    assert (blank["prediction"], blank["tokens"]) == ("", [])
    for row in (first, last):
        if row["prediction"].isascii():  # others may be of several tokens a character
            assert "".join(token["text"] for token in row["tokens"]).startswith(row["prediction"])
        assert sum(token["score"] for token in row["tokens"]) == pytest.approx(row["score"], abs=1e-4)
    without = [json.loads(line) for line in s2s(*asked, "--token-scores", stdin=stdin).stdout.splitlines()]
    assert without == [
        {name: value for name, value in row.items() if name != "score"} for row in (first, blank, last)
    ]
    two = s2s(*asked, "--token-scores", "--scores", "--num-processes", "2", stdin=stdin)
    assert two.stdout == done.stdout
    if search:
        several = s2s(*asked, *search, "--num-return-sequences", "2", "--token-scores", stdin=stdin)
        (row, *_) = map(json.loads, several.stdout.splitlines())
        for one in row["predictions"]:
            assert sum(token["score"] for token in one["tokens"]) == pytest.approx(one["score"], abs=1e-4)
    refused = s2s("generate", "-m", pair_folder, "--token-scores", "tea")
    assert refused.returncode == 2
    assert b"--token-scores \xc2\xb7 add --jsonl" in refused.stderr


PREFIXED = ["tea", "", "who works here", "list all"]


@pytest.mark.parametrize("search", [(), ("--num-beams", "3"), ("--top-p", "0.9")], ids=str)
def test_each_object_may_bring_its_prefix(s2s: Run, pair_folder: Path, search: tuple[str, ...]) -> None:
    rows = [{"source": text, "begin": prefix} for text, prefix in zip(TEXTS, PREFIXED, strict=True)]
    stdin = "\n".join(map(json.dumps, [*rows, {"source": " ", "begin": "tea"}])).encode()
    asked = ("generate", "-m", pair_folder, "--max-new-tokens", "24", *search, "--jsonl", "--prefix-field")
    done = s2s(*asked, "begin", stdin=stdin)
    assert done.returncode == 0, done.stderr
    *found, blank = map(json.loads, done.stdout.splitlines())
    assert blank["prediction"] == ""
    for row, given in zip(found, rows, strict=True):
        assert row["begin"] == given["begin"]
        assert row["prediction"].startswith(given["begin"])
    assert len({row["prediction"][:3] for row in found}) > 2
    assert s2s(*asked, "begin", "--num-processes", "2", stdin=stdin).stdout == done.stdout


def test_prefixes_that_are_none_are_named_by_line(s2s: Run, pair_folder: Path) -> None:
    asked = ("generate", "-m", pair_folder, *SHORT, "--jsonl", "--prefix-field", "begin")
    lines = [{"source": "tea", "begin": "a"}, {"source": "tea"}, {"source": "tea", "begin": 7}]
    done = s2s(*asked, stdin="\n".join(map(json.dumps, lines)).encode())
    assert done.returncode == 3
    missing, wrong = done.stderr.decode().splitlines()[-2:]
    assert missing == "the object has no field 'begin' · stdin:2 · name it with --prefix-field"
    assert wrong == "the object has no text in field 'begin' · stdin:3 · name it with --prefix-field"
    for flags, says in (
        (("--prefix-field", "begin"), b"--prefix-field \xc2\xb7 add --jsonl"),
        (("--jsonl", "--prefix-field", "begin", "--prefix", "a"), b"does not go with --prefix \xc2\xb7"),
    ):
        refused = s2s("generate", "-m", pair_folder, *flags, stdin=b"")
        assert refused.returncode == 2
        assert says in refused.stderr


@pytest.mark.parametrize(
    ("line", "says"),
    [(b"nonsense", b"not a JSON object"), (b"[1]", b"not a JSON object"), (b'{"a": 1}', b"no field 'source'"),
     (b'{"source": 3}', b"no text in field"), (b'{"source": "\\ud800"}', b"lone surrogate")],
)  # fmt: skip
def test_d1_wrong_json_lines_are_named(s2s: Run, pair_folder: Path, line: bytes, says: bytes) -> None:
    done = s2s("generate", "-m", pair_folder, *SHORT, "--jsonl", stdin=b'{"source": "tea"}\n' + line)
    assert done.returncode == 3
    assert says in done.stderr
    assert b"stdin:2" in done.stderr
    assert b"Traceback" not in done.stderr


def test_d1_all_wrong_json_lines_are_named_at_once(s2s: Run, pair_folder: Path) -> None:
    stdin = b'{"source": "tea"}\n[1]\n{"source": "tea"}\n{"source": 3}\nnonsense\n'
    done = s2s("generate", "-m", pair_folder, *SHORT, "--jsonl", stdin=stdin)
    assert done.returncode == 3
    lines = done.stderr.decode().splitlines()[-3:]
    assert [f"stdin:{number}" in line for number, line in zip((2, 4, 5), lines, strict=True)] == [True] * 3
    wrong = s2s("generate", "-m", pair_folder, "--jsonl", "--field", "text", stdin=b'{"source": "tea"}\n' * 9)
    (line,) = [line for line in wrong.stderr.decode().splitlines() if "stdin" in line]
    assert line.startswith("the object has no field 'text' (9 times; here the first) · stdin:1 ·")


def test_sampling_is_turned_on_by_its_options_and_repeats_with_the_seed(s2s: Run, pair_folder: Path) -> None:
    asked = ("generate", "-m", pair_folder, "--max-new-tokens", "12", "--min_new_tokens", "12")
    greedy = s2s(*asked, "who sells tea").stdout
    first = s2s(*asked, "--top-p", "0.95", "--seed", "1", "who sells tea").stdout
    assert first == s2s(*asked, "--top-p", "0.95", "--seed", "1", "who sells tea").stdout
    assert first != greedy
    assert first != s2s(*asked, "--top-p", "0.95", "--seed", "2", "who sells tea").stdout
    assert first == s2s(*asked, "--preset", "sample", "--top-k", "0", "--temperature", "1", "--top-p", "0.95",
                        "--seed", "1", "who sells tea").stdout  # fmt: skip


def test_a_single_stack_continues_its_prompt(s2s: Run, stack_folder: Path) -> None:
    plain = s2s("generate", "-m", stack_folder, *SHORT, "who sells")
    echoed = s2s("generate", "-m", stack_folder, *SHORT, "--echo", "who sells")
    assert plain.returncode == 0, plain.stderr
    assert echoed.stdout == b"who sells" + plain.stdout
    long = s2s("generate", "-m", stack_folder, *SHORT, "tea and cake " * 40)
    assert long.returncode == 0
    assert b"1 input(s) were longer" in long.stderr


def test_eight_bits_score_nearly_the_same(s2s: Run, pair_folder: Path) -> None:
    call = ("generate", "-m", pair_folder, *SHORT, "--scores", "who sells tea")
    plain, rounded = s2s(*call), s2s(*call, "--quantize", "int8")
    assert rounded.returncode == 0, rounded.stderr
    before, after = (float(done.stdout.split(b"\t")[0]) for done in (plain, rounded))
    assert before != after
    assert before == pytest.approx(after, abs=0.1)
    refused = s2s(*call, "--quantize", "int8", "--dtype", "bfloat16")
    assert refused.returncode == 2
    assert b"eight bits are for float32 on a CPU" in refused.stderr


def test_scores_stand_before_the_text(s2s: Run, pair_folder: Path) -> None:
    done = s2s("generate", "-m", pair_folder, *SHORT, "--scores", "tea")
    score, _, text = done.stdout.decode().partition("\t")
    assert float(score) < 0
    assert text == s2s("generate", "-m", pair_folder, *SHORT, "tea").stdout.decode()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((), 2, b"no model is named"),
        (("-m", "no-such-model"), 2, b"no-such-model"),
        (("-m", "./missing"), 2, b"missing"),
        (("-m", "bert", "--num-beams", "0"), 2, b"--num-beams"),
        (("-m", "bert", "--top-p", "2"), 2, b"--top-p"),
        (("-m", "bert", "--top-p", "nan"), 2, b"--top-p"),
        (("-m", "bert", "--num-beam", "2"), 2, b"--num-beams"),
        (("-i", "missing.txt", "-m", "bert"), 3, b"missing.txt"),
        (("-i", "missing.txt", "-m", "bert"), 3, b"check the path, or use - for stdin"),
        (("--resume", "-m", "bert"), 2, b"-o FILE"),
        (("-m", "bert", "--resume", "-o", "-"), 2, b"-o FILE"),
        (("-m", "bert", "--field", "text"), 2, b"--field \xc2\xb7 add --jsonl"),
        (("-m", "bert", "-o", "nodir/x"), 6, b"the folder nodir does not exist \xc2\xb7 nodir/x \xc2\xb7"),
        (("-m", "bert", "--early-stopping", "maybe"), 2, b"must be true, false or never, not 'maybe'"),
        (("-m", "bert", "--preset", "sampel"), 2, b"sample"),
    ],
)
def test_wrong_calls_get_one_line_and_their_code(
    s2s: Run, arguments: tuple[str, ...], code: int, says: bytes
) -> None:
    text = () if "-i" in arguments else ("--", "tea")
    done = s2s("generate", *arguments, *text, HF_HUB_OFFLINE="1")
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert b"Traceback" not in done.stderr
    assert done.stdout == b""


@pytest.mark.parametrize("device", ["gpu", "meta", "cpu:x"])
def test_a_device_that_is_not_there(s2s: Run, pair_folder: Path, device: str) -> None:
    done = s2s("generate", "-m", pair_folder, *SHORT, "--device", device, "tea")
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.decode().splitlines() if device in line]
    assert "--device" in line
    assert len(line) < 120, "not the library's list of everything"


def test_errors_name_what_named_the_model(s2s: Run, pair_folder: Path, tmp_path: Path) -> None:
    done = s2s("generate", "tea", S2S_MODEL="nope")
    assert done.returncode == 2
    assert b"nope (named by $S2S_MODEL)" in done.stderr
    (tmp_path / "runs/latest").mkdir(parents=True)
    done = s2s("generate", "tea")
    assert done.returncode == 4
    assert b"(named by the link runs/latest)" in done.stderr
    shutil.copytree(pair_folder, tmp_path / "bare", ignore=shutil.ignore_patterns("*tokenizer*"))
    done = s2s("generate", "-m", "bare", "tea")
    assert done.returncode == 4
    assert b"the model folder has no tokenizer \xc2\xb7 bare \xc2\xb7" in done.stderr


def test_the_model_comes_from_the_environment_or_runs_latest(
    s2s: Run, pair_folder: Path, tmp_path: Path
) -> None:
    expected = s2s("generate", "-m", pair_folder, *SHORT, "tea").stdout
    assert s2s("generate", *SHORT, "tea", S2S_MODEL=str(pair_folder)).stdout == expected
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/latest").symlink_to(pair_folder)
    assert s2s("generate", *SHORT, "tea").stdout == expected
