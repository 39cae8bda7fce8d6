"""Many rows: mapped from a file without a name, and in no way different from few."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from seq2seq_cli.data import mapped
from seq2seq_cli.data.mapped import MappedRows, kept
from seq2seq_cli.data.rows import Row
from seq2seq_cli.data.sources import read_rows


def some_rows(count: int) -> list[Row]:
    """Rows with whatever a cell can hold: nothing, other scripts, half a surrogate pair, references."""
    texts = ("", "plain", "日本語 и ещё", "half \ud83d", "two\nlines\x00")
    return [
        Row(
            source=texts[n % 5],
            target=f"{n} {texts[(n + 1) % 5]}",
            references=(f"{n} {texts[(n + 1) % 5]}",) if n % 3 else (f"a {n}", "b \udc00"),
            where=f"file.jsonl:{n + 1}",
        )
        for n in range(count)
    ]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "FEW", 100)
    monkeypatch.setattr(mapped, "_ROWS_AT_ONCE", 7)


def test_few_rows_stay_in_memory(tmp_path: Path) -> None:
    rows = some_rows(50)
    assert kept(rows, tmp_path) == rows
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("few")
def test_many_rows_are_the_same_from_the_file(tmp_path: Path) -> None:
    rows = some_rows(100)
    found = kept(iter(rows), tmp_path)
    assert isinstance(found, MappedRows)
    assert len(found) == 100
    assert list(found) == rows
    assert [found[n] for n in (0, 7, 50, -1)] == [rows[n] for n in (0, 7, 50, -1)]
    with pytest.raises(IndexError):
        found[100]


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    "part", [slice(3, 20), slice(None, 5), slice(90, None), slice(5, 5), slice(None, None, 9)]
)
def test_a_part_of_many_rows(part: slice, tmp_path: Path) -> None:
    rows = some_rows(100)
    found: Sequence[Row] = kept(rows, tmp_path)[part]
    assert list(found) == rows[part]
    assert len(found) == len(rows[part])


@pytest.mark.usefixtures("few")
def test_the_file_has_no_name(tmp_path: Path) -> None:
    found = kept(some_rows(100), tmp_path / "made")
    assert isinstance(found, MappedRows)
    assert list((tmp_path / "made").iterdir()) == []


@pytest.mark.usefixtures("few")
def test_without_a_folder_many_rows_stay_in_memory() -> None:
    assert kept(some_rows(100), None) == some_rows(100)


@pytest.mark.usefixtures("few")
def test_rows_are_read_into_memory_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "cache"
    blocked.write_text("a file where the folder would be")
    monkeypatch.setenv("S2S_CACHE", str(blocked))
    path = tmp_path / "train.jsonl"
    lines = [json.dumps({"source": f"s {n}", "target": f"t {n}"}) for n in range(60)]
    path.write_text("\n".join(lines) + "\n")
    rows = read_rows(path)
    assert [row.target for row in rows] == [f"t {n}" for n in range(60)]
    assert "rows are kept in memory" in capsys.readouterr().err


@pytest.mark.usefixtures("few")
def test_what_is_wrong_with_the_data_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    def rows() -> object:
        yield from some_rows(50)
        raise PermissionError("the data file went away")

    with pytest.raises(PermissionError, match="went away"):
        kept(rows(), tmp_path)  # type: ignore[arg-type]


_CHILD = """
import sys
from pathlib import Path
from seq2seq_cli.data.mapped import kept
from seq2seq_cli.data.rows import Row

def own():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

def rows(count):
    for n in range(count):
        text = f"{n} " * 90
        yield Row(source=text, target=text, references=(text,), where=f"x:{n}")

folder = Path(sys.argv[1])
kept(rows(40_000), folder)  # libraries warm up
before = own()
found = kept(rows(120_000), folder if sys.argv[2] == "mapped" else None)
assert sum(len(row.target) for row in found) > 0
print(own() - before)
"""


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="nothing says what is a process's own memory"
)
def test_many_rows_take_little_memory_of_their_own(tmp_path: Path) -> None:
    """Memory that nothing but the process can hold: that of the mapped file can be dropped at any time."""

    def grown(how: str) -> int:
        command = [sys.executable, "-c", _CHILD, str(tmp_path), how]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert grown("mapped") < 0.2 * grown("list")


@pytest.mark.parametrize("size", [0, 5_000])
def test_a_disk_that_is_full_is_said_and_rows_stay_in_memory(tmp_path: Path, size: int) -> None:
    lines = [json.dumps({"source": f"s {n}" * 9, "target": f"t {n}"}) for n in range(900)]
    (tmp_path / "train.jsonl").write_text("\n".join(lines) + "\n")
    child = f"""
import resource
from seq2seq_cli.data import mapped
from seq2seq_cli.data.sources import read_rows
mapped.FEW, mapped._ROWS_AT_ONCE = 100, 50
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
print(len(read_rows("train.jsonl")))
"""
    environment = {**os.environ, "S2S_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", child],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "900\n"
    assert "rows are kept in memory" in done.stderr


@pytest.mark.usefixtures("few")
def test_files_have_names_of_any_bytes(tmp_path: Path) -> None:
    rows = [
        Row(source="s", target="t" * 9, references=("t",), where=f"caf\udce9.jsonl:{n}") for n in range(30)
    ]
    assert list(kept(rows, tmp_path)) == rows
