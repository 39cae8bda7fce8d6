"""Rows from files and the hub; case names (D1, D2, ...) are those of the list of faults."""

from __future__ import annotations

import gzip
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2seq_cli.data import files, sources
from seq2seq_cli.data.rows import Row
from seq2seq_cli.data.sources import check_paths, read_rows
from seq2seq_cli.errors import DataError, HubError, UsageError

PAIRS = [("How many?", 'SELECT COUNT(*) FROM "t"'), ("Größe, 你好 😀", "x, 'y' -- z"), ("a\u2028b", " lead")]


def write(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def jsonl(*rows: object) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def good(count: int) -> list[dict[str, str]]:
    return [{"source": f"s{i}", "target": f"t{i}"} for i in range(count)]


def pairs(rows: list[Row]) -> list[tuple[str, str]]:
    return [(row.source, row.target) for row in rows]


def findings(error: pytest.ExceptionInfo[DataError]) -> list[str]:
    assert error.value.exit_code == 3
    return [str(finding) for finding in error.value.findings]


# -- what can be read -------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".parquet"])
def test_every_format_gives_the_same_rows(suffix: str, packed: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows{suffix}{packed}"
    if suffix == ".jsonl":
        write(path, jsonl(*({"source": s, "target": t} for s, t in PAIRS)))
    elif suffix == ".csv":
        lines = ['"{}","{}"'.format(*(text.replace('"', '""') for text in pair)) for pair in PAIRS]
        write(path, "source,target\r\n" + "\r\n".join(lines))
    elif suffix == ".tsv":
        write(path, "".join(f"{s}\t{t}\n" for s, t in PAIRS))
    else:
        import pyarrow
        import pyarrow.parquet

        plain = tmp_path / "plain.parquet"
        table = pyarrow.table({"source": [s for s, _ in PAIRS], "target": [t for _, t in PAIRS]})
        pyarrow.parquet.write_table(table, plain)
        write(path, plain.read_bytes())
    rows = read_rows(path)
    assert pairs(rows) == PAIRS
    assert [row.references for row in rows] == [(t,) for _, t in PAIRS]
    first = 2 if suffix == ".csv" else 1
    assert [row.where for row in rows] == [f"{path}:{first + i}" for i in range(3)]


@pytest.mark.parametrize("packed", ["", ".gz"])
def test_parallel_files(packed: str, tmp_path: Path) -> None:
    spec = {
        "source": write(tmp_path / f"in.en{packed}", "".join(s + "\n" for s, _ in PAIRS)),
        "target": write(tmp_path / f"in.sql{packed}", "\n".join(t for _, t in PAIRS)),
    }
    rows = read_rows(spec)
    assert pairs(rows) == PAIRS
    assert rows[1].where == f"{spec['source']}:2"


def test_plain_text_is_for_language_modelling(tmp_path: Path) -> None:
    path = write(tmp_path / "corpus.txt", "one\n\nthree")
    assert pairs(read_rows(path, source=None)) == [("", "one"), ("", ""), ("", "three")]
    with pytest.raises(DataError, match="no source with it"):
        read_rows(path)
    assert pairs(read_rows(write(tmp_path / "code.sql", "SELECT 1\n"), source=None)) == [("", "SELECT 1")]


def test_a_list_of_files_and_names_of_fields(tmp_path: Path) -> None:
    one = write(tmp_path / "one.jsonl", jsonl({"q": "a", "sql": "b", "id": 7}))
    two = write(tmp_path / "two.csv", "id,sql,q\n8,d,c\n")
    rows = read_rows([str(one), two], source="q", target="sql")
    assert pairs(rows) == [("a", "b"), ("c", "d")]


def test_references(tmp_path: Path) -> None:
    row = {"source": "s", "target": "t", "references": ["t", "u"], "all": ["v"]}
    path = write(
        tmp_path / "r.jsonl", jsonl(row, {"source": "s", "target": "t", "all": "w", "references": [3]})
    )
    assert [r.references for r in read_rows(path)] == [("t", "u"), ("t",)]
    assert [r.references for r in read_rows(path, references="all")] == [("v",), ("w",)]
    with pytest.raises(DataError, match="field 'references' is a list, not a list of texts"):
        read_rows(path, references="references")
    tsv = write(tmp_path / "g2p.tsv", "record\tR EH1 | R IH0\n")
    rows = read_rows(tsv, reference_separator=" | ")
    assert rows[0].target == "R EH1"
    assert rows[0].references == ("R EH1", "R IH0")


# -- TSV and CSV ------------------------------------------------------------------------------------


def test_d3_tsv_has_no_quoting(tmp_path: Path) -> None:
    path = write(tmp_path / "q.tsv", '"lone\ta"b"c\n5" pipe\tx\n"a\tb"\n')
    assert pairs(read_rows(path)) == [('"lone', 'a"b"c'), ('5" pipe', "x"), ('"a', 'b"')]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.text(st.characters(exclude_characters="\t\n\r\ufeff", exclude_categories=["Cs"]))] * 2)
    )
)
def test_d3_rows_are_lines(tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str]]) -> None:
    path = tmp_path_factory.mktemp("tsv") / "x.tsv"
    texts = [("first", "row"), *texts]
    write(path, "".join(f"{s}\t{t}\n" for s, t in texts))
    assert pairs(read_rows(path)) == texts


def test_tsv_headers_and_numbers(tmp_path: Path) -> None:
    named = write(tmp_path / "named.tsv", "\ufeffid\ttarget\tsource\r\n1\tt\ts\r\n")
    assert pairs(read_rows(named)) == [("s", "t")]
    plain = write(tmp_path / "plain.tsv", "x\ty\tz\n")
    assert pairs(read_rows(plain, source="3", target="1")) == [("z", "x")]
    assert pairs(read_rows(plain, source=None)) == [("", "y")]
    assert pairs(read_rows(write(tmp_path / "one.tsv", "alone\n"), source=None)) == [("", "alone")]
    with pytest.raises(DataError, match=r"no column 'question' in the first line \(x, y, z\)"):
        read_rows(plain, source="question")
    with pytest.raises(DataError, match=r"2 column\(s\), column 3 is missing .*short\.tsv:2"):
        read_rows(write(tmp_path / "short.tsv", "a\tb\tc\na\tb\n"), source="1", target="3")
    with pytest.raises(DataError, match="'source' appears twice"):
        read_rows(write(tmp_path / "twice.tsv", "source\tsource\ttarget\n"))


def test_csv_quotes_newlines_and_bad_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'source,target\n"two\nlines","a ""b"""\n\nx,y\n')
    rows = read_rows(path)
    assert pairs(rows) == [("two\nlines", 'a "b"'), ("x", "y")]
    assert [row.where for row in rows] == [f"{path}:2", f"{path}:5"]
    with pytest.raises(DataError) as error:
        read_rows(write(tmp_path / "b.csv", 'source,target\na,b,c\na\n"q"x,y\n"open,\n'))
    assert [text.split(" · ")[0] for text in findings(error)][:3] == [
        "3 values under 2 names",
        "1 values under 2 names",
        "broken CSV: ',' expected after '\"'",
    ]
    with pytest.raises(DataError, match=r"no column 'target' · .*c\.csv:1 · did you mean 'targets'"):
        read_rows(write(tmp_path / "c.csv", "source,targets\na,b\n"))
    with pytest.raises(DataError, match=r"invalid UTF-8: byte 0xff .* d\.csv:2:2|d\.csv:2:2"):
        read_rows(write(tmp_path / "d.csv", b"source,target\na\xff,b\n"))


# -- D1: bad rows -----------------------------------------------------------------------------------

BAD = [
    ('{"source": "s", "target": ', "broken JSON", ":27"),
    ('["s", "t"]', "not an object", ""),
    ('"text"', "not an object", ""),
    ('{"source": "s"}', "field 'target' is missing", ""),
    ('{"source": "s", "target": 3}', "field 'target' is a number (3), not a text", ""),
    ('{"source": null, "target": "t"}', "field 'source' is null", ""),
    ('{"source": ["s"], "target": "t"}', "field 'source' is a list", ""),
    ('{"source": {}, "target": "t"}', "field 'source' is an object", ""),
    ('{"source": true, "target": "t"}', "field 'source' is true or false", ""),
    ("[" * 100_000, "nested too deeply", ""),
    ('{"source": ' + "[" * 100_000, "nested too deeply", ""),
    ('{"source": "s", "target": "t", "source": "u"}', "field 'source' appears twice", ""),
    ('{"source": "\\ud83d", "target": "t"}', "field 'source' has half of a surrogate pair", ""),
    ('{"source": "s", "target": "t", "other": [{"a": "\\uDFFF"}]}', "field 'other' has half", ""),
    ('{"source": "s", "target": "t", "n": ' + "9" * 5000 + "}", "broken JSON", ""),
]


@pytest.mark.parametrize(("line", "message", "column"), BAD, ids=range(len(BAD)))
def test_d1_each_bad_row_is_named(line: str, message: str, column: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", jsonl(*good(2)) + line + "\n" + jsonl(*good(1)))
    with pytest.raises(DataError) as error:
        read_rows(path)
    (found,) = error.value.findings
    assert message in found.what
    assert found.where.startswith(f"{path}:3{column}")


def test_d1_emoji_escapes_are_no_surrogates(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", '{"source": "\\ud83d\\ude00", "target": "\\\\ud800"}\n')
    assert pairs(read_rows(path)) == [("😀", "\\ud800")]


def test_d1_invalid_utf8_names_the_byte(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", jsonl(*good(1)).encode() + b'{"source": "\xff"}\n\xc3\n')
    with pytest.raises(DataError) as error:
        read_rows(path)
    assert [finding.where for finding in error.value.findings] == [f"{path}:2:13", f"{path}:3:1"]


def test_d1_up_to_twenty_findings_at_once(tmp_path: Path) -> None:
    wrong = [f'{{"source": "a", "target": {number}}}\n' for number in range(50)]
    path = write(tmp_path / "x.jsonl", "".join(wrong))
    with pytest.raises(DataError) as error:
        read_rows(path)
    assert len(error.value.findings) == 21
    assert "reading stopped" in findings(error)[-1]
    assert error.value.findings[19].where == f"{path}:20"


@pytest.mark.parametrize(("rows", "number"), [(50, "20 or more"), (8, "8")])
def test_d1_the_same_fault_in_many_rows_is_one_finding(tmp_path: Path, rows: int, number: str) -> None:
    path = write(tmp_path / "x.jsonl", jsonl(*good(rows)))
    with pytest.raises(DataError) as error:
        read_rows(path, target="targt")
    (found,) = error.value.findings
    assert found.what == f"field 'targt' is missing ({number} times; here the first)"
    assert found.where == f"{path}:1"
    assert found.remedy == "did you mean 'target'?"


def test_d1_a_few_rows_with_the_same_fault_are_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", jsonl(*good(2)) + "{}\n" * 3 + "[]\n")
    with pytest.raises(DataError) as error:
        read_rows(path)
    assert [finding.where for finding in error.value.findings] == [f"{path}:{n}" for n in (3, 4, 5, 6)]


def test_d1_skip_counts_up_to_one_percent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "x.jsonl", jsonl(*good(198)) + "{}\n" + "[]\n")
    assert len(read_rows(path, on_bad_row="skip")) == 198
    captured = capsys.readouterr()
    assert "warning: 2 of 200 rows skipped, the first: field 'source' is missing" in captured.err
    assert captured.out == ""
    write(path, jsonl(*good(197)) + "{}\n" * 3)
    with pytest.raises(DataError, match="3 of 200 rows are bad, and at most 1% may be skipped"):
        read_rows(path, on_bad_row="skip")
    with pytest.raises(UsageError):
        read_rows(path, on_bad_row="ignore")


def test_skip_keeps_parallel_files_aligned(tmp_path: Path) -> None:
    lines = [f"s{i}".encode() for i in range(200)]
    lines[7] = b"\xff"
    source = write(tmp_path / "s.txt", b"\n".join(lines))
    target = write(tmp_path / "t.txt", "\n".join(f"t{i}" for i in range(200)))
    rows = read_rows({"source": source, "target": target}, on_bad_row="skip")
    assert len(rows) == 199
    assert all(row.source[1:] == row.target[1:] for row in rows)


# -- D2, D4: bad files ------------------------------------------------------------------------------


def test_d2_parallel_files_of_different_length(tmp_path: Path) -> None:
    spec = {"source": write(tmp_path / "s", "1\n2\n3\n4"), "target": write(tmp_path / "t", "1\n2\n")}
    with pytest.raises(DataError, match=r"s has 4 lines and .*t has 2 · line 3"):
        read_rows(spec)
    with pytest.raises(DataError, match=r"has 2 lines and .* has 4"):
        read_rows({"source": spec["target"], "target": spec["source"]})


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".jsonl.gz"])
def test_d2_empty_file(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"x{suffix}", "")
    with pytest.raises(DataError, match="no rows") as error:
        read_rows(path)
    assert str(path) in findings(error)[0]


def test_d2_folder_missing_file_and_unknown_kind(tmp_path: Path) -> None:
    folder, missing = tmp_path / "dir.jsonl", tmp_path / "missing.jsonl"
    folder.mkdir()
    with pytest.raises(DataError, match="this is a folder"):
        read_rows(folder)
    with pytest.raises(DataError, match="no such file"):
        read_rows(missing)
    with pytest.raises(DataError, match=r"unknown kind of data file '\.doc'"):
        read_rows(write(tmp_path / "a.doc", "x"))
    with pytest.raises(DataError) as error:
        check_paths([str(folder), str(missing)])
    assert len(error.value.findings) == 2
    check_paths(write(tmp_path / "fine.jsonl", ""))
    with pytest.raises(UsageError, match="list of data files is empty"):
        read_rows([])
    with pytest.raises(UsageError, match="source: FILE"):
        read_rows({"source": "a"})


def test_d4_truncated_and_damaged_gzip(tmp_path: Path) -> None:
    whole = gzip.compress(jsonl(*good(500)).encode())
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"ends too early · .*x\.jsonl\.gz"):
        read_rows(path)
    path.write_bytes(whole[:-8] + bytes(4) + whole[-4:])
    with pytest.raises(DataError, match=r"damaged gzip: CRC.*x\.jsonl\.gz"):
        read_rows(path)
    path.write_bytes(b"plain text")
    with pytest.raises(DataError, match=r"is no gzip · .*x\.jsonl\.gz · name it without \.gz"):
        read_rows(path)


def test_d4_gzip_bombs_stop_at_the_cap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_UNPACK_FLOOR", 10_000)
    monkeypatch.setattr(files, "MAX_UNPACK_FACTOR", 2)
    path = write(tmp_path / "bomb.jsonl.gz", "\n" * 1_000_000)
    with pytest.raises(DataError, match=r"unpacks to more than 10000 bytes · .*bomb"):
        read_rows(path)
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 1000)
    with pytest.raises(DataError, match=r"a line is longer than 1000 bytes · .*bomb\.jsonl\.gz:1"):
        read_rows(write(path, "\0" * 1_000_000))


def test_d4_truncated_parquet(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"source": ["a"] * 1000, "target": ["b"] * 1000}), path)
    with pytest.raises(DataError, match="no column 'targets'"):
        read_rows(path, target="targets")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"broken Parquet: .*x\.parquet"):
        read_rows(path)


def test_a_megabyte_in_one_row(tmp_path: Path) -> None:
    text = "x" * 2**20
    assert read_rows(write(tmp_path / "x.csv", f"source,target\n{text},y\n"))[0].source == text


def test_a_pipe_is_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "fifo.jsonl"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=(jsonl(*good(3)),))
    writer.start()
    assert len(read_rows(path)) == 3
    writer.join()


# -- the hub ----------------------------------------------------------------------------------------


def test_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[Any] = []

    def load(name: str, config: str | None, *, split: str, revision: str | None) -> datasets.Dataset:
        asked.append((name, config, split, revision))
        if split == "nope":
            raise ValueError('Unknown split "nope". Should be one of ["train"].')
        if name == "no/connection":
            raise ConnectionError("Couldn't reach the Hub")
        return datasets.Dataset.from_list([{"q": "a", "a": "b"}, {"q": "c", "a": "d"}])

    monkeypatch.setattr(datasets, "load_dataset", load)
    rows = read_rows("owner/set@v1:small", source="q", target="a", split="validation")
    assert pairs(rows) == [("a", "b"), ("c", "d")]
    assert rows[1].where == "owner/set[validation]:2"
    read_rows("owner/set#test", source="q", target="a")
    assert asked == [("owner/set", "small", "validation", "v1"), ("owner/set", None, "test", None)]
    with pytest.raises(DataError, match="Unknown split"):
        read_rows("owner/set#nope", source="q", target="a")
    with pytest.raises(DataError, match="no column 'source'"):
        read_rows("owner/set")
    with pytest.raises(HubError, match=r"Couldn't reach the Hub · no/connection") as error:
        read_rows("no/connection")
    assert error.value.exit_code == 5
    assert sources.check_paths("owner/set") is None  # type: ignore[func-returns-value]
