"""How a foreign checkpoint wants to be decoded (faults.md M6): refused by file and key before it costs
anything; what a user asks for stays the user's mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import seq2seq_cli
from seq2seq_cli.errors import CheckpointError, UsageError
from seq2seq_cli.text.training import train_tokenizer
from tests import tiny
from tests.cli.conftest import Run

WRONG: list[tuple[str, Any, dict[str, Any]]] = [
    ("num_beams", 10**9, {"max_new_tokens": 10**12}),
    ("num_beams", 1001, {}),
    ("num_beams", "x", {}),
    ("num_return_sequences", 10**9, {"do_sample": True}),
    ("length_penalty", 1e300, {"num_beams": 2}),
    ("length_penalty", -31, {"num_beams": 2}),
    ("repetition_penalty", 1e300, {}),
    ("repetition_penalty", 0, {}),
    ("temperature", -1, {"do_sample": True}),
    ("temperature", 1e-300, {"do_sample": True}),
    ("max_length", 0, {}),
    ("max_new_tokens", 10**12, {}),
    ("early_stopping", "often", {}),
    ("forced_eos_token_id", 60, {}),
    ("bad_words_ids", [[3], [4, 99]], {}),
    ("eos_token_id", "x", {}),
]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lm") / "gpt2"
    tiny.save_language_model("gpt2", folder, bos_token_id=1, eos_token_id=2)
    train_tokenizer("wordpiece", 60, ["the boss asks and the model answers"]).save(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    return folder


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    for file in published.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def write(folder: Path, name: str, settings: dict[str, Any]) -> None:
    path = folder / name
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **settings}))


CASES = [("generation_config.json", *wrong) for wrong in WRONG]
CASES += [("config.json", *wrong) for wrong in WRONG if wrong[0] != "max_new_tokens"]  # never a key there


@pytest.mark.parametrize(("name", "key", "value", "others"), CASES, ids=str)
def test_m6_wrong_wishes_are_named_with_their_file(
    name: str, key: str, value: Any, others: dict[str, Any], folder: Path, s2s: Run
) -> None:
    write(folder, name, {**others, key: value})
    done = s2s("generate", "-m", str(folder), "the boss")
    assert done.returncode == 4, done.stderr
    lines = [line for line in done.stderr.decode().splitlines() if line.startswith(key)]
    assert any(f"{folder}/{name}" in line for line in lines), done.stderr
    with pytest.raises(CheckpointError, match=key):
        seq2seq_cli.load(folder).generate(["the boss"])


def test_what_a_user_asks_for_wins_and_is_the_users_mistake(folder: Path, s2s: Run) -> None:
    write(folder, "generation_config.json", {"num_beams": 10**9, "max_new_tokens": 10**12})
    mended = s2s("generate", "-m", str(folder), "--num-beams", "2", "--max-new-tokens", "2", "the boss")
    assert mended.returncode == 0, mended.stderr
    write(folder, "generation_config.json", {"num_beams": 2, "max_new_tokens": 3})
    for flags in (("--num-beams", "2000"), ("--length-penalty", "1e300"), ("--temperature", "1e-300")):
        done = s2s("generate", "-m", str(folder), *flags, "the boss")
        assert done.returncode == 2, done.stderr
        assert b"generation_config.json" not in done.stderr
    model = seq2seq_cli.load(folder).model
    with pytest.raises(UsageError, match="num_return_sequences 3 is more than num_beams 2"):
        seq2seq_cli.generate_ids(model, torch.tensor([[5]]), num_return_sequences=3)


def test_both_mistakes_at_once_are_the_users_first(folder: Path) -> None:
    write(folder, "generation_config.json", {"length_penalty": 1e300})
    with pytest.raises(UsageError, match="num_beams must be from 1 to 1000"):
        seq2seq_cli.load(folder).generate(["the boss"], num_beams=5000)
