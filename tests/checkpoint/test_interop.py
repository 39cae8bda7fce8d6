"""Folders go both ways between s2s and transformers.EncoderDecoderModel, with equal logits and output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import EncoderDecoderModel

from seq2seq_cli.checkpoint.bundle import Bundle, load_bundle
from seq2seq_cli.checkpoint.saving import save_bundle
from seq2seq_cli.combiner import Side, combine
from seq2seq_cli.decoding import generate_ids
from seq2seq_cli.families import FAMILIES
from seq2seq_cli.model import EncoderDecoder
from tests import tiny

FAMILY_NAMES = ("bert", "roberta", "gpt2")
IDS = {"decoder_start_token_id": 3, "eos_token_id": 2, "pad_token_id": 0, "bos_token_id": 3}
WIDE: dict[str, dict[str, Any]] = {
    "bert": {"hidden_size": 48},
    "roberta": {"hidden_size": 48},
    "gpt2": {"n_embd": 48},
}
#: the 40 pairs that transformers' EncoderDecoderModel can run
ENCODERS = (
    *("bert", "openai-gpt", "gpt2", "xlnet", "xlm", "roberta", "distilbert", "ctrl", "camembert", "albert"),
)
DECODERS = ("bert", "roberta", "gpt2", "camembert")
#: find positions from the padding id
ROBERTA_LIKE = ("roberta", "camembert")
PAIRS: list[tuple[str, str, dict[str, Any]]] = [(e, d, {}) for e in ENCODERS for d in DECODERS]
PAIRS += [(e, d, WIDE[e]) for e, d in (("bert", "gpt2"), ("roberta", "bert"), ("gpt2", "roberta"))]
ROWS = [[5, 6, 7, 8], [9, 10, 11, 12, 13, 14, 15], [20, 21]]


def same_logits(ours: Any, theirs: Any, pad: int = 0) -> None:
    """Equal logits for a padded source and a padded target."""
    source, mask = tiny.padded(ROWS, pad=pad)
    target, target_mask = tiny.padded([[3, 30, 31, 32, 33], [3, 34, 35], [3, 36, 37, 38]], pad=0)
    target[target_mask == 0] = 1 if theirs.config.decoder.model_type in ROBERTA_LIKE else 0
    with torch.no_grad():
        expected = theirs(
            input_ids=source,
            attention_mask=mask,
            decoder_input_ids=target,
            decoder_attention_mask=target_mask,
        ).logits
        got = ours(source, mask, target, target_mask)
    assert tiny.relative_error(got, expected, target_mask) < 1e-5


def pad_of(encoder: str) -> int:
    return 1 if encoder in ROBERTA_LIKE else 0


@pytest.mark.parametrize(("encoder", "decoder", "changes"), PAIRS, ids=str)
def test_theirs_loads_here(encoder: str, decoder: str, changes: dict[str, Any], tmp_path: Path) -> None:
    theirs = tiny.pair(encoder, decoder, encoder_changes=changes)
    theirs.save_pretrained(tmp_path)
    bundle = load_bundle(str(tmp_path))
    same_logits(bundle.model, theirs, pad_of(encoder))
    assert (bundle.model.projection is not None) is bool(changes)  # type: ignore[union-attr]
    assert not bundle.report.fresh
    assert sum(bundle.report.loaded.values()) == sum(p.numel() for p in bundle.model.parameters())
    assert bundle.source_tokenizer is None
    for side, stack in (("encoder", theirs.encoder), ("decoder", theirs.decoder)):
        half = load_bundle(str(tmp_path), role=side).model  # type: ignore[arg-type]
        ids = torch.tensor([[5, 6, 7]])
        with torch.no_grad():
            assert tiny.relative_error(half(ids), stack(input_ids=ids)[0]) < 1e-5


@pytest.mark.parametrize(("encoder", "decoder", "changes"), PAIRS, ids=str)
def test_ours_loads_there(encoder: str, decoder: str, changes: dict[str, Any], tmp_path: Path) -> None:
    tiny.save_encoder(encoder, tmp_path / "e", seed=3, **changes)
    tiny.save_language_model(decoder, tmp_path / "d", seed=4)
    bundle = combine(
        Side(reference=str(tmp_path / "e")), Side(reference=str(tmp_path / "d")), settings=IDS, seed=1
    )
    tiny.scramble(bundle.model, 7)  # the fresh cross-attention is too small to show
    save_bundle(bundle, tmp_path / "pair")
    theirs, info = EncoderDecoderModel.from_pretrained(tmp_path / "pair", output_loading_info=True)
    theirs.eval()
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    assert all("pooler" in name for name in info["missing_keys"])
    same_logits(bundle.model, theirs, pad_of(encoder))
    source, mask = tiny.padded(ROWS, pad=pad_of(encoder))
    for beams in (1, 3):
        # transformers' RoBERTa takes a written pad id (1) for padding and moves its positions: not written
        options = {"num_beams": beams, "num_return_sequences": beams, "bad_words_ids": [[1]]}
        expected = theirs.generate(
            input_ids=source,
            attention_mask=mask,
            max_new_tokens=8,
            **options,
            return_dict_in_generate=True,
            output_scores=True,
        )
        got = generate_ids(bundle.model, source, mask, max_new_tokens=8, **options)
        tiny.same_hypotheses(got, expected)


def rewritten(folder: Path, how: str, theirs: Any) -> None:
    """The folder of ``theirs`` in one of the older or larger layouts."""
    if how == "bin":
        torch.save(theirs.state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    elif how == "sharded bin":
        weights = theirs.state_dict()
        names = sorted(weights)
        files = {name: f"pytorch_model-0000{1 + (i % 2)}-of-00002.bin" for i, name in enumerate(names)}
        for file in set(files.values()):
            torch.save({name: weights[name] for name in names if files[name] == file}, folder / file)
        (folder / "pytorch_model.bin.index.json").write_text(
            json.dumps({"metadata": {}, "weight_map": files})
        )
        (folder / "model.safetensors").unlink()
    elif how == "shards":
        (folder / "model.safetensors").unlink()
        theirs.save_pretrained(folder, max_shard_size="20KB")
        assert len(list(folder.glob("model-*.safetensors"))) > 3
    elif how == "no defaults":  # 4.x wrote nested configs without the defaults
        config = json.loads((folder / "config.json").read_text())
        for side in ("encoder", "decoder"):
            options = FAMILIES[config[side]["model_type"]].options
            kept = {k: v for k, v in config[side].items() if k not in options or options[k] != v}
            config[side] = kept
        config = {k: v for k, v in config.items() if k in ("model_type", "encoder", "decoder", *IDS)}
        (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("how", ["bin", "sharded bin", "shards", "no defaults"])
@pytest.mark.parametrize(("encoder", "decoder"), [("bert", "gpt2"), ("roberta", "roberta")])
def test_other_layouts(how: str, encoder: str, decoder: str, tmp_path: Path) -> None:
    theirs = tiny.pair(encoder, decoder)
    theirs.save_pretrained(tmp_path)
    rewritten(tmp_path, how, theirs)
    same_logits(load_bundle(str(tmp_path)).model, theirs, pad_of(encoder))


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_shared_folder_of_transformers_4(family: str, tmp_path: Path) -> None:
    """tie_encoder_decoder: the file has the decoder's copy and, of the encoder, the pooler alone."""
    theirs = tiny.pair(family, family)
    own = dict(theirs.decoder.base_model.named_parameters())
    for name, parameter in theirs.encoder.named_parameters():
        if name in own:
            parameter.data = own[name].data.clone()
    theirs.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {n: t for n, t in weights.items() if n.startswith("decoder.") or ".pooler." in n}
    assert len(kept) < len(weights)
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tie_encoder_decoder": True}))
    bundle = load_bundle(str(tmp_path))
    same_logits(bundle.model, theirs, pad_of(family))
    assert_shared(bundle, "all")
    half = load_bundle(str(tmp_path), role="encoder").model
    with torch.no_grad():
        ids = torch.tensor([[5, 6, 7]])
        assert tiny.relative_error(half(ids), theirs.encoder(input_ids=ids)[0]) < 1e-5


def assert_shared(bundle: Bundle, share: str) -> None:
    """Sharing is by storage, and of exactly what the word says."""
    model = bundle.model
    assert isinstance(model, EncoderDecoder)
    decoder = dict(model.decoder.named_parameters())
    for name, parameter in model.encoder.named_parameters():
        same = parameter.data_ptr() == decoder[name].data_ptr()
        assert same is (share == "all" or (share == "embeddings" and name == "embedding.weight")), name
    head = model.decoder.head
    assert head is not None
    assert head.weight.data_ptr() == model.decoder.embedding.weight.data_ptr()


@pytest.mark.parametrize("share", ["none", "embeddings", "all"])
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_sharing_survives_the_folder(family: str, share: Any, tmp_path: Path) -> None:
    tiny.save_language_model(family, tmp_path / "lm")
    side = Side(reference=str(tmp_path / "lm"))
    bundle = combine(side, side, settings=IDS, share=share)
    assert_shared(bundle, share)
    tiny.scramble(bundle.model, 5)
    save_bundle(bundle, tmp_path / "pair")
    again = load_bundle(str(tmp_path / "pair"))
    assert_shared(again, share)
    weights = load_file(tmp_path / "pair" / "model.safetensors")
    assert any(name.startswith("encoder.") for name in weights), "shared parameters are on both sides"
    same_logits(again.model, EncoderDecoderModel.from_pretrained(tmp_path / "pair").eval(), pad_of(family))
    bit_equal(bundle, again)


def bit_equal(one: Bundle, other: Bundle) -> None:
    left, right = (dict(bundle.model.named_parameters()) for bundle in (one, other))
    assert set(left) == set(right)
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize(
    ("encoder", "decoder"),
    [
        ({"family": "bert", "tie_word_embeddings": False}, {"family": "bert", "tie_word_embeddings": False}),
        ({"family": "gpt2"}, {"family": "gpt2", "tie_word_embeddings": False, "n_inner": 40}),
        (
            {"family": "roberta", "hidden_size": 48},
            {"family": "roberta", "tie_word_embeddings": False, "hidden_act": "relu"},
        ),
    ],
    ids=["bert", "gpt2", "roberta"],
)
def test_untied_pairs_both_ways(encoder: dict[str, Any], decoder: dict[str, Any], tmp_path: Path) -> None:
    """The decoder's own output matrix and (BERT, RoBERTa) its own bias are written, read and used."""
    sides = []
    for settings in (encoder, decoder):
        given = dict(settings)
        family = given.pop("family")
        sides.append(Side(family=family, config={**tiny.base(family), **given}))
    bundle = combine(*sides, settings=IDS)
    tiny.scramble(bundle.model, 11)
    save_bundle(bundle, tmp_path / "pair")
    same_logits(bundle.model, EncoderDecoderModel.from_pretrained(tmp_path / "pair").eval(), 1)
    again = load_bundle(str(tmp_path / "pair"))
    bit_equal(bundle, again)
    head = again.decoder.head
    assert head is not None
    assert head.weight.data_ptr() != again.decoder.embedding.weight.data_ptr()


@pytest.mark.parametrize(
    ("family", "role", "auto"),
    [
        ("bert", "masked_lm", "AutoModelForMaskedLM"),
        ("bert", "decoder", "AutoModelForCausalLM"),
        ("roberta", "encoder", "AutoModel"),
        ("roberta", "decoder", "AutoModelForCausalLM"),
        ("gpt2", "decoder", "AutoModelForCausalLM"),
        ("gpt2", "encoder", "AutoModel"),
    ],
)
@pytest.mark.parametrize("is_decoder", [False, True])
def test_single_stacks_both_ways(family: str, role: Any, auto: str, is_decoder: bool, tmp_path: Path) -> None:
    """Whatever the folder was, what is saved says what it was used as, and in which precision."""
    changes = {} if family == "gpt2" else {"is_decoder": is_decoder}
    tiny.language_model(family, **changes).half().save_pretrained(tmp_path / "a")
    bundle = load_bundle(str(tmp_path / "a"), role=role)
    save_bundle(bundle, tmp_path / "b")
    theirs, info = getattr(transformers, auto).from_pretrained(tmp_path / "b", output_loading_info=True)
    assert all("pooler" in name for name in info["missing_keys"])
    assert {parameter.dtype for parameter in theirs.parameters()} == {torch.float32}
    ids = torch.randint(3, 60, (2, 7), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert tiny.relative_error(bundle.model(ids), theirs.eval()(input_ids=ids)[0]) < 1e-5
    bit_equal(bundle, load_bundle(str(tmp_path / "b"), role=role))


def test_half_of_a_pair_stands_alone(tmp_path: Path) -> None:
    """The decoder of a pair, loaded and saved as a language model, no longer claims cross-attention."""
    tiny.pair("bert", "bert").save_pretrained(tmp_path / "pair")
    bundle = load_bundle(str(tmp_path / "pair"), role="decoder")
    save_bundle(bundle, tmp_path / "lm")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "lm").eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert tiny.relative_error(bundle.model(ids), theirs(input_ids=ids)[0]) < 1e-5
