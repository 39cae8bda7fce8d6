"""Tokenizer files that were made to do harm: refused with exit code 4, in bounded time and memory (M1-M5)."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Backend

from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.text import files, sentencepiece_model
from seq2seq_cli.text import tokenizer as tokenizer_module
from seq2seq_cli.text.tokenizer import Tokenizer
from tests.text.compare import write
from tests.text.vocabularies import publish, sentencepiece

# -- SentencePiece's .model ----------------------------------------------------------------------------------


def field(number: int, value: int | bytes) -> bytes:
    """One field of a protocol buffer."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    found = b""
    while value > 127:
        found += bytes([value & 127 | 128])
        value >>= 7
    return found + bytes([value])


def piece(text: bytes, score: float = -1.0, kind: int = 1) -> bytes:
    return field(1, field(1, text) + varint(2 << 3 | 5) + struct.pack("<f", score) + field(3, kind))


GOOD = piece(b"<pad>", 0.0, 3) + piece(b"</s>", 0.0, 3) + piece(b"<unk>", 0.0, 2) + piece("▁a".encode())
TRAINER = field(2, field(3, 1) + field(40, 2))


def t5(folder: Path, content: bytes) -> Path:
    write(folder, config__json={"model_type": "t5"})
    (folder / "spiece.model").write_bytes(content)
    return folder


def test_a_small_model_is_read(tmp_path: Path) -> None:
    unknown = field(99, b"later version") + varint(77 << 3 | 1) + bytes(8)
    tokenizer = Tokenizer.from_folder(t5(tmp_path, GOOD + TRAINER + unknown))
    assert tokenizer is not None
    assert tokenizer.encode(["a a b"]) == [[3, 3, 2, 1]] or tokenizer.encode(["a a"]) == [[3, 3, 1]]
    assert tokenizer.vocab_size == 104


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no pieces"),
        (GOOD[:-3], "are announced"),
        (field(1, 5), "is a number"),
        (GOOD + varint(1 << 3 | 2) + varint(2**62), "are announced"),
        (GOOD + b"\xff" * 11, "too long"),
        (GOOD + b"\x80", "ends inside"),
        (GOOD + bytes([1 << 3 | 3]), "wire type 3"),
        (GOOD + piece(b""), "empty"),
        (GOOD + piece(b"\xff\xfe"), "not UTF-8"),
        (GOOD + piece(b"x", float("nan")), "is nan"),
        (GOOD + piece(b"x", float("inf")), "is inf"),
        (GOOD + field(2, field(40, 4)), "unk_id 4"),
        (GOOD + field(2, field(40, 2**64 - 1)), "unk_id -1"),
        (GOOD + TRAINER + field(2, field(3, 2)), "type BPE"),
        (GOOD + TRAINER + field(2, field(3, 3)), "type word"),
        (GOOD + TRAINER + field(2, field(3, 4)), "type character"),
        (GOOD + TRAINER + field(2, field(3, 99)), "type 99"),
        (GOOD + TRAINER + field(2, field(24, 1)), "treat_whitespace_as_suffix"),
        (GOOD + TRAINER + field(3, field(3, 0)), "add_dummy_prefix"),
        (GOOD + TRAINER + field(3, field(5, 0)), "escape_whitespaces"),
        (GOOD + TRAINER + field(5, field(2, b"abcd")), "denormalizer"),
        (GOOD + TRAINER + field(3, field(2, 7)), "are a number"),
        (GOOD + TRAINER + field(3, field(2, b"abc")), "rules of normalisation are damaged"),
        (GOOD + TRAINER + field(3, field(2, b"\xff\xff\xff\xffabc")), "rules of normalisation are damaged"),
    ],
)
def test_a_model_that_is_damaged_or_of_another_kind(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        Tokenizer.from_folder(t5(tmp_path, content))
    assert caught.value.exit_code == 4


def test_a_model_with_too_many_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentencepiece_model, "_MOST_PIECES", 4)
    assert Tokenizer.from_folder(t5(tmp_path, GOOD + TRAINER)) is not None
    with pytest.raises(CheckpointError, match="more than 4 pieces"):
        Tokenizer.from_folder(t5(tmp_path, GOOD + TRAINER + piece(b"x")))


@pytest.mark.parametrize("kind", ["bpe", "char"])
def test_other_kinds_as_sentencepiece_writes_them(kind: str, tmp_path: Path) -> None:
    write(tmp_path, config__json={"model_type": "t5"})
    sentencepiece(tmp_path, "spiece.model", model_type=kind, vocab_size=900)
    with pytest.raises(CheckpointError, match="only unigram"):
        Tokenizer.from_folder(tmp_path)


# -- every file, a few bytes changed -------------------------------------------------------------------------

FLIPPED = (
    *(("t5", "spiece.model"), ("camembert", "sentencepiece.bpe.model"), ("bert", "vocab.txt")),
    *(("gpt2", "vocab.json"), ("gpt2", "merges.txt"), ("xlm", "merges.txt"), ("ctrl", "vocab.json")),
    *(("transfo-xl", "vocab.pkl"), ("albert", "tokenizer.json"), ("gpt2", "tokenizer_config.json")),
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    folders: dict[tuple[str, str], Path] = {}

    def get(model_type: str, file: str) -> Path:
        if (model_type, file) not in folders:
            folder = tmp_path_factory.mktemp("small")
            if model_type == "transfo-xl":
                write(folder, config__json={"model_type": model_type})
                content = {"idx2sym": ["<eos>", "<unk>", *map(str, range(300))], "lower_case": False}
                (folder / "vocab.pkl").write_bytes(pickle.dumps(content, protocol=2))
            else:
                publish(model_type, folder)
            if file.startswith("tokenizer"):
                tokenizer = Tokenizer.from_folder(folder)
                assert tokenizer is not None
                tokenizer.save(folder)
            folders[model_type, file] = folder
        return folders[model_type, file]

    return get


@pytest.mark.parametrize(("model_type", "file"), FLIPPED)
@pytest.mark.timeout(60)
def test_m5_changed_bytes_give_an_error_or_a_tokenizer(
    model_type: str, file: str, small: Callable[[str, str], Path], tmp_path: Path
) -> None:
    """Never a crash, a panic or a hang; the seconds are for all of them together."""
    folder = tmp_path / "in"
    shutil.copytree(small(model_type, file), folder)
    published = (folder / file).read_bytes()
    choice = random.Random(5)
    outcomes = set()
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        content = bytearray(published)
        for _ in range(choice.randint(1, 4)):
            size = len(content) if choice.random() < 0.6 else min(64, len(content))
            place = choice.randrange(size)
            match choice.randrange(4):
                case 0:
                    content[place] = choice.randrange(256)
                case 1:
                    del content[place + 1 : place + choice.randint(2, 40)]
                case 2:
                    content[place:place] = content[place : place + choice.randint(1, 40)]
                case _:
                    del content[max(1, place) :]
        (folder / file).write_bytes(content)
        try:
            tokenizer = Tokenizer.from_folder(folder)
            if tokenizer is not None:
                ids = tokenizer.encode(["The quick brown fox 你好 1,000"])[0]
                tokenizer.decode(ids)
            outcomes.add("read")
        except CheckpointError:
            outcomes.add("refused")
    assert "refused" in outcomes or file in ("vocab.txt", "merges.txt", "tokenizer_config.json")


# -- M4: the settings ----------------------------------------------------------------------------------------

TRICKS = {
    "vocab_file": "/etc/passwd",
    "merges_file": "../merges.txt",
    "tokenizer_file": "/etc/passwd",
    "sp_model_file": "/dev/zero",
    "special_tokens_map_file": "../../secret.json",
    "pretrained_vocab_file": "/tmp/evil.pkl",
    "name_or_path": "/etc",
    "init_inputs": ["/etc/passwd"],
    "auto_map": {"AutoTokenizer": ["evil--code.Tokenizer", None]},
    "chat_template": [{"name": "../../x", "template": "{{ 7 * 7 }}"}],
}


@pytest.mark.parametrize("model_type", ["bert", "gpt2", "openai-gpt", "ctrl", "xlm", "albert", "t5"])
def test_m4_names_of_files_and_code_are_ignored(
    model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = Tokenizer.from_folder(publish(model_type, tmp_path / "in"))
    assert clean is not None
    write(tmp_path / "in", tokenizer_config__json=TRICKS)
    opened = []
    inside = os.fspath(tmp_path)
    read_bytes, read_text, open_path = Path.read_bytes, Path.read_text, Path.open

    def note(method: Callable[..., Any]) -> Callable[..., Any]:
        def noted(path: Path, *args: Any, **settings: Any) -> Any:
            opened.append(os.fspath(path))
            return method(path, *args, **settings)

        return noted

    for name, method in (("read_bytes", read_bytes), ("read_text", read_text), ("open", open_path)):
        monkeypatch.setattr(Path, name, note(method))
    tricked = Tokenizer.from_folder(tmp_path / "in")
    monkeypatch.undo()
    assert tricked is not None
    assert tricked.fingerprint == clean.fingerprint
    assert opened
    assert all(path.startswith(inside) for path in opened)
    tricked.save(tmp_path / "out")
    saved = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir())
    for word in (b"passwd", b"evil", b"secret", b"../", b"/dev/zero"):
        assert word not in saved


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "vocab.txt", "merges.txt", "tokenizer_config.json", "added_tokens.json"]
)
@pytest.mark.parametrize("target", ["/etc/passwd", "/dev/zero", "../outside.json", "nowhere"])
def test_m3_links_out_of_the_folder_are_not_opened(name: str, target: str, tmp_path: Path) -> None:
    publish("gpt2", tmp_path / "in")
    (tmp_path / "outside.json").write_text("{}")
    (tmp_path / "in" / name).unlink(missing_ok=True)
    (tmp_path / "in" / name).symlink_to(target)
    with pytest.raises(CheckpointError, match=r"link out of the folder|leads nowhere"):
        Tokenizer.from_folder(tmp_path / "in")


def test_m3_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "vocab.txt")
    with pytest.raises(CheckpointError, match="not an ordinary file"):
        Tokenizer.from_folder(tmp_path)


def test_m3_links_into_the_hubs_cache_are_read(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
    (tmp_path / "models--a--b" / "blobs").mkdir(parents=True)
    publish("bert", snapshot)
    for path in list(snapshot.iterdir()):
        blob = tmp_path / "models--a--b" / "blobs" / path.name
        path.rename(blob)
        path.symlink_to(f"../../blobs/{path.name}")
    assert Tokenizer.from_folder(snapshot) is not None


# -- M5: tokenizer.json --------------------------------------------------------------------------------------


def with_pattern(folder: Path, pattern: str, *, where: str = "pre_tokenizer") -> Tokenizer:
    backend = Backend(models.BPE({"a": 0, "b": 1}, []))
    if where == "pre_tokenizer":
        backend.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    else:
        backend.normalizer = normalizers.Replace(Regex(pattern), "b")
    tokenizer = Tokenizer.from_folder(write(folder, tokenizer__json=backend.to_str()))
    assert tokenizer is not None
    return tokenizer


@pytest.mark.parametrize("where", ["pre_tokenizer", "normalizer"])
def test_m5_patterns_have_a_time_limit(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quadratic patterns never meet the library's own limit, which counts the retries of one match."""
    tokenizer = with_pattern(tmp_path, "a+[bc]", where=where)
    assert tokenizer.encode(["aab"]) == [[0, 0, 1]] or where == "normalizer"
    monkeypatch.setattr(tokenizer_module, "PATIENCE", 0.2)
    monkeypatch.setattr(tokenizer_module, "SLOWEST", 10**9)
    start = time.monotonic()
    with pytest.raises(CheckpointError, match="take more than 0 s for 40000 characters"):
        tokenizer.encode(["a" * 40_000])
    assert time.monotonic() - start < 2


def test_m5_the_limit_passes_results_and_panics_on(tmp_path: Path) -> None:
    assert with_pattern(tmp_path / "1", "a+[bc]").encode(["aab", ""]) == [[0, 0, 1], []]
    with pytest.raises(CheckpointError, match="retry-limit"):
        with_pattern(tmp_path / "2", "(a+)+$").encode(["a" * 50 + "b"])
    assert with_pattern(tmp_path / "3", "(a+)+$").extended({"eos_token": "<e>"})._has_patterns


@pytest.mark.parametrize(
    ("vocab", "message"),
    [
        ([["a", "x"]], "not a piece and its score"),
        ([["a"]], "not a piece and its score"),
        ([[1, 2.0]], "not a piece and its score"),
        ([["a", float("nan")]], "not a piece and its score"),
        ([["a", 10**400]], "not a piece and its score"),
        ({"a": 1}, "not a piece and its score"),
        (None, "not a piece and its score"),
        ([], "not accepted"),
        ([["a", 0.0]], "not accepted"),  # no unknown piece at 2
    ],
)
def test_m5_a_damaged_unigram_vocabulary(vocab: Any, message: str, tmp_path: Path) -> None:
    content = {"model": {"type": "Unigram", "vocab": vocab, "unk_id": 0}, "added_tokens": []}
    write(tmp_path, tokenizer__json=content, tokenizer_config__json={"tokenizer_class": "T5Tokenizer"})
    with pytest.raises(CheckpointError, match=message):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize(
    "charsmap", ["!!!", "AAAA", "/////w==", "BAAAAAAAAAAA", "CAAAAP////8BAgME/////w==", 5, None]
)
def test_m5_damaged_rules_of_normalisation(charsmap: Any, tmp_path: Path) -> None:
    """Refused when they are read or first used, or harmless; the library would end in a panic."""
    content = {
        "model": {"type": "Unigram", "vocab": [[p, -1.0] for p in ("<pad>", "</s>", "<unk>", "a")]},
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": charsmap},
        "added_tokens": [],
    }
    write(tmp_path, tokenizer__json=content, tokenizer_config__json={"tokenizer_class": "T5Tokenizer"})
    with suppress(CheckpointError):
        tokenizer = Tokenizer.from_folder(tmp_path)
        assert tokenizer is not None
        tokenizer.encode(["a\u0301 ﬁ 你"])


def test_m5_ids_far_beyond_the_vocabulary(tmp_path: Path) -> None:
    """The size they ask for is told, not allocated."""
    backend = json.loads(Backend(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>")).to_str())
    backend["model"]["vocab"]["a"] = 2**31 - 5
    backend["added_tokens"] = []
    tokenizer = Tokenizer.from_folder(write(tmp_path, tokenizer__json=backend))
    assert tokenizer is not None
    assert tokenizer.vocab_size == 2**31 - 4
    assert tokenizer.decode([2**31 - 5, 2**32, 2**70, 7]) == "a"


def test_a_file_above_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for model_type, name in (("t5", "spiece.model"), ("bert", "vocab.txt"), ("xlm", "merges.txt")):
        folder = publish(model_type, tmp_path / model_type)
        with (folder / name).open("ab") as file:
            file.truncate(files.MAX_FILE_BYTES + 1)
        with pytest.raises(CheckpointError, match="too many for a tokenizer file"):
            Tokenizer.from_folder(folder)
