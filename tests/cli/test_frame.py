"""The frame around all commands: help without torch, one line an error, exit codes, streams that break."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer

from seq2seq_cli import __main__, cli, console
from seq2seq_cli.cli.options import new_app, with_generation_options
from seq2seq_cli.errors import CheckpointError, DivergedError, Finding, StoppedError, UsageError

Run = Callable[..., subprocess.CompletedProcess[str]]

_HEAVY = "torch transformers datasets accelerate sacrebleu"
#: Runs s2s in a new interpreter; the last line on stderr then says which heavy modules it imported.
_SPY = f"""
import sys
from seq2seq_cli.__main__ import main
code = main(sys.argv[1:])
print("heavy:", *sorted(set({_HEAVY!r}.split()) & set(sys.modules)), file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture
def s2s(tmp_path: Path) -> Run:
    """Run ``python -m seq2seq_cli`` in an empty folder."""

    def run(*arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-m", "seq2seq_cli", *arguments]
        settings = {"capture_output": True, **settings}
        return subprocess.run(program, cwd=tmp_path, text=True, timeout=60, check=False, **settings)

    return run


@pytest.fixture
def spied(tmp_path: Path) -> Run:
    """Run s2s and add a line on stderr that says which heavy modules were imported."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-c", _SPY, *arguments]
        return subprocess.run(program, cwd=tmp_path, text=True, timeout=60, check=False, capture_output=True)

    return run


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """What main() sets for the whole process is put back after a test that runs it in this one."""
    monkeypatch.setattr(console, "verbosity", 0)
    monkeypatch.setattr(cli, "debug", False)
    monkeypatch.setattr(signal, "signal", lambda *_: None)


def fake_command(monkeypatch: pytest.MonkeyPatch, body: Callable[..., None]) -> None:
    """Let ``s2s env`` run ``body``."""
    app = new_app()
    app.command()(body)
    monkeypatch.setitem(sys.modules, "seq2seq_cli.cli.env", type("module", (), {"app": app}))


# --- help and usage errors --------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_every_command_and_imports_none(spied: Run, flag: str) -> None:
    done = spied(flag)
    assert done.returncode == 0
    assert done.stderr == "heavy:\n"
    for name, line in cli.COMMANDS.items():
        assert f"  {name} " in done.stdout
        assert line in done.stdout


def test_help_imports_no_command_module(tmp_path: Path) -> None:
    code = "import sys; from seq2seq_cli.__main__ import main; main(['--help']);" \
           "print(*[m for m in sys.modules if m.startswith('seq2seq_cli.')], file=sys.stderr)"  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert set(done.stderr.split()) == {
        f"seq2seq_cli.{name}" for name in ("__main__", "cli", "console", "errors")
    }


@pytest.mark.parametrize("name", ["recipes", "env"])
def test_help_of_a_command(spied: Run, name: str) -> None:
    done = spied(name, "-h")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: s2s {name}")
    assert "--debug" in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stderr == "heavy:\n"


def test_no_command_prints_help_on_stderr(s2s: Run) -> None:
    done = s2s()
    assert (done.returncode, done.stdout) == (2, "")
    assert "Commands:" in done.stderr


def test_version(s2s: Run) -> None:
    from seq2seq_cli import __version__

    assert s2s("--version").stdout == f"s2s {__version__}\n"


def test_console_script_is_the_same_program(s2s: Run, tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("s2s")
    if not script.exists():
        pytest.skip("the package is not installed beside this interpreter")
    done = subprocess.run([script, "recipez"], capture_output=True, text=True, cwd=tmp_path, check=False)
    other = s2s("recipez")
    assert (done.returncode, done.stdout, done.stderr) == (other.returncode, other.stdout, other.stderr)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["recipez"], "no such command 'recipez' · s2s · did you mean 'recipes'?"),
        (["recipes", "lss"], "no such command 'lss' · s2s recipes · did you mean 'ls'?"),
        (["recipes"], "missing command · s2s recipes · see `s2s recipes --help`"),
        (["env", "--jsonn"], "no such option --jsonn · s2s env · did you mean '--json'?"),
        (["env", "--xyzzy"], "no such option --xyzzy · s2s env · see `s2s env --help`"),
        (["--versoin"], "no such option --versoin · s2s · did you mean '--version'?"),
        (["recipes", "validate"], "missing argument 'FILE' · s2s recipes validate · see"),
        (["recipes", "validate", "x", "--set"], "option '--set' requires an argument · s2s recipes"),
        (["env", "surplus"], "got unexpected extra argument"),
        (["env", "--json=3"], "option '--json' does not take a value"),
        (["recipes", "show", "a\nb\x1b[31m"], "no recipe named 'a\\nb\\x1b[31m'"),
        (["a\nb\x1b[31m\u2028"], "no such command 'a\\nb\\x1b[31m\\u2028'"),
    ],
)
def test_usage_errors_are_one_line_without_torch(spied: Run, arguments: list[str], line: str) -> None:
    done = spied(*arguments)
    message, heavy = done.stderr.splitlines()
    assert message.startswith(line)
    assert (done.returncode, done.stdout, heavy) == (2, "", "heavy:")


def test_both_spellings_of_option_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def body(max_new_tokens: int = 1, name: str = "") -> None:
        print(max_new_tokens, name)

    fake_command(monkeypatch, body)
    for spelling in ("--max-new-tokens", "--max_new_tokens", "--max_new-tokens"):
        assert __main__.main(["env", spelling, "5", "--name=a_b"]) == 0
        assert capsys.readouterr().out == "5 a_b\n"


@pytest.mark.parametrize(
    ("arguments", "verbosity"),
    [([], 0), (["-q"], -1), (["--verbose"], 1)],
)
@pytest.mark.parametrize("before", [True, False])
def test_common_options_stand_before_or_after_the_command(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], verbosity: int, before: bool
) -> None:
    seen: list[int] = []

    def body() -> None:
        seen.append(console.verbosity)

    fake_command(monkeypatch, body)
    assert __main__.main([*arguments, "env"] if before else ["env", *arguments]) == 0
    assert seen == [verbosity]


# --- what a command raises --------------------------------------------------------------------------------


class PanicException(BaseException):
    pass


class OutOfMemoryError(RuntimeError):  # torch's, by its name
    pass


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UsageError("a", where="b", remedy="c"), 2, "a · b · c"),
        (CheckpointError(findings=[Finding("x"), Finding("y", "f:1:2")]), 4, "x\ny · f:1:2"),
        (DivergedError("nan"), 7, "nan"),
        (StoppedError("stopped", signal_number=15), 143, "stopped"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (SystemExit(143), 143, ""),
        (typer.Exit(3), 3, ""),
        (BrokenPipeError(), 141, ""),
        (MemoryError("too much"), 6, "not enough memory: too much · use smaller batches"),
        (OutOfMemoryError("CUDA out of memory"), 6, "not enough memory: CUDA out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 6, "not enough memory: Default"),
        (OSError(errno.ENOSPC, "No space left on device"), 6, "cannot write: No space left on device"),
        (OSError(errno.EFBIG, "File too large", "out.bin"), 6, "cannot write: File too large · out.bin"),
        (PermissionError(errno.EACCES, "denied", "x/y"), 6, "cannot use the file: denied · x/y"),
        (FileNotFoundError(errno.ENOENT, "No such file", b"x"), 2, "cannot use the file: No such file · x"),
        (ValueError("a\nb"), 1, "bug in s2s: ValueError: a b; rerun with --debug for the traceback"),
        (PanicException("index 3"), 1, "bug in s2s: PanicException: index 3; rerun"),
        (ConnectionError("x"), 1, "bug in s2s: ConnectionError: x; rerun"),
    ],
)  # fmt: skip
def test_errors_end_as_lines_and_exit_codes(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    line: str,
) -> None:
    def body() -> None:
        print("before")
        raise error

    fake_command(monkeypatch, body)
    monkeypatch.setattr(__main__, "_silence", lambda _: None)
    assert __main__.main(["env", "--quiet"]) == code
    out, err = capsys.readouterr()
    assert out == "before\n"
    assert err.startswith(line)
    assert err.count("\n") == (line.count("\n") + 1 if line else 0)
    assert "Traceback" not in err


@pytest.mark.parametrize("arguments", [["--debug", "env"], ["env", "--debug"]])
def test_debug_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    def body() -> None:
        raise ValueError("why")

    fake_command(monkeypatch, body)
    assert __main__.main(arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert 'raise ValueError("why")' in err
    assert err.splitlines()[-1].startswith("bug in s2s: ValueError: why")


# --- streams and signals ----------------------------------------------------------------------------------

# A process of its own whose `s2s env` does what a test needs.
_WITH_BODY = """
import sys, types
from seq2seq_cli.__main__ import main
from seq2seq_cli.cli.options import new_app
app = new_app()
@app.command()
def env() -> None:
    {body}
sys.modules["seq2seq_cli.cli.env"] = types.SimpleNamespace(app=app)
sys.exit(main(["env"]))
"""


def with_body(body: str) -> list[str]:
    return [sys.executable, "-c", _WITH_BODY.format(body=body)]


_LITTLE, _MUCH = "print('x')", "[print('x' * 1000) for _ in range(1000)]"


@pytest.mark.parametrize("body", [_LITTLE, _MUCH, "print('x'); raise SystemExit(0)"])
def test_p2_full_device(body: str) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            with_body(body), stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert done.returncode == 6
    assert done.stderr.startswith("cannot write")
    assert done.stderr.count("\n") == 1


def test_p1_reader_goes_away() -> None:
    process = subprocess.Popen(with_body(_MUCH), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == b"x" * 1000 + b"\n"
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 141
    assert err == b""


def test_p1_reader_that_never_was() -> None:
    """The little that is left in the buffer at the end meets a closed pipe."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(with_body(_LITTLE), stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_closed_stdout_is_no_silent_success() -> None:
    command = ["sh", "-c", 'exec "$@" >&-', "sh", *with_body(_LITTLE)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 6
    assert done.stderr.startswith("cannot write to stdout: Bad file descriptor")


def test_closed_stderr_keeps_the_exit_code() -> None:
    command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *with_body("print('x'); raise ValueError")]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "x\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals(number: signal.Signals, code: int) -> None:
    body = "import time; print('ready', flush=True); time.sleep(60)"
    process = subprocess.Popen(with_body(body), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in err


@pytest.mark.parametrize("settings", [{"TERM": "dumb"}, {"NO_COLOR": "1"}, {"PYTHONIOENCODING": "latin-1"}])
def test_p9_no_control_codes_off_a_terminal(s2s: Run, settings: dict[str, str]) -> None:
    for arguments in (["recipes", "schema"], ["--help"], ["env", "--x"]):
        done = s2s(*arguments, env={**os.environ, **settings}, encoding="utf-8", errors="replace")
        assert not set(done.stdout + done.stderr) & {"\x1b", "\r"}


def test_results_are_utf8_whatever_the_locale() -> None:
    done = subprocess.run(
        with_body("print('\\u4e2d')"),
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "中\n".encode())


# --- the shared decoding options --------------------------------------------------------------------------


@pytest.fixture
def decode(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Run a command with decoding options; gives the exit code and what it got or said."""

    @with_generation_options
    def body(generation: dict[str, Any], texts: Annotated[list[str] | None, typer.Argument()] = None) -> None:
        print(json.dumps([texts or [], generation]))

    fake_command(monkeypatch, body)

    def run(*arguments: str) -> tuple[int, str]:
        code = __main__.main(["env", *arguments])
        out, err = capsys.readouterr()
        return code, out + err

    return run


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], [[], {}]),
        (["--num-beams", "4", "hi"], [["hi"], {"num_beams": 4}]),
        (["--top_p", "0.9", "--preset=beam"], [[], {"preset": "beam", "top_p": 0.9}]),
        (["--do-sample", "--seed", "0"], [[], {"do_sample": True, "seed": 0}]),
        (["--no-do-sample"], [[], {"do_sample": False}]),
        (["--early-stopping", "never"], [[], {"early_stopping": "never"}]),
        (["--early_stopping=false"], [[], {"early_stopping": False}]),
        (["--early-stopping", "true", "hi"], [["hi"], {"early_stopping": True}]),
        (["hi", "--early-stopping"], [["hi"], {"early_stopping": True}]),
        (["--early-stopping", "--num-beams", "2"], [[], {"early_stopping": True, "num_beams": 2}]),
        (["--", "--early-stopping"], [["--early-stopping"], {}]),
    ],
)
def test_decoding_options_that_were_given(
    decode: Callable[..., tuple[int, str]], arguments: list[str], expected: list[Any]
) -> None:
    code, said = decode(*arguments)
    assert (code, json.loads(said)) == (0, expected)


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (["--num-beams", "0"], ["num_beams must be at least 1, not 0 · --num-beams · change it"]),
        (["--top-p", "2"], ["top_p must be at most 1, not 2.0 · --top-p"]),
        (["--top-p", "nan"], ["top_p must be a finite number, not nan · --top-p"]),
        (["--early-stopping=maybe"], ["early_stopping must be true, false or never, not 'maybe'"]),
        (["--early-stopping", "maybe", "x"], ["early_stopping must be true, false or never, not 'maybe'"]),
        (["--num-beams", "0", "--temperature=-1"], ["num_beams must", "temperature must be above 0"]),
        (["--num-beams", "many"], ["--num-beams must be a whole number, not 'many' · s2s env · see"]),
        (["--num_beams=1.5"], ["--num-beams must be a whole number, not '1.5'"]),
        (["--top-p", "x"], ["--top-p must be a number, not 'x'"]),
        (["--until", "x"], ["no such option --until · s2s env · see `s2s env --help`"]),
        (["--quantize", "int8"], ["no such option --quantize · s2s env · see `s2s env --help`"]),
        (["--beams", "3"], ["no such option --beams · s2s env · did you mean '--num-beams'?"]),
        (["--num-beam", "3"], ["no such option --num-beam · s2s env · did you mean '--num-beams'?"]),
    ],
)  # fmt: skip
def test_c2_wrong_decoding_options(
    decode: Callable[..., tuple[int, str]], arguments: list[str], lines: list[str]
) -> None:
    code, said = decode(*arguments)
    assert code == 2
    found = said.splitlines()
    assert len(found) == len(lines)
    assert all(line.startswith(start) for line, start in zip(found, lines, strict=True)), found
