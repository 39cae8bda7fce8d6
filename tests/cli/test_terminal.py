"""What stands on a terminal: a bar on stderr while lines are worked on, and none where it would disturb."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

LINES = 40


def run(folder: Path, model: Path, *arguments: str, terminal: str, **settings: str) -> tuple[bytes, bytes]:
    """What the program wrote to stdout (a file unless a terminal too) and to stderr, which is a terminal."""
    (folder / "in.txt").write_text("tea\n" * LINES)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "seq2seq_cli", "generate", "-m", str(model), "-i", "in.txt", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": terminal, "COLUMNS": "100", **settings}
    with (folder / "out.txt").open("wb") as out:
        child = subprocess.Popen(command, stdout=out, stderr=theirs, cwd=folder, env=environment)
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(ours, 1 << 16):
                shown += chunk
        except OSError:  # how a terminal says that nobody is there any more
            pass
        assert child.wait(timeout=60) == 0, shown
    os.close(ours)
    return (folder / "out.txt").read_bytes(), shown


def test_a_bar_with_lines_speed_and_time_left(pair_folder: Path, tmp_path: Path) -> None:
    out, shown = run(tmp_path, pair_folder, "--max-new-tokens", "8", terminal="xterm")
    assert out.count(b"\n") == LINES
    assert b"\x1b" not in out
    assert f"0 of {LINES} lines".encode() in shown
    assert f"{LINES} of {LINES} lines".encode() in shown
    assert b"lines/s" in shown
    assert b"0:00:00" in shown
    assert shown.endswith(b"\x1b[2K"), "the bar is taken away at the end"


@pytest.mark.parametrize(
    ("terminal", "settings", "flags"),
    [("dumb", {}, ()), ("xterm", {"NO_COLOR": "1"}, ()), ("xterm", {}, ("-q",))],
)
def test_p9_no_control_codes(
    pair_folder: Path, tmp_path: Path, terminal: str, settings: dict[str, str], flags: tuple[str, ...]
) -> None:
    out, shown = run(
        tmp_path, pair_folder, "--max-new-tokens", "4", *flags, terminal=terminal, **settings
    )  # a terminal turns every \n into \r\n
    assert not set(out + shown.replace(b"\r\n", b"\n")) & set(b"\x1b\r")
    assert out.count(b"\n") == LINES
    assert (shown == b"") == bool(flags)


def test_results_on_a_terminal_are_the_progress(pair_folder: Path, tmp_path: Path) -> None:
    """A bar would overwrite them."""
    (tmp_path / "in.txt").write_text("tea\n" * LINES)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "seq2seq_cli", "generate", "-m", str(pair_folder), "-i", "in.txt"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm"}
    child = subprocess.Popen(command, stdout=theirs, stderr=theirs, cwd=tmp_path, env=environment)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 1 << 16):
            shown += chunk
    except OSError:
        pass
    os.close(ours)
    assert child.wait(timeout=60) == 0
    assert b"lines/s" not in shown
    assert shown.count(b"\r\n") == LINES + 1, "the lines, and the warning that the pair was never trained"
