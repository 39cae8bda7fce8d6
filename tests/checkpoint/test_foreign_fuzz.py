"""Folders with random damage in every kind of file: loading and using one ends well, or in an error of ours.

The minute of it: ``scripts/test -m slow tests/checkpoint/test_foreign_fuzz.py`` (other damage with
S2S_FUZZ_SEED=7 before it; S2S_FUZZ_SECONDS=600 for longer). A failure names the seed and the number of the
case; ``damaged(random.Random(f"{seed}/{case}"), ...)`` makes the same damage again.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.checkpoint.hostile import Loader, Outcome
from tests.families.spec import spec
from tests.text.vocabularies import publish

#: rows of every embedding: the vocabularies of the tests have at most so many entries
ROWS = 1600
#: MiB that a load may take, whatever the damage
MOST = 512


# --- whole folders, to be damaged -----------------------------------------------------------------------


def stack(family: str, role: str, folder: Path) -> None:
    """A single stack with a tokenizer; T5 whole."""
    if family == "t5":
        settings = {key: value for key, value in spec(family).base.items() if key != "model_type"}
        whole = transformers.T5Config(**settings | {"vocab_size": ROWS})
        model: Any = transformers.T5ForConditionalGeneration(whole)
    else:
        vocabulary = "n_words" if "n_words" in spec(family).base else "vocab_size"
        model = spec(family).model(role, **{vocabulary: ROWS})
    model.save_pretrained(folder)
    config = (folder / "config.json").read_bytes()
    publish(family, folder)
    (folder / "config.json").write_bytes(config)
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 30}))


def as_bin(folder: Path, *, zipped: bool) -> None:
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)


def sharded(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    index = {name: f"model-{2 * i // len(names)}.safetensors" for i, name in enumerate(names)}
    for shard in set(index.values()):
        save_file({n: weights[n] for n in names if index[n] == shard}, folder / shard)
    content = {"metadata": {"total_size": 1}, "weight_map": index}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))


def write_pair(folder: Path) -> None:
    """An encoder-decoder as we save it, with two tokenizers as tokenizer.json."""
    import seq2seq_cli

    stack("bert", "encoder", folder.with_name("left"))
    stack("gpt2", "decoder", folder.with_name("right"))
    ids = {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    pair = seq2seq_cli.combine(folder.with_name("left"), folder.with_name("right"), **ids)
    pair.save(folder)


def write_all(place: Path) -> list[Path]:
    """Every kind of file that a folder of a model can have."""
    write_pair(place / "pair")
    stack("gpt2", "decoder", place / "gpt2")
    sharded(place / "gpt2")
    stack("albert", "decoder", place / "albert")
    as_bin(place / "albert", zipped=True)
    stack("xlm", "decoder", place / "xlm")
    as_bin(place / "xlm", zipped=False)
    stack("t5", "decoder", place / "t5")
    return [place / name for name in ("pair", "gpt2", "albert", "xlm", "t5", "left")]


def role_of(folder: Path) -> str | None:
    """What a folder is loaded as."""
    return "encoder" if folder.name == "left" else None


# --- damage ---------------------------------------------------------------------------------------------


def flip(raw: bytearray, chance: random.Random) -> None:
    """One to eight bytes, half the time among the first, where the headers are."""
    for _ in range(chance.randint(1, 8)):
        end = min(len(raw), 2000) if chance.random() < 0.5 else len(raw)
        raw[chance.randrange(end)] = chance.randrange(256)


def flip_bit(raw: bytearray, chance: random.Random) -> None:
    place = chance.randrange(min(len(raw), chance.choice((16, 400, 10**9))))
    raw[place] ^= 1 << chance.randrange(8)


def cut(raw: bytearray, chance: random.Random) -> None:
    del raw[chance.randrange(len(raw)) :]


def drop(raw: bytearray, chance: random.Random) -> None:
    place = chance.randrange(len(raw))
    del raw[place : place + chance.randint(1, 100)]


def repeat(raw: bytearray, chance: random.Random) -> None:
    place = chance.randrange(len(raw))
    raw[place:place] = raw[place : place + chance.randint(1, 100)] * chance.choice((1, 2, 50))


def digits(raw: bytearray, chance: random.Random) -> None:
    """Other digits in the place of some."""
    places = [i for i, byte in enumerate(raw[:4000]) if 48 <= byte <= 57]
    for place in chance.sample(places, min(len(places), chance.randint(1, 4))):
        raw[place : place + 1] = chance.choice((b"0", b"9", b"-1", b"99999999999", b"1e9", b"null", b"1.5"))


VALUES: list[Any] = [
    *(None, True, False, 0, -1, 2, 61, 10**9, 2**63, 10**40, 0.5, -0.5, 1e300, "", "x", "../x", "\ud800"),
    *("a" * 3000, [], {}, [[]], {"": ""}, [0], ["<s>"], {"content": "x"}, "gpt2", "BPE", "\0", "<s>"),
]


def value(raw: bytearray, chance: random.Random) -> None:
    """Another value, or none, somewhere in a JSON document."""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return flip(raw, chance)
    node, holder, key = document, None, None
    while isinstance(node, (dict, list)) and node and (holder is None or chance.random() < 0.8):
        holder, key = node, chance.choice(list(node) if isinstance(node, dict) else range(len(node)))
        node = node[key]
    if holder is None:
        return None
    if chance.random() < 0.15:
        del holder[key]
    else:
        holder[key] = chance.choice(VALUES)
    raw[:] = json.dumps(document).encode()
    return None


DAMAGE: list[Callable[[bytearray, random.Random], None]] = [
    *(flip, flip, flip_bit, flip_bit, cut, drop, repeat, digits, value, value),
]


def damaged(chance: random.Random, folders: list[Path]) -> tuple[Path, Path, bytes]:
    """A folder, a file in it, and what that file is to hold."""
    folder = chance.choice(folders)
    file = chance.choice(sorted(path for path in folder.rglob("*") if path.suffix not in (".md", ".lock")))
    while file.is_dir():
        file = chance.choice(sorted(file.iterdir()))
    raw = bytearray(file.read_bytes())
    for _ in range(chance.choice((1, 1, 2))):
        if raw:
            chance.choice(DAMAGE)(raw, chance)
    return folder, file, bytes(raw)


# --- the search -----------------------------------------------------------------------------------------


def fuzz(place: Path, *, seconds: float, seed: int) -> tuple[Counter[str], list[str]]:
    """How often what became of the loads, and a line for each that ended as it must not."""
    folders = write_all(place)
    counts: Counter[str] = Counter()
    failures: list[str] = []
    with Loader(patience=60) as loader:
        for folder in folders:
            whole = loader.load(folder, role=role_of(folder), use=True)
            assert whole.kind == "loaded", (folder, whole)
        case, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            folder, file, content = damaged(random.Random(f"{seed}/{case}"), folders)
            before = file.read_bytes()
            file.write_bytes(content)
            outcome = loader.load(folder, role=role_of(folder), use=True)
            file.write_bytes(before)
            counts[outcome.kind] += 1
            if not is_well(outcome):
                name = file.relative_to(place)
                failures.append(f"seed {seed}, case {case}, {name}: {outcome}")
            case += 1
    return counts, failures


def is_well(outcome: Outcome) -> bool:
    return outcome.is_handled and outcome.megabytes < MOST


def test_three_seconds_of_random_damage(tmp_path: Path) -> None:
    counts, failures = fuzz(tmp_path, seconds=3, seed=0)
    assert not failures, "\n".join(failures)
    assert counts["refused"]


@pytest.mark.slow
def test_a_minute_of_random_damage(tmp_path: Path) -> None:
    seconds = float(os.environ.get("S2S_FUZZ_SECONDS", "60"))
    counts, failures = fuzz(tmp_path, seconds=seconds, seed=int(os.environ.get("S2S_FUZZ_SEED", "1")))
    print(dict(counts))
    assert not failures, "\n".join(failures)
    assert counts["refused"] > 10
    assert counts["loaded"] > 10
