"""Combining: where settings go, which ids begin and end a target, what is fresh, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from seq2seq_cli.combiner import Side, combine, combine_single, split_settings
from seq2seq_cli.errors import CheckpointError, UsageError
from seq2seq_cli.families import FAMILIES
from seq2seq_cli.model import EncoderDecoder, SpecialIds
from seq2seq_cli.text.training import train_tokenizer
from tests import tiny

TEXTS = ["the boss asks and the model answers", "select name from staff where age > 40"]
WORDPIECE = train_tokenizer("wordpiece", 60, TEXTS)  # [PAD] 0 [UNK] 1 [CLS] 2 [SEP] 3 [MASK] 4
IDS = {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def scratch(family: str, **config: Any) -> Side:
    return Side(family=family, config={**tiny.base(family), **config})


def folder(path: Path, family: str, *, tokenizer: bool = False, **changes: Any) -> Side:
    tiny.save_language_model(family, path, **changes)
    if tokenizer:
        WORDPIECE.save(path)
    return Side(reference=str(path))


# -- special ids -------------------------------------------------------------------------------------


def test_bert_to_gpt2_starts_pads_and_ends_with_one_token(tmp_path: Path) -> None:
    decoder = folder(tmp_path / "d", "gpt2", bos_token_id=59, eos_token_id=59)
    bundle = combine(folder(tmp_path / "e", "bert"), decoder)
    assert bundle.model.special_ids == SpecialIds(start=59, eos=(59,), pad=59, bos=59)
    for key in ("decoder_start_token_id", "eos_token_id", "pad_token_id"):
        assert bundle.config[key] == 59


def test_bert_to_bert_starts_with_cls_and_ends_with_sep(tmp_path: Path) -> None:
    side = folder(tmp_path / "lm", "bert", tokenizer=True)
    ids = combine(side, side).model.special_ids
    assert (ids.start, ids.eos, ids.pad) == (WORDPIECE.cls_id, (WORDPIECE.sep_id,), WORDPIECE.pad_id)
    assert (ids.start, ids.eos, ids.pad) == (2, (3,), 0)


def test_roberta_has_its_own(tmp_path: Path) -> None:
    side = folder(tmp_path / "lm", "roberta")
    assert combine(side, side).model.special_ids == SpecialIds(start=0, eos=(2,), pad=1, bos=0)


def test_what_is_set_wins(tmp_path: Path) -> None:
    side = folder(tmp_path / "lm", "roberta")
    model = combine(side, side, settings={"decoder_start_token_id": 7, "eos_token_id": 8}).model
    assert model.special_ids == SpecialIds(start=7, eos=(8,), pad=1, bos=0)
    model = combine(side, side, settings={"bos_token_id": 9}).model
    assert model.special_ids.start == 9


def test_the_encoder_has_no_say(tmp_path: Path) -> None:
    encoder = folder(tmp_path / "e", "roberta", bos_token_id=40, eos_token_id=41, pad_token_id=4)
    decoder = folder(tmp_path / "d", "gpt2", bos_token_id=50, eos_token_id=51, pad_token_id=52)
    ids = combine(encoder, decoder).model.special_ids
    assert ids == SpecialIds(start=50, eos=(51,), pad=52, bos=50)


def test_several_eos_in_the_config_give_the_first(tmp_path: Path) -> None:
    side = folder(tmp_path / "lm", "gpt2")
    path = tmp_path / "lm" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": [4, 5]}))
    assert combine(side, side).model.special_ids.eos == (4,)


def test_refused_without_start_eos_or_pad(tmp_path: Path) -> None:
    """Ids beyond the vocabulary count as unknown; every missing one is named."""
    side = folder(tmp_path / "lm", "gpt2", bos_token_id=50256, eos_token_id=50256)
    with pytest.raises(UsageError) as caught:
        combine(side, side)
    named = [finding.remedy for finding in caught.value.findings]
    assert named == [
        f"give it with --set {key}=ID" for key in ("decoder_start_token_id", "eos_token_id", "pad_token_id")
    ]
    with pytest.raises(UsageError) as caught:
        combine(side, side, settings={"eos_token_id": 2})  # pads with eos, but nothing begins
    assert [f.what.split()[1] for f in caught.value.findings] == ["decoder_start_token_id"]
    with pytest.raises(UsageError, match="no eos_token_id"):
        combine(side, side, settings={"decoder_start_token_id": 2, "pad_token_id": 0})


@pytest.mark.parametrize("value", [60, -1, "2", 2.0, True, None, [2]])
def test_a_set_id_must_be_one(value: Any) -> None:
    with pytest.raises(UsageError, match="eos_token_id"):
        combine(scratch("bert"), scratch("gpt2"), settings={"eos_token_id": value})


def test_start_pad_and_eos_may_be_one_id(tmp_path: Path) -> None:
    """A mask from lengths, as training makes it: padding of the same id as eos and start changes nothing."""
    one = dict.fromkeys(IDS, 5)
    model = combine(scratch("bert"), scratch("gpt2"), settings=one).model
    tiny.scramble(model)
    targets = [[5, 5, 7, 8, 5], [5, 9], [5, 5, 5]]
    ids, mask = tiny.padded(targets, pad=5)
    source = torch.tensor([[6, 7, 5, 5]] * 3)
    with torch.no_grad():
        together = model(source, None, ids, mask.bool())
        for row, target in enumerate(targets):
            alone = model(source[:1], None, torch.tensor([target]))
            assert tiny.relative_error(together[row : row + 1, : len(target)], alone) < 1e-5


# -- settings ----------------------------------------------------------------------------------------


def test_prefix_rule() -> None:
    encoder, decoder, own = split_settings(
        {
            "encoder_hidden_size": 8,
            "decoder_n_embd": 9,
            "vocab_size": 10,
            "decoder_start_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 3,
            "bos_token_id": 4,
            "encoder_pad_token_id": 5,
        },
        FAMILIES["bert"],
        FAMILIES["gpt2"],
    )
    assert encoder == {"hidden_size": 8, "vocab_size": 10, "pad_token_id": 5}
    assert decoder == {"n_embd": 9, "vocab_size": 10}
    assert own == {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 3, "bos_token_id": 4}


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("encoder_hiden_size", "did you mean 'encoder_hidden_size'"),
        ("decoder_n_head_", "did you mean 'decoder_n_head'"),
        ("hidden_size", "write encoder_hidden_size"),
        ("n_embd", "write decoder_n_embd"),
        ("decoder_hidden_size", "unknown setting 'decoder_hidden_size'"),
        ("decoder_start_token", "did you mean 'decoder_start_token_id'"),
        ("eos_token", "did you mean 'eos_token_id'"),
        ("qqq", "known: .*encoder_hidden_size"),
    ],
)
def test_unknown_settings_name_the_nearest(key: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        split_settings({key: 1, "decoder_nonsense": 2}, FAMILIES["bert"], FAMILIES["gpt2"])
    assert len(caught.value.findings) == 2, "all at once, each once"


def test_settings_arrive_in_the_model(tmp_path: Path) -> None:
    bundle = combine(
        scratch("bert"),
        scratch("gpt2"),
        settings={**IDS, "encoder_hidden_act": "relu", "decoder_n_layer": 3, "initializer_range": 0.5},
    )
    model = bundle.model
    assert isinstance(model, EncoderDecoder)
    assert model.encoder.config.activation == "relu"
    assert len(model.decoder.layers) == 3
    assert (model.encoder.config.init_std, model.decoder.config.init_std) == (0.5, 0.5)
    assert bundle.config["decoder"]["n_layer"] == 3
    assert float(model.encoder.embedding.weight.detach().std()) == pytest.approx(0.5, rel=0.1)


def test_a_setting_that_the_weights_contradict_is_refused(tmp_path: Path) -> None:
    side = folder(tmp_path / "lm", "bert")
    with pytest.raises(CheckpointError, match="another shape"):
        combine(side, side, settings={**IDS, "hidden_size": 64})
    with pytest.raises(CheckpointError, match="missing"):
        combine(side, side, settings={**IDS, "decoder_num_hidden_layers": 3})


@pytest.mark.parametrize(
    ("encoder", "decoder", "message"),
    [
        (Side(), scratch("bert"), "encoder names neither"),
        (scratch("bert"), Side(family="bret"), "did you mean 'bert'"),
        (scratch("bert", hidden_siz=3), scratch("bert"), "did you mean 'hidden_size'"),
        (scratch("bert"), scratch("gpt2", n_hed=3), "decoder config.*did you mean 'n_head'"),
    ],
)
def test_sides_that_are_wrong(encoder: Side, decoder: Side, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        combine(encoder, decoder, settings=IDS)


# -- what is fresh -----------------------------------------------------------------------------------


def test_only_cross_attention_is_fresh(tmp_path: Path) -> None:
    bundle = combine(folder(tmp_path / "e", "bert"), folder(tmp_path / "d", "bert"), settings=IDS)
    assert bundle.report.fresh
    assert all(".cross_attention." in name or ".cross_norm." in name for name in bundle.report.fresh)
    assert bundle.config["s2s"]["fresh"] == sorted(bundle.report.fresh)
    named = {name for name, _ in bundle.model.named_parameters()}
    assert set(bundle.report.fresh) | set(bundle.report.loaded) == named
    assert not set(bundle.report.fresh) & set(bundle.report.loaded)


def test_a_bare_encoder_as_decoder_gets_a_fresh_head(tmp_path: Path) -> None:
    tiny.save_encoder("bert", tmp_path / "e")
    side = Side(reference=str(tmp_path / "e"))
    fresh = combine(side, side, settings=IDS).report.fresh
    assert {name for name in fresh if "cross" not in name} == {
        *("decoder.head.dense.weight", "decoder.head.dense.bias"),
        *("decoder.head.norm.weight", "decoder.head.norm.bias", "decoder.head.bias"),
    }


def test_a_decoder_that_lacks_more_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    side = folder(tmp_path / "d", "gpt2")
    weights = load_file(tmp_path / "d" / "model.safetensors")
    del weights["transformer.h.0.ln_1.weight"]
    save_file(weights, tmp_path / "d" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"missing: layers\.0\.self_norm\.weight"):
        combine(side, side, settings=IDS)


def test_a_pair_gives_its_sides_and_its_cross_attention(tmp_path: Path) -> None:
    theirs = tiny.pair("bert", "gpt2")
    theirs.save_pretrained(tmp_path / "pair")
    side = Side(reference=str(tmp_path / "pair"))
    bundle = combine(side, side)
    assert not bundle.report.fresh
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        expected = theirs(input_ids=ids, decoder_input_ids=ids).logits
        assert tiny.relative_error(bundle.model(ids, None, ids), expected) < 1e-5


def test_random_sides(tmp_path: Path) -> None:
    from dataclasses import replace

    encoder, decoder = folder(tmp_path / "e", "bert"), folder(tmp_path / "d", "gpt2")
    bundle = combine(replace(encoder, random=True), decoder)
    model = bundle.model
    assert isinstance(model, EncoderDecoder)
    parts = {name.partition(".")[0] for name in bundle.report.loaded}
    assert parts == {"decoder"}
    assert float(model.encoder.embedding.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
    (tmp_path / "e" / "model.safetensors").unlink()  # a random side needs no weights
    combine(replace(encoder, random=True), decoder)


def test_the_seed_decides_what_is_fresh(tmp_path: Path) -> None:
    def weights(seed: int) -> dict[str, torch.Tensor]:
        bundle = combine(scratch("bert", hidden_size=48), scratch("gpt2"), settings=IDS, seed=seed)
        return dict(bundle.model.named_parameters())

    first, again, other = weights(3), weights(3), weights(4)
    assert all(torch.equal(first[name], again[name]) for name in first)
    random = [name for name in first if first[name].detach().std() > 0]
    assert random
    assert not any(torch.equal(first[name], other[name]) for name in random)
    same = combine(scratch("bert"), scratch("bert"), settings=IDS).model
    assert isinstance(same, EncoderDecoder)
    assert not torch.equal(same.encoder.embedding.weight, same.decoder.embedding.weight)


def test_the_seed_does_not_touch_the_global_generator() -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    combine(scratch("bert", hidden_size=48), scratch("gpt2"), settings=IDS)
    assert torch.equal(before, torch.random.get_rng_state())


# -- sharing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoder", "decoder", "share", "message"),
    [
        (scratch("bert"), scratch("gpt2", n_embd=64), "embeddings", "differ in size"),
        (scratch("bert", vocab_size=61), scratch("bert"), "embeddings", "61×32"),
        (scratch("bert"), scratch("gpt2"), "all", "same checkpoint"),
        (scratch("bert"), scratch("bert", num_hidden_layers=3), "all", "same checkpoint"),
        (scratch("bert"), scratch("bert", hidden_act="relu"), "all", "same checkpoint"),
    ],
)
def test_sharing_that_does_not_fit(encoder: Side, decoder: Side, share: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        combine(encoder, decoder, settings=IDS, share=share)


def test_sharing_needs_one_checkpoint_and_one_tokenizer(tmp_path: Path) -> None:
    one, two = folder(tmp_path / "a", "bert", tokenizer=True), folder(tmp_path / "b", "bert", tokenizer=True)
    combine(one, two, share="embeddings")
    with pytest.raises(UsageError, match="same checkpoint"):
        combine(one, two, share="all")
    train_tokenizer("wordpiece", 50, ["other words"]).save(tmp_path / "b")
    with pytest.raises(UsageError, match="tokenizers differ"):
        combine(one, two, share="embeddings")


# -- settings ----------------------------------------------------------------------------------------


def test_fewer_layers_may_be_asked_for(tmp_path: Path) -> None:
    """The others are reported as unused; a folder that says so by itself is refused."""
    side = folder(tmp_path / "lm", "bert")
    bundle = combine(side, side, settings={**IDS, "encoder_num_hidden_layers": 1})
    assert bundle.model.encoder.config.num_layers == 1
    assert bundle.model.decoder.config.num_layers == 2
    assert "encoder.layers.1.self_attention.query.weight" in bundle.report.unused
    assert not any(name.startswith("decoder.layers.") for name in bundle.report.unused)
    whole = combine_single(side, settings={**IDS, "num_hidden_layers": 1})
    assert "stack.layers.1.feedforward.inner.bias" in whole.report.unused
    path = tmp_path / "lm" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_hidden_layers": 1}))
    for settings in (IDS, {**IDS, "hidden_dropout_prob": 0.0, "layer_norm_eps": 1e-5}):
        with pytest.raises(CheckpointError, match="16 unexpected parameters: "):
            combine(side, side, settings=settings)


@pytest.mark.parametrize("share", ["none", "embeddings", "all"])
def test_shared_parameters_are_counted_once(share: Any, tmp_path: Path) -> None:
    side = folder(tmp_path / "lm", "bert")
    bundle = combine(side, side, settings=IDS, share=share)
    total = sum(parameter.numel() for parameter in bundle.model.parameters())
    assert sum(bundle.report.loaded.values()) + sum(bundle.report.fresh.values()) == total


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path: Path) -> None:
    side = folder(tmp_path / "lm", "bert", vocab_size=20)
    WORDPIECE.save(tmp_path / "lm")
    with pytest.raises(CheckpointError, match="tokenizer has"):
        combine(side, side, settings=IDS)


def test_from_scratch_takes_size_and_ids_from_its_tokenizer() -> None:
    sizes = {key: value for key, value in tiny.base("bert").items() if key != "vocab_size"}
    side = Side(family="bert", config=sizes, tokenizer=WORDPIECE)
    bundle = combine(side, side)
    model = bundle.model
    assert isinstance(model, EncoderDecoder)
    assert model.decoder.config.vocab_size == WORDPIECE.vocab_size
    assert model.special_ids == SpecialIds(start=2, eos=(3,), pad=0, bos=2)
