"""Where results go. Pipes and links stand in for devices, which no test touches."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from seq2seq_cli.errors import ResourceError, UsageError
from seq2seq_cli.text.destination import Destination


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def pipe() -> Iterator[int]:
    """A named pipe ``pipe``, held open for reading."""
    os.mkfifo("pipe")
    reading = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    yield reading
    os.close(reading)


def names() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


def put(path: str | None, text: str, **options: bool) -> None:
    with Destination(None if path is None else Path(path), **options) as destination:
        destination.write(text)


def test_a_file_gets_its_name_when_it_is_whole() -> None:
    with Destination(Path("x")) as destination:
        destination.write("é\n")
        assert names() == ["x.part"]
        assert Path("x.part").read_bytes() == "é\n".encode(), "written at once"
    assert names() == ["x"]


@pytest.mark.parametrize("path", [None, "-"])
def test_stdout(path: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    print("before")
    put(path, "a\u2028b\n")
    assert capsys.readouterr().out == "before\na\u2028b\n"
    assert names() == []
    with pytest.raises(UsageError, match="stdout cannot be resumed"):
        put(path, "", resume=True)


def test_the_file_that_stdout_is_sent_to_is_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("out").write_text("")
    real = os.fstat
    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", lambda number: Path("out").stat() if number == 1 else real(number))
        put("out", "x\n")
    assert capsys.readouterr().out == "x\n"
    assert names() == ["out"]


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_pipe_is_written_straight(pipe: int, overwrite: bool) -> None:
    put("pipe", "x\n", overwrite=overwrite)
    assert os.read(pipe, 10) == b"x\n"
    assert Path("pipe").is_fifo()
    assert names() == ["pipe"]
    with pytest.raises(UsageError, match="pipe cannot be resumed"):
        put("pipe", "x\n", resume=True)


def test_a_link_to_a_pipe_is_written_straight(pipe: int) -> None:
    Path("link").symlink_to("pipe")
    put("link", "x\n", overwrite=True)
    assert os.read(pipe, 10) == b"x\n"
    assert Path("link").is_symlink()


def test_a_reader_that_leaves_is_no_full_disk(pipe: int) -> None:
    def leave_and_write() -> None:
        with Destination(Path("pipe")) as destination:
            nothing = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nothing, pipe)
            os.close(nothing)
            destination.write("x\n")

    with pytest.raises(BrokenPipeError):
        leave_and_write()


def test_a_full_disk_leaves_nothing() -> None:
    """The bytes that could not be written fail once more when the file is closed."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
        with pytest.raises(ResourceError, match="cannot write: File too large · x"):
            put("x", "y" * 200)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    assert names() == []


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_its_file_is_written(there: bool) -> None:
    Path("folder").mkdir()
    Path("link").symlink_to("folder/file")
    if there:
        Path("folder/file").write_text("old")
        with pytest.raises(UsageError, match="the file exists · link · add --overwrite"):
            put("link", "new")
        assert Path("folder/file").read_text() == "old"
    put("link", "new", overwrite=there)
    assert Path("link").is_symlink()
    assert Path("folder/file").read_text() == "new"
    assert [path.name for path in Path("folder").iterdir()] == ["file"]


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("overwrite", [True, False])
def test_a_folder_is_refused_before_anything_is_written(overwrite: bool, resume: bool) -> None:
    Path("full").mkdir()
    with pytest.raises(UsageError, match="this is a folder · full · name a file"):
        put("full", "x", overwrite=overwrite, resume=resume)
    assert names() == ["full"]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("gone/x", "the folder gone does not exist · gone/x · make it first"),
        ("file/x", "Not a directory · file/x"),
        ("loop", "Too many levels of symbolic links · loop"),
        ("x" * 300, "File name too long · xxx"),
    ],
)
def test_what_cannot_be_written_is_named_as_it_was_given(path: str, says: str) -> None:
    Path("file").write_text("")
    Path("loop").symlink_to("loop")
    with pytest.raises(ResourceError, match=f"^cannot write: {says}") as caught:
        put(path, "x", overwrite=True)
    assert ".part" not in str(caught.value)
    assert names() == ["file", "loop"]
    assert Path("loop").is_symlink()


def test_after_an_error_only_a_resumable_part_with_lines_stays() -> None:
    for options, written, left in (
        ({}, "x\n", []),
        ({"resumable": True}, "", []),
        ({"resumable": True}, "x\n", ["x.part"]),
    ):
        with suppress(KeyError), Destination(Path("x"), **options) as destination:
            destination.write(written)
            raise KeyError
        assert names() == left


def test_resuming_keeps_whole_lines() -> None:
    Path("x.part").write_bytes(b"one\n\ntwo\nhal")
    with Destination(Path("x"), resumable=True, resume=True) as destination:
        assert (destination.done, destination.is_complete) == (3, False)
        destination.write("three\n")
    assert Path("x").read_bytes() == b"one\n\ntwo\nthree\n"
    with Destination(Path("x"), resumable=True, resume=True) as destination:
        assert destination.is_complete
    assert Path("x").read_bytes() == b"one\n\ntwo\nthree\n"
    Path("y.part").write_bytes(b"one\n")
    put("y", "new\n", resumable=True)
    assert Path("y").read_bytes() == b"new\n"
