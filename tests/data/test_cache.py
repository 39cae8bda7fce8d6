"""Token ids on disk: never made twice, never trusted when damaged, never a reason to stop."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from seq2seq_cli.data import cache
from seq2seq_cli.data.cache import cache_folder, tokenized
from seq2seq_cli.data.dataset import PairDataset
from seq2seq_cli.data.rows import Row
from seq2seq_cli.data.sequences import Cut, Sequences
from seq2seq_cli.text.tokenizer import Tokenizer
from seq2seq_cli.text.training import train_tokenizer

WORDS = ["who", "sells", "the", "most", "cars", "in", "north", "south", "and", "when", "did", "it", "end"]
TEXTS = [" ".join((WORDS[i % 13 :] + WORDS[: i % 13])[: 1 + i % 7]) for i in range(50)] + [""]
BERT = train_tokenizer("wordpiece", 200, TEXTS)
PLAIN = Sequences.of(Cut(BERT, 5, special=True)(TEXTS))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for texts of any size."""
    monkeypatch.setenv("S2S_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "_SMALL", 1)
    return tmp_path / "cache"


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts were tokenized in each call."""
    calls: list[int] = []
    encode = Tokenizer.encode

    def counting(self: Tokenizer, texts: list[str], *, special: bool = True) -> list[list[int]]:
        calls.append(len(texts))
        return encode(self, texts, special=special)

    monkeypatch.setattr(Tokenizer, "encode", counting)
    return calls


def get(limit: int = 5, texts: list[str] = TEXTS) -> tuple[Sequences, int]:
    cut = Cut(BERT, limit, special=True)
    return tokenized(lambda: texts, cut), cut.count


def same(one: Sequences, two: Sequences) -> bool:
    return np.array_equal(one.flat, two.flat) and np.array_equal(one.lengths, two.lengths)


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_texts_are_tokenized_once(folder: Path, encoded: list[int]) -> None:
    first, cut = get()
    assert same(first, PLAIN)
    assert sum(encoded) == len(TEXTS)
    again, cut_again = get()
    assert same(again, PLAIN)
    assert [again[i].tolist() for i in range(len(TEXTS))] == [PLAIN[i].tolist() for i in range(len(TEXTS))]
    assert sum(encoded) == len(TEXTS), "the second time nothing was tokenized"
    assert cut == cut_again > 0
    assert not again.flat.flags.owndata, "it is the file"
    (path,) = files(folder)
    assert set(load_file(path)) == {"flat", "lengths"}, "safetensors reads it"
    assert np.array_equal(load_file(path)["flat"], PLAIN.flat)


def test_chunks_do_not_matter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_WRITE_AT_ONCE", 7)
    assert same(get()[0], PLAIN)


def test_whatever_decides_the_ids_is_part_of_the_key(folder: Path) -> None:
    get()
    get(limit=6)
    get(texts=TEXTS[::-1])
    get(texts=[*TEXTS[:-2], TEXTS[-2] + TEXTS[-1]])
    other = BERT.extended({"more_token": "<more>"})
    for cut in (
        *(Cut(BERT, 5, special=False), Cut(BERT, 5, special=True, before=[3]), Cut(other, 5, special=True)),
        Cut(BERT, 5, special=True, whole_words=True),
    ):
        tokenized(lambda: TEXTS, cut)
    assert len(files(folder)) == 8
    one, two = (tokenized(lambda t=t: t, Cut(BERT, 5, special=True)) for t in (["a b", "c"], ["a", "b c"]))
    assert not same(one, two)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def flip_data(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[1200] ^= 1
    path.write_bytes(bytes(data))


def flip_header(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(bytes(data))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def another_count(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"cut": "', b'"cut":"9'))


def nested(path: Path) -> None:
    path.write_bytes((b"\0" * 8 + b"[" * 100_000)[:1024] + b"[" * 4096)


@pytest.mark.parametrize("damage", [cut_short, flip_data, flip_header, empty, another_count, nested])
def test_a_damaged_file_is_made_anew(
    folder: Path, encoded: list[int], capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None]
) -> None:
    _, cut = get()
    (path,) = files(folder)
    whole = path.read_bytes()
    damage(path)
    assert path.read_bytes() != whole
    found, cut_again = get()
    assert same(found, PLAIN)
    assert cut_again == cut
    assert "damaged" in capsys.readouterr().err
    assert path.read_bytes() == whole
    get()
    assert sum(encoded) == 2 * len(TEXTS)


def test_a_failure_leaves_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Tokenizer, texts: list[str], *, special: bool = True) -> list[list[int]]:
        raise KeyboardInterrupt

    monkeypatch.setattr(Tokenizer, "encode", broken)
    with pytest.raises(KeyboardInterrupt):
        get()
    assert files(folder) == []


def test_no_place_to_write_is_no_reason_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("S2S_CACHE", str(tmp_path / "file"))
    found, cut = get()
    assert same(found, PLAIN)
    assert cut == sum(len(ids) > 5 for ids in BERT.encode(TEXTS))
    assert "are not kept" in capsys.readouterr().err


def test_a_full_disk_is_no_reason_to_stop(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "_append", full)
    assert same(get()[0], PLAIN)
    assert files(folder) == []


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("S2S_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "s2s" / "tokens"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/s2s/tokens")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be ignored, says the specification
    assert cache_folder() == tmp_path / ".cache" / "s2s" / "tokens"
    for off in ("off", "OFF", ""):
        monkeypatch.setenv("S2S_CACHE", off)
        assert cache_folder() is None
    monkeypatch.setenv("S2S_CACHE", "/y")
    assert cache_folder() == Path("/y")


def test_it_can_be_switched_off_and_leaves_small_texts_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_SMALL", sum(map(len, TEXTS)) + 1)
    assert same(get()[0], PLAIN)
    assert not folder.exists() or files(folder) == []
    monkeypatch.setattr(cache, "_SMALL", 1)
    monkeypatch.setenv("S2S_CACHE", "off")
    assert same(get()[0], PLAIN)
    assert not folder.exists() or files(folder) == []


def test_what_was_not_used_for_longest_goes_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for limit in (4, 5, 6):
        get(limit=limit)
    old = files(folder)
    for age, path in enumerate(old):
        os.utime(path, (1000 + age, 1000 + age))
    get(limit=4)
    used = max(old, key=lambda path: path.stat().st_mtime)
    monkeypatch.setattr(cache, "_LARGEST_FOLDER", sum(path.stat().st_size for path in old) + 1100)
    get(limit=7)
    left = files(folder)
    assert used in left
    assert len(left) == 3
    assert next(path for path in old if path != used) not in left


def test_processes_that_want_the_same_share_the_work(folder: Path) -> None:
    code = (
        "from seq2seq_cli.data import cache; cache._SMALL = 1\n"
        "from tests.data.test_cache import *\n"
        "calls = []; encode = Tokenizer.encode\n"
        "def slow(self, texts, *, special=True):\n"
        "    import time; time.sleep(0.5); calls.append(1); return encode(self, texts, special=special)\n"
        "BERT.template\n"
        "Tokenizer.encode = slow\n"
        "assert same(get()[0], PLAIN); print(len(calls))\n"
    )
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in "ab"]
    assert sorted(int(process.communicate(timeout=60)[0]) for process in both) == [0, 1]


def test_data_sets_are_the_same_from_the_cache(folder: Path) -> None:
    rows = [Row(source=t, target=t[::-1], references=(t,), where="x:1") for t in TEXTS]

    def make() -> PairDataset:
        return PairDataset(
            rows=rows,
            source_tokenizer=BERT,
            target_tokenizer=BERT,
            start_id=1,
            eos_id=2,
            first_id=7,
            max_source_length=6,
            max_target_length=6,
        )

    first, again = make(), make()
    assert len(files(folder)) == 2
    assert first.summary == again.summary
    assert first.content_hash == again.content_hash
    one, two = first.batch([0, 5]), again.batch([0, 5])
    assert one.source_ids is not None
    assert two.source_ids is not None
    assert one.source_ids.equal(two.source_ids)
    assert one.labels.equal(two.labels)
    assert one.labels[:, 0].tolist() == [7, 7]
