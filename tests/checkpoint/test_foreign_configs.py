"""A config.json that lies (faults.md M6, and M4 where it is about config.json): refused before it costs
anything, in every family."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import seq2seq_cli
from seq2seq_cli.errors import CheckpointError
from seq2seq_cli.families import FAMILIES
from seq2seq_cli.text.tokenizer import Tokenizer
from tests import tiny
from tests.checkpoint.hostile import Loader, Outcome
from tests.families.spec import spec
from tests.text.vocabularies import publish

#: what every option is set to, one at a time: sizes that no machine has, and values of other kinds
LIES: list[Any] = [10**9, -1, "9"]
MORE_LIES: list[Any] = [2**31 - 1, 0, 1.5, None, [7], {}, 10**30, True, 1e30, 0.5, ""]
#: MiB that refusing a folder of a few kB may take
MOST = 64


@pytest.fixture(scope="module")
def loader() -> Iterator[Loader]:
    with Loader() as started:
        yield started


def role_of(family: str) -> str:
    return "decoder" if "decoder" in spec(family).roles else "encoder"


def small(outcome: Outcome, what: object) -> None:
    """Loaded or refused, without much memory."""
    assert outcome.is_handled, (what, outcome)
    assert outcome.megabytes < MOST, (what, outcome)


def lie(family: str, lies: list[Any], folder: Path, loader: Loader) -> dict[tuple[str, str], Outcome]:
    """(option, value as JSON) -> what loading came to with that value."""
    role = role_of(family)
    spec(family).publish("", role, folder)
    path = folder / "config.json"
    true = json.loads(path.read_text())
    assert loader.load(folder, role=role, use=True).kind == "loaded"
    found = {}
    for option in FAMILIES[family].options:
        for value in lies:
            path.write_text(json.dumps({**true, option: value}))
            found[option, json.dumps(value)] = loader.load(folder, role=role, use=True)
    sizes = [key for key, default in FAMILIES[family].options.items() if type(default) is int]
    path.write_text(json.dumps({**true, **{key: 10**9 for key in sizes if not key.endswith("_id")}}))
    found["every size", "1000000000"] = loader.load(folder, role=role)
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_m6_no_option_of_a_config_costs_memory_or_a_traceback(
    family: str, tmp_path: Path, loader: Loader
) -> None:
    found = lie(family, LIES, tmp_path, loader)
    for what, outcome in found.items():
        small(outcome, what)
    assert found["every size", "1000000000"].kind == "refused"
    vocabulary = next(key for key in FAMILIES[family].options if key in ("vocab_size", "n_words"))
    for value in LIES:
        outcome = found[vocabulary, json.dumps(value)]
        assert outcome.kind == "refused", (value, outcome)
        assert "config.json" in outcome.text


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_m6_with_every_kind_of_value(family: str, tmp_path: Path, loader: Loader) -> None:
    for what, outcome in lie(family, MORE_LIES, tmp_path, loader).items():
        small(outcome, what)


@pytest.mark.parametrize(
    "lies",
    [
        {"hidden_size": 10**9, "num_attention_heads": 1},
        {"hidden_size": 10**9, "num_attention_heads": 10**9, "intermediate_size": 10**9},
        {"hidden_size": 2**31 - 1, "num_attention_heads": 1, "vocab_size": 2**31 - 1},
        {"num_hidden_layers": 1000},
        {"vocab_size": 61},  # one row more than the table has
        {"max_position_embeddings": 10**9},
    ],
    ids=str,
)
def test_m6_sizes_that_multiply(lies: dict[str, int], tmp_path: Path, loader: Loader) -> None:
    tiny.save_language_model("bert", tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | lies))
    outcome = loader.load(tmp_path)
    small(outcome, lies)
    assert outcome.kind == "refused"
    assert "config.json" in outcome.text


@pytest.mark.parametrize(
    ("side", "lies"),
    [
        ("decoder", {"n_embd": 10**9, "n_head": 1}),
        ("decoder", {"n_layer": 1000}),
        ("encoder", {"num_hidden_layers": 10**9}),
        ("encoder", {"hidden_size": 64}),
        ("decoder", {"vocab_size": None}),
        ("decoder", {"model_type": ["gpt2"]}),
        ("encoder", {"model_type": "encoder-decoder"}),
    ],
    ids=str,
)
def test_m6_a_pair_with_a_side_that_lies(
    side: str, lies: dict[str, Any], tmp_path: Path, loader: Loader
) -> None:
    tiny.pair("bert", "gpt2").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config[side] |= lies
    path.write_text(json.dumps(config))
    outcome = loader.load(tmp_path)
    small(outcome, lies)
    assert outcome.kind == "refused"


@pytest.mark.parametrize(
    "settings",
    [
        {"decoder_n_embd": 10**9, "decoder_n_head": 1},
        {"decoder_vocab_size": 2**31 - 1},
        {"decoder_n_positions": 2**31 - 1},
        {"decoder_n_embd": 2**31 - 1, "decoder_n_head": 1, "decoder_vocab_size": 2**31 - 1},
    ],
    ids=str,
)
def test_m6_fresh_weights_that_no_machine_could_hold(
    settings: dict[str, int], tmp_path: Path, loader: Loader
) -> None:
    """Nothing but config.json says how large fresh parameters are."""
    tiny.save_language_model("gpt2", tmp_path)
    outcome = loader.load(tmp_path, combine={"random_decoder": True, **settings})
    small(outcome, settings)
    assert outcome.kind == "refused"
    assert "machine" in outcome.text


def test_m6_fresh_weights_that_find_no_memory(tmp_path: Path, loader: Loader) -> None:
    """The machine could hold them, the process may not."""
    tiny.save_language_model("gpt2", tmp_path)
    outcome = loader.load(tmp_path, combine={"random_decoder": True, "decoder_vocab_size": 20_000_000})
    small(outcome, "2.5 GB")
    assert outcome.kind == "refused"
    assert "not enough memory" in outcome.text


@pytest.mark.parametrize("key", ["eos_token_id", "bos_token_id", "pad_token_id", "decoder_start_token_id"])
@pytest.mark.parametrize("value", ["1", 1.5, True, [[1]], {"a": 1}, [None, "x"]])
def test_m6_ids_that_are_none(key: str, value: object, tmp_path: Path) -> None:
    tiny.save_language_model("gpt2", tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({key: value}))
    with pytest.raises(CheckpointError, match=f"{key}=.* is not a token id"):
        seq2seq_cli.load(tmp_path)


def test_m6_missing_ids_are_asked_for(tmp_path: Path) -> None:
    """A pair that does not say how a target begins is not decoded from a guess."""
    model = tiny.pair("bert", "gpt2")
    model.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    for part in (config, config["encoder"], config["decoder"]):
        for key in ("decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id"):
            part[key] = None
    path.write_text(json.dumps(config))
    pair = seq2seq_cli.load(tmp_path)
    with pytest.raises(seq2seq_cli.errors.S2SError, match="start"):
        seq2seq_cli.generate_ids(pair.model, torch.tensor([[5, 6]]))


def test_m4_code_and_paths_in_a_config_are_ignored(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    tiny.save_language_model("gpt2", folder)
    trap = f"open({str(tmp_path / 'touched')!r}, 'w').close()\n"
    (folder / "modeling_evil.py").write_text(trap)
    (folder / "configuration_evil.py").write_text(trap)
    path = folder / "config.json"
    traps = {
        "auto_map": {
            "AutoConfig": "configuration_evil.EvilConfig",
            "AutoModelForCausalLM": "modeling_evil.Evil",
        },
        "custom_pipelines": {"x": {"impl": "modeling_evil.Evil"}},
        "_name_or_path": "/etc/passwd",
        "tokenizer_class": "../../../etc/passwd",
        "tokenizer_file": "/etc/passwd",
    }
    path.write_text(json.dumps(json.loads(path.read_text()) | traps))
    seq2seq_cli.load(folder).save(tmp_path / "again")
    assert not (tmp_path / "touched").exists()
    assert {file.name for file in tmp_path.iterdir()} == {"model", "again"}
    assert not list((tmp_path / "again").glob("*.py"))


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"])
@pytest.mark.parametrize("spelt", ["\\ud800", "\\uDFFF x", "\\ude00\\ud83d"])
def test_m5_half_a_surrogate_pair_is_no_text(file: str, spelt: str, tmp_path: Path) -> None:
    publish("bert", tmp_path)
    (tmp_path / file).write_text(f'{{"mask_token": "{spelt}"}}')
    with pytest.raises(CheckpointError, match="surrogates not allowed"):
        Tokenizer.from_folder(tmp_path)
    (tmp_path / file).write_text('{"mask_token": "\\ud83d\\ude00"}' if file[0] != "a" else "{}")
    assert Tokenizer.from_folder(tmp_path) is not None
