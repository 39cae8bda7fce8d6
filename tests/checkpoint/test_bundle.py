"""Folders in, bundles out: special ids, decoding defaults, tokenizers, exact round trips."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from seq2seq_cli.checkpoint import saving
from seq2seq_cli.checkpoint.bundle import load_bundle
from seq2seq_cli.checkpoint.generation import generation_defaults, special_ids
from seq2seq_cli.checkpoint.report import LoadReport, part_of
from seq2seq_cli.checkpoint.saving import save_bundle
from seq2seq_cli.combiner import Side, combine
from seq2seq_cli.errors import CheckpointError, UsageError
from seq2seq_cli.model import EncoderDecoder, SpecialIds
from seq2seq_cli.text.training import train_tokenizer
from tests import tiny

TEXTS = ["the boss asks and the model answers", "select name from staff where age > 40", "a b c d e"]


def edit(folder: Path, name: str = "config.json", **changes: Any) -> None:
    path = folder / name
    config = json.loads(path.read_text()) if path.exists() else {}
    config.update(changes)
    path.write_text(json.dumps({key: value for key, value in config.items() if value != "REMOVE"}))


@pytest.fixture
def pair_folder(tmp_path: Path) -> Path:
    tiny.pair("bert", "gpt2", encoder_changes={"hidden_size": 48}).save_pretrained(tmp_path / "pair")
    return tmp_path / "pair"


# -- special ids ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "generation", "expected"),
    [
        ({}, {}, SpecialIds()),
        (
            {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
            {},
            SpecialIds(start=1, eos=(2,), pad=0),
        ),
        ({"eos_token_id": 2}, {"eos_token_id": [3, 4]}, SpecialIds(eos=(3, 4))),
        ({"eos_token_id": 2}, {"eos_token_id": None}, SpecialIds(eos=(2,))),
        ({"bos_token_id": 5}, {}, SpecialIds(start=5, bos=5)),
        ({"bos_token_id": 5, "decoder_start_token_id": 0}, {}, SpecialIds(start=0, bos=5)),
        ({"eos_token_id": 50256, "bos_token_id": 50256, "pad_token_id": 60}, {}, SpecialIds()),
        ({"eos_token_id": [50256, 3], "pad_token_id": -1}, {}, SpecialIds(eos=(3,))),
        ({"pad_token_id": 0}, {"pad_token_id": 59}, SpecialIds(pad=59)),
    ],
)
def test_special_ids(config: dict[str, Any], generation: dict[str, Any], expected: SpecialIds) -> None:
    assert special_ids(config, generation, 60, start_from_bos=True) == expected


@pytest.mark.parametrize("value", ["2", 2.0, True, [2, None, "x"], {"id": 2}])
def test_ids_that_are_no_ids(value: Any) -> None:
    with pytest.raises(CheckpointError, match="eos_token_id"):
        special_ids({"eos_token_id": value}, {}, 60)


def test_a_single_stack_starts_nothing_by_itself() -> None:
    assert special_ids({"bos_token_id": 5}, {}, 60).start is None


def test_nested_ids_when_the_pair_says_nothing(pair_folder: Path) -> None:
    """Old folders: the ids stand in the decoder's section only."""
    (pair_folder / "generation_config.json").unlink()
    absent = dict.fromkeys(
        ("decoder_start_token_id", "eos_token_id", "pad_token_id", "bos_token_id"), "REMOVE"
    )
    config = json.loads((pair_folder / "config.json").read_text())
    config["decoder"].update({"bos_token_id": 7, "eos_token_id": 8, "pad_token_id": 50256})
    edit(pair_folder, decoder=config["decoder"], **absent)
    assert load_bundle(str(pair_folder)).model.special_ids == SpecialIds(start=7, eos=(8,), bos=7)


# -- decoding defaults ---------------------------------------------------------------------------------------


def test_defaults_of_the_checkpoint(pair_folder: Path) -> None:
    """generation_config.json wins over the old keys of config.json; ids are kept apart."""
    edit(pair_folder, num_beams=4, max_length=20, length_penalty=2.0, task_specific_params={"x": 1})
    edit(pair_folder, "generation_config.json", num_beams=2, eos_token_id=9)
    model = load_bundle(str(pair_folder)).model
    assert model.generation["num_beams"] == 2
    assert model.generation["length_penalty"] == 2.0
    assert "eos_token_id" not in model.generation
    assert model.special_ids.eos == (9,)
    assert generation_defaults({"vocab_size": 3, "hidden_act": "gelu"}, {}) == {}


# -- round trips ---------------------------------------------------------------------------------------------


def test_round_trip_is_exact(pair_folder: Path, tmp_path: Path) -> None:
    edit(pair_folder, "generation_config.json", num_beams=3, eos_token_id=[2, 5])
    first = load_bundle(str(pair_folder))
    save_bundle(first, tmp_path / "one")
    second = load_bundle(str(tmp_path / "one"))
    save_bundle(second, tmp_path / "two")
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    left, right = (dict(bundle.model.named_parameters()) for bundle in (first, second))
    assert set(left) == set(right)
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert first.model.special_ids == second.model.special_ids
    assert first.model.generation == second.model.generation
    assert second.model.generation["num_beams"] == 3


def test_shards_and_their_index(pair_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = load_bundle(str(pair_folder))
    monkeypatch.setattr(saving, "SHARD_BYTES", 20_000)
    save_bundle(bundle, tmp_path / "shards")
    files = sorted(path.name for path in (tmp_path / "shards").glob("*.safetensors"))
    assert len(files) > 3
    assert files[-1] == f"model-{len(files):05d}-of-{len(files):05d}.safetensors"
    index = json.loads((tmp_path / "shards" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(files)
    again = load_bundle(str(tmp_path / "shards"))
    assert all(
        torch.equal(one, other)
        for one, other in zip(bundle.model.parameters(), again.model.parameters(), strict=True)
    )


def test_tokenizers_of_both_sides(tmp_path: Path) -> None:
    tiny.pair("bert", "gpt2", decoder_changes={"vocab_size": 300}).save_pretrained(tmp_path / "pair")
    bundle = load_bundle(str(tmp_path / "pair"))
    assert bundle.source_tokenizer is None
    assert bundle.target_tokenizer is None
    bundle.source_tokenizer = train_tokenizer("wordpiece", 60, TEXTS)
    bundle.target_tokenizer = train_tokenizer("bpe", 300, TEXTS)
    save_bundle(bundle, tmp_path / "two")
    assert (tmp_path / "two" / "decoder_tokenizer" / "tokenizer.json").exists()
    again = load_bundle(str(tmp_path / "two"))
    assert again.source_tokenizer is not None
    assert again.target_tokenizer is not None
    assert again.source_tokenizer.fingerprint == bundle.source_tokenizer.fingerprint
    assert again.target_tokenizer.fingerprint == bundle.target_tokenizer.fingerprint
    for role, expected in (("encoder", bundle.source_tokenizer), ("decoder", bundle.target_tokenizer)):
        half = load_bundle(str(tmp_path / "two"), role=role)  # type: ignore[arg-type]
        assert half.source_tokenizer is not None
        assert half.source_tokenizer.fingerprint == expected.fingerprint
    bundle.target_tokenizer = bundle.source_tokenizer
    save_bundle(bundle, tmp_path / "one")
    assert not (tmp_path / "one" / "decoder_tokenizer").exists()
    again = load_bundle(str(tmp_path / "one"))
    assert again.target_tokenizer is again.source_tokenizer


def test_the_card_says_whether_it_was_trained(pair_folder: Path, tmp_path: Path) -> None:
    side = Side(reference=str(pair_folder))
    bundle = combine(side, side)
    assert not bundle.is_trained
    save_bundle(bundle, tmp_path / "fresh")
    assert "fine-tuned: no" in (tmp_path / "fresh" / "README.md").read_text()
    assert not load_bundle(str(tmp_path / "fresh")).is_trained
    assert load_bundle(str(pair_folder)).is_trained
    bundle.config["s2s"]["trained"] = True
    save_bundle(bundle, tmp_path / "fresh", overwrite=True)
    assert load_bundle(str(tmp_path / "fresh")).is_trained


def test_nothing_is_overwritten_unasked(pair_folder: Path) -> None:
    bundle = load_bundle(str(pair_folder))
    before = {path.name: path.read_bytes() for path in pair_folder.iterdir()}
    with pytest.raises(UsageError):
        save_bundle(bundle, pair_folder)
    assert before == {path.name: path.read_bytes() for path in pair_folder.iterdir()}


# -- refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda w: w.pop("enc_to_dec_proj.weight"), r"missing: projection\.weight"),
        (
            lambda w: w.update({"enc_to_dec_proj.weight": torch.zeros(2, 2)}),
            r"projection\.weight \(2, 2\) instead of \(32, 48\)",
        ),
        (lambda w: w["enc_to_dec_proj.bias"].fill_(float("nan")), r"NaN or infinity: projection\.bias"),
        (lambda w: w.update({"stranger.weight": torch.zeros(2)}), r"unexpected.*stranger\.weight"),
        (
            lambda w: [w.pop(n) for n in list(w) if "crossattention" in n],
            r"missing.*layers\.0\.cross_attention\.query",
        ),
        (lambda w: [w.pop(n) for n in list(w) if n.startswith("encoder.")], "missing.*embedding"),
    ],
    ids=["no projection", "its shape", "its NaN", "stranger", "no cross-attention", "no encoder"],
)
def test_damaged_pairs(pair_folder: Path, harm: Any, message: str) -> None:
    weights = load_file(pair_folder / "model.safetensors")
    harm(weights)
    save_file(weights, pair_folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=message) as caught:
        load_bundle(str(pair_folder))
    assert str(pair_folder) in str(caught.value)


@pytest.mark.parametrize("value", ["REMOVE", None, [1], "bert"])
def test_pairs_without_a_side(pair_folder: Path, value: Any) -> None:
    edit(pair_folder, decoder=value)
    with pytest.raises(CheckpointError, match="decoder"):
        load_bundle(str(pair_folder))


def test_a_shared_folder_whose_sides_do_not_fit(pair_folder: Path) -> None:
    edit(pair_folder, s2s={"share": "embeddings"})
    with pytest.raises(CheckpointError, match="share"):
        load_bundle(str(pair_folder))


@pytest.mark.parametrize("s2s", [None, [1], "x", {"share": "half"}, {"share": 3}])
def test_strange_provenance(pair_folder: Path, s2s: Any) -> None:
    edit(pair_folder, s2s=s2s)
    with pytest.raises(CheckpointError, match="s2s"):
        load_bundle(str(pair_folder))


# -- the report ----------------------------------------------------------------------------------------------


def test_report_counts_by_part(tmp_path: Path) -> None:
    tiny.save_encoder("bert", tmp_path / "e", hidden_size=48)
    tiny.save_language_model("gpt2", tmp_path / "d")
    ids = {"decoder_start_token_id": 3, "eos_token_id": 2, "pad_token_id": 0}
    bundle = combine(Side(reference=str(tmp_path / "e")), Side(reference=str(tmp_path / "d")), settings=ids)
    model, table = bundle.model, bundle.report.by_part(part_of)
    assert isinstance(model, EncoderDecoder)
    assert model.projection is not None
    crossed = [p for n, p in model.decoder.named_parameters() if "cross" in n]
    assert table["encoder"]["loaded"] == sum(p.numel() for p in model.encoder.parameters())
    assert table["encoder"]["unused"] == 48 * 48 + 48  # the pooler
    assert table["encoder"]["fresh"] == 0
    assert table["cross_attention"] == {"loaded": 0, "fresh": sum(p.numel() for p in crossed), "unused": 0}
    assert table["projection"]["fresh"] == 48 * 32 + 32
    own = sum(p.numel() for n, p in model.decoder.named_parameters() if "cross" not in n)
    assert table["decoder"] == {"loaded": own, "fresh": 0, "unused": 0}


def test_reports_add_up() -> None:
    one = LoadReport(loaded={"a": 1}, fresh={"b": 2}).prefixed("encoder")
    both = one + LoadReport(unused={"c": 3})
    assert (both.loaded, both.fresh, both.unused) == ({"encoder.a": 1}, {"encoder.b": 2}, {"c": 3})
    assert part_of("a") == "stack"
