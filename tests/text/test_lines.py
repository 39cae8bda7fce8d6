"""The line contract: only \\n ends a line, and generated text becomes one line."""

from __future__ import annotations

import io
import os
import threading
from typing import BinaryIO, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seq2seq_cli.errors import DataError
from seq2seq_cli.text.lines import one_line, read_lines, settled


def lines(data: bytes, errors: str = "strict") -> list[str]:
    return list(read_lines(io.BytesIO(data), name="in.txt", errors=errors))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a", ["a"]),
        (b"a\n", ["a"]),
        (b"a\n\n \nb", ["a", "", " ", "b"]),
        (b"a\r\nb\rc\n", ["a\r", "b\rc"]),
        ("\ufeffa\u2028b\u0085c\vd\fe\0f\n".encode(), ["\ufeffa\u2028b\u0085c\vd\fe\0f"]),
        (b"\x1c\x1d\x1e\n", ["\x1c\x1d\x1e"]),
    ],
)
def test_p3_only_newline_ends_a_line(data: bytes, expected: list[str]) -> None:
    assert lines(data) == expected


@given(
    st.lists(
        st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=8), max_size=8
    )
)
def test_any_lines_come_back(texts: list[str]) -> None:
    assert lines("".join(text + "\n" for text in texts).encode()) == texts


def test_p4_invalid_utf8_names_line_and_byte() -> None:
    with pytest.raises(DataError, match=r"0xff.*in\.txt:2:4") as caught:
        lines(b"fine\nabc\xffd\n")
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("bad", [b"\xed\xa0\x80", b"\xc3", b"\xc0\x80"])
def test_p4_surrogates_cut_and_overlong_sequences_are_invalid(bad: bytes) -> None:
    with pytest.raises(DataError, match="invalid UTF-8"):
        lines(b"a" + bad + b"\n")


def test_p4_replace_counts_once_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert lines(b"a\xff\nb\n\xc3\n", "replace") == ["a\ufffd", "b", "\ufffd"]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "warning: 2 line(s) with invalid UTF-8, read with U+FFFD in place · in.txt\n"


def test_p5_a_megabyte_on_one_line() -> None:
    assert lines(b"x" * 2**20 + b"\ny") == ["x" * 2**20, "y"]


def test_p5_a_line_without_end_is_refused() -> None:
    with pytest.raises(DataError, match=r"longer than 8 bytes · zero:2"):
        list(read_lines(io.BytesIO(b"12345678\n123456789"), name="zero", max_bytes=8))


def test_p6_a_line_is_there_before_the_next_is_written() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as stream, os.fdopen(writer, "wb", buffering=0) as sink:
        iterator = read_lines(stream, name="pipe")
        got: list[str] = []
        sink.write(b"first\nsec")
        thread = threading.Thread(target=lambda: got.append(next(iterator)), daemon=True)
        thread.start()
        thread.join(timeout=10)  # a reader that waits for a full block would still be alive
        assert got == ["first"]
        sink.write(b"ond\n")
        sink.write(b"third")
        sink.close()
        assert list(iterator) == ["second", "third"]


def test_a_stream_that_cannot_be_read() -> None:
    class Broken(io.RawIOBase):
        def readline(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(DataError, match=r"cannot read: Input/output error · disk"):
        list(read_lines(cast(BinaryIO, Broken()), name="disk"))


def test_an_unknown_way_with_errors() -> None:
    with pytest.raises(ValueError, match="strict"):
        lines(b"", "ignore")


def test_one_line() -> None:
    assert one_line("a\nb\rc\vd\fe\x1cf\x1dg\x1eh\x85i\u2028j\u2029k\0l") == "a b c d e f g h i j k l"
    assert one_line("tab\tand\u00a0space stay") == "tab\tand\u00a0space stay"


@given(st.text())
def test_one_line_is_one_line_for_every_reader(text: str) -> None:
    assert len((one_line(text) + "x").splitlines()) == 1
    assert len(one_line(text)) == len(text)


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("", ""),
        ("tea", ""),
        ("tea an", "tea"),
        ("tea and ", "tea and"),
        ("tea and \ufffd", "tea and"),
        ("お茶", "お茶"),
        ("お茶\ufffd", "お茶"),
        ("tea お茶abc", "tea お茶"),
        ("お茶 te", "お茶"),
    ],
)
def test_what_is_settled_of_a_text_in_the_making(text: str, whole: str) -> None:
    assert settled(text) == whole
